"""Durations, sizes and rates as people write them: "20 ms", "2 GiB", "256 KiB/s"."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

_NUMBER = r"[0-9]{1,15}(?:\.[0-9]{1,9})?"


@dataclass(frozen=True)
class Scale:
    """One quantity's units. `noun` and `example` speak to the operator; the factors lead to the stored number."""

    noun: str
    example: str
    factors: Mapping[str, Decimal]
    preferred: tuple[str, ...]
    """Units to write numbers in, largest first; the last one fits any number."""

    def parse(self, text: str) -> Decimal:
        """Raises ValueError with what would be right."""
        match = re.fullmatch(rf"({_NUMBER}) *([A-Za-z/]*)", text.strip())
        if match is None:
            raise ValueError(f"{text!r} is not {self.noun}; write it like {self.example}")
        number, unit = match.groups()
        if not unit:
            raise ValueError(f"{text!r} has no unit; write it like {self.example}")
        if unit not in self.factors:
            likely = (unit.lower(), f"{unit.lower()}/s")
            alike = [known for known in self.factors if known.lower() in likely]
            meant = f"; did you mean {alike[0]!r}?" if alike else ""
            raise ValueError(f"unknown unit {unit!r}; the units are {', '.join(self.factors)}{meant}")
        return Decimal(number) * self.factors[unit]

    def write(self, value: float) -> str:
        exact = Decimal(repr(value))
        for unit in self.preferred:
            number = exact / self.factors[unit]
            if number >= 1 and number == number.to_integral_value():
                return f"{number:.0f} {unit}"
        smallest = self.preferred[-1]
        return f"{(exact / self.factors[smallest]).normalize():f} {smallest}"

    @property
    def pattern(self) -> str:
        return rf"^ *{_NUMBER} *({'|'.join(self.factors)}) *$"


_SIZES = {
    "B": Decimal(1),
    **{f"{prefix}iB": Decimal(1 << 10 * power) for power, prefix in enumerate("KMGT", 1)},
    **{f"{prefix}B": Decimal(10 ** (3 * power)) for power, prefix in enumerate("kMGT", 1)},
}

DURATION = Scale(
    "a duration",
    '"20 ms", "5 s", "2 min", "24 h" or "7 d"',
    {"ms": Decimal("0.001"), "s": Decimal(1), "min": Decimal(60), "h": Decimal(3600), "d": Decimal(86400)},
    ("d", "h", "min", "s", "ms"),
)

SIZE = Scale("a size", '"512 KiB", "2 GiB" or "1 MB"', _SIZES, ("TiB", "GiB", "MiB", "KiB", "B"))

RATE = Scale(
    "a rate",
    '"256 KiB/s", "1 MB/s" or "512 kbit/s"',
    {
        **{f"{unit}/s": factor for unit, factor in _SIZES.items()},
        # Links are sold in bits.
        **{
            f"{prefix}bit/s": Decimal(10 ** (3 * power)) / 8
            for power, prefix in enumerate(("", "k", "M", "G"))
        },
    },
    ("GiB/s", "MiB/s", "KiB/s", "B/s"),
)
