"""The kinds of single value in a configuration: how each is read, shown, and described in words and JSON Schema."""

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, Protocol

from gateway.config.report import Place, did_you_mean
from gateway.config.units import Scale
from gateway.settings import Address, Form


class Invalid:
    """Stands for a value with problems, so that reading can go on and find more."""

    def __repr__(self) -> str:
        return "invalid"


INVALID: Final = Invalid()

PORT_MAX = 65535

_TOML_NAMES = {
    bool: "a boolean",
    int: "an integer",
    float: "a number with a point",
    str: "a string",
    list: "an array",
    dict: "a table",
}


def sort_of(value: object) -> str:
    """Never the value itself: it might be a secret in the wrong place."""
    return _TOML_NAMES.get(type(value), "a date or time")


class Kind(Protocol):
    @property
    def words(self) -> str:
        """What would be right, for people: "a duration"."""

    def read(self, value: object, place: Place) -> Any:
        """The typed value; or INVALID, with the problem reported at its place."""

    def plain(self, value: Any) -> Any:
        """The value as it would be written in TOML or JSON, secrets as ***."""

    def schema(self) -> dict[str, Any]:
        """JSON Schema, draft 2020-12."""


def _in_digits(number: float) -> str:
    """All of them: no exponent, and no point behind a whole number."""
    return f"{Decimal(repr(number)).normalize():f}"


@dataclass(frozen=True)
class Bounds:
    minimum: float | None = None
    maximum: float | None = None

    def within(self, value: float) -> bool:
        return (self.minimum is None or value >= self.minimum) and (
            self.maximum is None or value <= self.maximum
        )

    def words(self, scale: Scale | None = None) -> str:
        low, high = (
            None if bound is None else scale.write(bound) if scale else _in_digits(bound)
            for bound in (self.minimum, self.maximum)
        )
        if low is not None and high is not None:
            return f"between {low} and {high}"
        if low is not None:
            return f"at least {low}"
        return f"at most {high}" if high is not None else ""

    def schema(self, low: str = "minimum", high: str = "maximum") -> dict[str, Any]:
        limits = {low: self.minimum, high: self.maximum}
        return {name: limit for name, limit in limits.items() if limit is not None}


@dataclass(frozen=True)
class BoolKind:
    words: str = "true or false"

    def read(self, value: object, place: Place) -> Any:
        if isinstance(value, bool):
            return value
        place.problem(f"must be {self.words}, not {sort_of(value)}")
        return INVALID

    def plain(self, value: Any) -> Any:
        return value

    def schema(self) -> dict[str, Any]:
        return {"type": "boolean"}


@dataclass(frozen=True)
class NumberKind:
    whole: bool
    bounds: Bounds

    @property
    def words(self) -> str:
        noun = "a whole number" if self.whole else "a number"
        return f"{noun} {self.bounds.words()}".rstrip()

    def read(self, value: object, place: Place) -> Any:
        types = int if self.whole else int | float
        if not isinstance(value, types) or isinstance(value, bool):
            place.problem(f"must be {self.words}, not {sort_of(value)}")
            return INVALID
        # nan and inf are TOML numbers, but nothing can be set to them; integers have 64 bits.
        if not abs(value) < (1 << 63):
            place.problem(f"is out of range; must be {self.words}")
            return INVALID
        if not self.bounds.within(value):
            place.problem(f"{value} is out of range; must be {self.words}")
            return INVALID
        return value if self.whole else float(value)

    def plain(self, value: Any) -> Any:
        return value

    def schema(self) -> dict[str, Any]:
        return {"type": "integer" if self.whole else "number", **self.bounds.schema()}


@dataclass(frozen=True)
class NumbersKind:
    """Up to 64 bits, with a sign or without."""

    words: str = "a number or an array of numbers"

    def read(self, value: object, place: Place) -> Any:
        for item in value if isinstance(value, list) else [value]:
            if not isinstance(item, int | float) or isinstance(item, bool):
                place.problem(f"must be {self.words}, not {sort_of(item)}")
                return INVALID
            if isinstance(item, int) and not -(1 << 63) <= item < 1 << 64:
                place.problem(f"is out of range; must be {self.words}")
                return INVALID
        return value

    def plain(self, value: Any) -> Any:
        return value

    def schema(self) -> dict[str, Any]:
        number = {"type": "number"}
        return {"anyOf": [number, {"type": "array", "items": number}]}


@dataclass(frozen=True)
class QuantityKind:
    """A duration, size or rate."""

    scale: Scale
    whole: bool
    bounds: Bounds

    @property
    def words(self) -> str:
        bounds = self.bounds.words(self.scale)
        return f"{self.scale.noun}{f' {bounds}' if bounds else ''}"

    def read(self, value: object, place: Place) -> Any:
        if not isinstance(value, str):
            place.problem(
                f"must be {self.scale.noun} in quotes, not {sort_of(value)}; write it like {self.scale.example}"
            )
            return INVALID
        try:
            exact = self.scale.parse(value)
        except ValueError as error:
            place.problem(str(error))
            return INVALID
        number = int(exact) if self.whole else float(exact)
        if not self.bounds.within(number):
            place.problem(f'"{value}" is out of range; must be {self.words}')
            return INVALID
        return number

    def plain(self, value: Any) -> Any:
        return self.scale.write(value)

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "pattern": self.scale.pattern}


@dataclass(frozen=True)
class TextKind:
    """`bounds` are of the length."""

    form: Form | None
    example: str | None
    bounds: Bounds

    @property
    def words(self) -> str:
        if self.form:
            return self.form.words
        limits = self.bounds.words()
        return f"a string of {limits} characters" if limits else "a string"

    def read(self, value: object, place: Place) -> Any:
        like = f", such as {self.example}" if self.example else ""
        if not isinstance(value, str):
            place.problem(f"must be {self.words}{like}, not {sort_of(value)}")
            return INVALID
        # The text is not shown: it might be a password where its hash belongs.
        if not self.bounds.within(len(value)) or (self.form and not self.form.fits(value)):
            place.problem(f"must be {self.words}{like}")
            return INVALID
        return value

    def plain(self, value: Any) -> Any:
        return value

    def schema(self) -> dict[str, Any]:
        pattern = {"pattern": f"^(?:{self.form.pattern})$"} if self.form else {}
        return {"type": "string", **pattern, **self.bounds.schema("minLength", "maxLength")}


@dataclass(frozen=True)
class ChoiceKind:
    choices: tuple[str | int, ...]

    @property
    def words(self) -> str:
        shown = [f'"{choice}"' if isinstance(choice, str) else str(choice) for choice in self.choices]
        return f"one of {', '.join(shown)}" if len(shown) > 1 else shown[0]

    def read(self, value: object, place: Place) -> Any:
        for choice in self.choices:
            if type(value) is type(choice) and value == choice:
                return choice
        known = [choice for choice in self.choices if isinstance(choice, str)]
        if isinstance(value, str) and known:
            place.problem(f"must be {self.words}{did_you_mean(value, known)}")
        else:
            place.problem(f"must be {self.words}, not {sort_of(value)}")
        return INVALID

    def plain(self, value: Any) -> Any:
        return value

    def schema(self) -> dict[str, Any]:
        return {"enum": list(self.choices)}


@dataclass(frozen=True)
class AddressKind:
    """`bounds` are of the port."""

    bounds: Bounds
    words: str = 'an address "host:port" or "[v6]:port"'

    def read(self, value: object, place: Place) -> Any:
        if not isinstance(value, str):
            place.problem(f"must be {self.words}, not {sort_of(value)}")
            return INVALID
        match = re.fullmatch(r"(?:\[([\w:.%-]+)\]|([\w.-]*)):([0-9]{1,5})", value)
        if match is None:
            place.problem(f"must be {self.words}")
            return INVALID
        host, port = match[1] or match[2], int(match[3])
        if not host:
            place.problem(
                f'has no host; "0.0.0.0:{port}" listens on every address, "127.0.0.1:{port}" only on this machine'
            )
            return INVALID
        if port > PORT_MAX or not self.bounds.within(port):
            limits = Bounds(self.bounds.minimum or 0, self.bounds.maximum or PORT_MAX)
            place.problem(f"port {port} is out of range; must be {limits.words()}")
            return INVALID
        return Address(host, port)

    def plain(self, value: Any) -> Any:
        return str(value)

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "pattern": r"^(\[[^\]]+\]|[^\s:\[\]/@]+):[0-9]{1,5}$"}


def _begins_with_tilde(path: str) -> str:
    """What is wrong with it; empty if nothing is."""
    if not path.startswith("~"):
        return ""
    return (
        "begins with ~, which only a shell makes a home folder of; write the whole path, "
        f'such as "/home/me/{path.partition("/")[2]}"'
    )


@dataclass(frozen=True)
class PathKind:
    words: str = "a path"
    written: bool = False

    def read(self, value: object, place: Place) -> Any:
        if not isinstance(value, str) or not value or "\0" in value:
            place.problem(f"must be {self.words} in quotes, not {'empty' if value == '' else sort_of(value)}")
            return INVALID
        if wrong := _begins_with_tilde(value):
            place.problem(wrong)
            return INVALID
        return place.folder / value

    def plain(self, value: Any) -> Any:
        return str(value)

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "pattern": "^[^~]"}


@dataclass(frozen=True)
class NameOrPathKind:
    words: str = "a name, or a path with a slash in it"

    def read(self, value: object, place: Place) -> Any:
        if not isinstance(value, str) or not value or "\0" in value:
            place.problem(f"must be {self.words}, not {'empty' if value == '' else sort_of(value)}")
            return INVALID
        if "/" in value and (wrong := _begins_with_tilde(value)):
            place.problem(wrong)
            return INVALID
        return str((place.folder / value).absolute()) if "/" in value else value

    def plain(self, value: Any) -> Any:
        return value

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "minLength": 1}
