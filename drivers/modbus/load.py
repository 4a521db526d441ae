"""What a configuration asks of its line: requests a second, and the share of the line's time that they take."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from drivers.modbus.plan import Block, blocks
from drivers.modbus.protocol import RTU_OVERHEAD_BYTES, rtu_answer_bytes
from drivers.modbus.unit import Unit

HOLE_REGISTERS_TCP = 64
HOLE_REGISTERS_RTU = 15
"""A request of its own takes 13 characters, two rests of 3.5 and the unit's answer time of ten or more."""

ANSWER_S = 0.01
"""What a unit takes to begin its answer, for the estimate."""

REST_CHARACTERS = 3.5
REST_S_MIN = 0.00175
"""Between frames (section 2.5.1.1); above 19,200 baud it is fixed."""


class LineRate(NamedTuple):
    """`hole_max` is the largest hole worth reading along, in registers; `baud_rate` is 0 where no serial line is known."""

    hole_max: int
    pause_s: float
    baud_rate: int = 0
    bits_per_character: int = 0

    @property
    def character_s(self) -> float:
        return self.bits_per_character / self.baud_rate if self.baud_rate else 0.0

    @property
    def rest_s(self) -> float:
        return max(self.pause_s, REST_CHARACTERS * self.character_s, REST_S_MIN if self.baud_rate else 0.0)

    def request_s(self, block: Block, answer_s: float) -> float:
        """From one request to the next."""
        size = len(block.request.pdu) + RTU_OVERHEAD_BYTES + rtu_answer_bytes(block.request)
        return size * self.character_s + answer_s + 2 * self.rest_s


class Demand(NamedTuple):
    values: int
    requests_a_second: float
    share_min: float
    """Of the line's time, if units answered at once."""
    share: float


def demand(units: Sequence[Unit], line: LineRate) -> Demand:
    values, rate, share_min, share = 0, 0.0, 0.0, 0.0
    for unit in units:
        for interval, points in unit.classes().items():
            values += len(points)
            for block in blocks(points, unit.limits(line.hole_max), ()):
                rate += 1 / interval
                share_min += line.request_s(block, 0.0) / interval
                share += line.request_s(block, ANSWER_S) / interval
    return Demand(values, rate, share_min, share)


def problems(units: Sequence[Unit], line: LineRate) -> Iterator[tuple[str, str]]:
    """Only what can't be, however fast the units are."""
    share = demand(units, line).share_min
    if share > 1:
        yield (
            "units",
            f"would take {share:.0%} of the line's time at {line.baud_rate:,} baud, answer times not counted; "
            "lengthen intervals, read less, or raise the baud rate",
        )


def notes(units: Sequence[Unit], line: LineRate) -> list[str]:
    needs = demand(units, line)
    many = f"{len(units)} unit{'s' if len(units) > 1 else ''}, {needs.values:,} value{'s' if needs.values > 1 else ''}"
    told = f"{many}, {needs.requests_a_second:.3g} requests a second"
    if line.baud_rate:
        told += (
            f": {needs.share:.0%} of the line's time at {line.baud_rate:,} baud, "
            f"if units take {1000 * ANSWER_S:.0f} ms to answer"
        )
        if needs.share > 1:
            told += "; intervals will be missed"
    return [told]
