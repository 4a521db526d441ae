"""A unit as it is configured: its values, from a profile or its own registers, and how often each is read."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from drivers.modbus import profile
from drivers.modbus.plan import Limits, Point
from drivers.modbus.protocol import READ_REGISTERS_MAX
from drivers.modbus.register import Order, Register, decoder, plain
from drivers.modbus.register import problems as register_problems
from gateway.settings import Duration, Form, NameOrPath, setting


@dataclass(frozen=True, kw_only=True)
class Unit:
    address: int = setting(
        doc="Its address on the line, 1 to 247; over TCP 0 to 255, what the device's manual says.",
        minimum=0,
        maximum=255,
        example="1",
    )
    device: str = setting(
        doc="Name of the device; its records are on channel modbus/<device>.",
        form=Form(r"[^/+#\x00-\x1f]{1,100}", "a name of up to 100 characters without / + and #"),
        example='"meter-1"',
    )
    profile: NameOrPath | None = setting(
        None,
        doc="A built-in device profile, or the path of one with a slash in it, relative to the configuration's folder.",
        example='"eastron-sdm230"',
    )
    only: list[str] = setting(
        factory=list,
        doc="Of the profile only the values with these names, * and ? allowed; all without it.",
        example='["voltage*", "power"]',
    )
    registers: dict[str, Register] = setting(
        factory=dict, doc="Its values by name, beside or instead of those of the profile."
    )
    interval: Duration = setting(
        1.0, doc="Its values are read once in this time.", minimum=0.01, example='"1 s"'
    )
    intervals: dict[str, Duration] = setting(
        factory=dict,
        doc="Other intervals, by names of values, * and ? allowed; the first that fits counts.",
        minimum=0.01,
        example='{ "energy*" = "1 min" }',
    )
    word_order: Order | None = setting(
        None, doc="Which register of a long number comes first, the high one (big) or the low one."
    )
    byte_order: Order | None = setting(None, doc="Which byte of a register comes first; big is standard.")
    registers_max: int = setting(
        READ_REGISTERS_MAX, doc="Most registers in one request.", minimum=4, maximum=READ_REGISTERS_MAX
    )
    holes: bool = setting(
        True, doc="Read along what lies between two values, if that saves a request and the unit allows it."
    )

    def values(self) -> dict[str, Register]:
        """All there is to read. Raises ValueError for a profile that can't be loaded."""
        found = {
            name: register
            for name, register in (profile.load(self.profile).registers if self.profile else {}).items()
            if not self.only or any(fnmatchcase(name, pattern) for pattern in self.only)
        }
        return {**found, **self.registers}

    def orders(self) -> tuple[Order, Order]:
        """Of words and bytes."""
        known = profile.load(self.profile) if self.profile else None
        return (
            self.word_order or (known.word_order if known else "big"),
            self.byte_order or (known.byte_order if known else "big"),
        )

    def limits(self, hole_max: int) -> Limits:
        """`hole_max` is the largest hole that is worth reading along on its line."""
        known = profile.load(self.profile) if self.profile else None
        holes = self.holes and (known is None or known.holes)
        most = min(self.registers_max, known.registers_max if known else READ_REGISTERS_MAX)
        return Limits(most, hole_max if holes else 0)

    def interval_of(self, name: str) -> float:
        fitting = (interval for pattern, interval in self.intervals.items() if fnmatchcase(name, pattern))
        return next(fitting, self.interval)

    def classes(self) -> dict[float, list[Point]]:
        """What to read, by interval."""
        orders = self.orders()
        found: dict[float, list[Point]] = {}
        for name, register in self.values().items():
            how = decoder(register, *orders), plain(register, *orders)
            point = Point(name, register.table, register.at, register.count, *how)
            found.setdefault(self.interval_of(name), []).append(point)
        return found


def problems(unit: Unit) -> Iterator[tuple[str, str]]:
    """(path below the unit, what is wrong)"""
    try:
        values = unit.values()
        from_profile = profile.load(unit.profile).registers if unit.profile else {}
    except ValueError as error:
        yield "profile", str(error)
        return
    if not values:
        yield "", "has nothing to read; name a profile or registers"
    if unit.only and not unit.profile:
        yield "only", "chooses from a profile, and there is none"
    for pattern in unit.only if unit.profile else ():
        if not any(fnmatchcase(name, pattern) for name in from_profile):
            yield "only", f"{pattern!r} fits nothing in the profile; {_some(list(from_profile))}"
    for pattern in unit.intervals:
        if not any(fnmatchcase(name, pattern) for name in values):
            yield f"intervals.{pattern}", f"fits no value of the unit; {_some(list(values))}"
    for name, register in unit.registers.items():
        for field, message in register_problems(register):
            yield f"registers.{name}.{field}", message
        if register.count > unit.registers_max:
            yield f"registers.{name}", f"needs {register.count} registers in one request; see registers_max"


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:8])
    return f"there are {shown}{' and others' if len(names) > 8 else ''}"
