"""A unit as it is read: its poll classes, what is learned about it, and how it fares."""

import asyncio
from collections import deque
from collections.abc import Iterable
from math import inf

from drivers.modbus.line import Count, Line, NoAnswer
from drivers.modbus.plan import Block, Plan, Point
from drivers.modbus.protocol import (
    ADDRESSES,
    BIT_TABLES,
    DEVICE_FAILURE,
    ILLEGAL_ADDRESS,
    ILLEGAL_VALUE,
    READ_BITS_MAX,
    READ_REGISTERS_MAX,
    UNREACHED,
    ExceptionAnswer,
    Request,
    read,
)
from drivers.modbus.unit import Unit
from gateway.record import Value

TOO_MUCH = frozenset((ILLEGAL_ADDRESS, ILLEGAL_VALUE, DEVICE_FAILURE))
"""Refusals that may be about a part of what was asked for."""

MUTE_S = 60.0
"""A value to which a unit says nothing, though it answers others, is left out for so long."""

PROBE_S_MAX = 30.0
PATIENCE_S_MAX = 30.0


class PollClass:
    """The values of a unit that are read together, every `interval` seconds."""

    def __init__(self, unit: "Polled", interval: float, points: list[Point], plan: Plan) -> None:
        self.unit = unit
        self.interval = interval
        self.due = -inf
        self._points = points
        self._plan = plan
        self._silent: Request | None = None
        self._mute: dict[str, float] = {}

    @property
    def learned(self) -> list[str]:
        """What is to be remembered for the plan."""
        return self._plan.learned

    @property
    def blocks(self) -> list[Block]:
        return self._plan.blocks

    def nothing(self, reason: str) -> dict[str, str]:
        """The quality of a poll that read nothing."""
        return {point.name: reason for point in self._points}

    async def read(self, line: Line, count: Count) -> tuple[dict[str, Value], dict[str, str], str | None]:
        """Values, quality, and why the unit did not answer, if it didn't. Raises DeviceError."""
        values: dict[str, Value] = {}
        quality: dict[str, str] = {}
        blocks = deque(self._plan.blocks)
        while blocks:
            block = blocks.popleft()
            if self._is_mute(block):
                quality[block.points[0].name] = "no answer"
                continue
            try:
                data = await line.exchange(self.unit.unit.address, block.request)
            except ExceptionAnswer as error:
                count("exception answers", 1)
                if error.code in UNREACHED:
                    return values, self._rest(block, blocks, str(error), quality), str(error)
                too_large = error.code == ILLEGAL_VALUE
                parts = self._plan.cut(block, for_size=too_large) if error.code in TOO_MUCH else None
                if parts is None:
                    quality.update((point.name, f"refused: {error}") for point in block.points)
                else:
                    blocks.extendleft(reversed(parts))
            except NoAnswer as error:
                count("requests without an answer", 1)
                self._was_silent(block)
                return values, self._rest(block, blocks, str(error), quality), str(error)
            else:
                self._plan.took(block)
                if self._silent == block.request:
                    self._silent = None
                found, missing = block.values(data)
                values.update(found)
                quality.update(missing)
        self._plan.went_through()
        return values, quality, None

    def _was_silent(self, block: Block) -> None:
        """Some units don't refuse what they haven't, they say nothing: twice in a row is taken for a refusal."""
        if self._silent != block.request:
            self._silent = block.request
        elif self._plan.cut(block, for_size=False) is None:
            self._mute[block.points[0].name] = asyncio.get_running_loop().time() + MUTE_S

    def _is_mute(self, block: Block) -> bool:
        until = self._mute.get(block.points[0].name)
        return until is not None and len(block.points) == 1 and asyncio.get_running_loop().time() < until

    @staticmethod
    def _rest(block: Block, blocks: Iterable[Block], reason: str, quality: dict[str, str]) -> dict[str, str]:
        return {**quality, **{point.name: reason for one in (block, *blocks) for point in one.points}}


class Polled:
    """`known` is what `learned` of its classes held before."""

    def __init__(self, unit: Unit, hole_max: int, known: Iterable[str]) -> None:
        self.unit = unit
        self.channel = f"modbus/{unit.device}"
        self.failures = 0
        self.probe_at = inf
        limits, lines = unit.limits(hole_max), tuple(known)
        self.classes = [
            PollClass(self, interval, points, Plan(points, limits, lines))
            for interval, points in unit.classes().items()
        ]

    @property
    def _shortest_s(self) -> float:
        return min(each.interval for each in self.classes)

    @property
    def patience_s(self) -> float:
        """How long a probe waits for a time when nothing else is due; then it is made all the same."""
        return min(self._shortest_s, PATIENCE_S_MAX) if self.failures == 1 else PATIENCE_S_MAX

    def failed(self) -> None:
        """To be probed at once after the first failure, which may have been noise; then later and later."""
        self.failures += 1
        wait_s = self._shortest_s * 2 ** min(self.failures - 2, 16) if self.failures > 1 else 0.0
        self.probe_at = asyncio.get_running_loop().time() + min(PROBE_S_MAX, wait_s)

    async def probe(self, line: Line) -> str | None:
        """Why the unit still doesn't answer; None if it does. Raises DeviceError."""
        request = self._probe(line)
        if request is None:
            return "an earlier answer may still come"
        try:
            await line.exchange(self.unit.address, request)
        except NoAnswer as error:
            return str(error)
        except ExceptionAnswer as error:
            return str(error) if error.code in UNREACHED else None
        return None

    def _probe(self, line: Line) -> Request | None:
        """A short read whose answer can't be taken for one that may still come; best of what is known to be there."""
        barred = line.may_come(self.unit.address)
        blocks = [block for each in self.classes for block in each.blocks]
        for sizes in (_whole_values, _any_part, _a_little_more):
            for block in blocks:
                for size in sizes(block):
                    request = read(block.table, block.at, size)
                    if request.head not in barred:
                        return request
        return None


def _whole_values(block: Block) -> Iterable[int]:
    return sorted(point.end - block.at for point in block.points)


def _any_part(block: Block) -> Iterable[int]:
    return range(1, block.size)


def _a_little_more(block: Block) -> Iterable[int]:
    """Bits come eight to a byte, and only another number of bytes makes another answer."""
    size_max = READ_BITS_MAX if block.table in BIT_TABLES else READ_REGISTERS_MAX
    step = 8 if block.table in BIT_TABLES else 1
    sizes = (block.size + step, block.size + 2 * step)
    return [size for size in sizes if size <= size_max and block.at + size <= ADDRESSES]
