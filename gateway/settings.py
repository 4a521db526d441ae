"""The words settings dataclasses are written in. gateway.config reads them; each layer owns its own dataclass.

A settings class is a frozen, kw-only dataclass whose fields are made with `setting()`. Field types: str, int, float,
bool, Literal[...], Duration, Size, Rate, Numbers, Address, Secret, Path, Output, NameOrPath, list[T], dict[str, T], T | None, and other
settings classes. The field's `doc` is the documentation: the reference, the JSON Schema and error messages all come from it.
"""

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

Duration = Annotated[float, "duration"]
"""Seconds; written "20 ms", "5 s", "2 min", "24 h", "7 d"."""

Size = Annotated[int, "size"]
"""Bytes; written "512 KiB", "2 GiB", "1 MB"."""

Rate = Annotated[int, "rate"]
"""Bytes a second; written "256 KiB/s"."""

Numbers = Annotated[float | list[float], "numbers"]
"""A number or an array of them, as they are written: a whole one stays an int with all its digits."""

Output = Annotated[Path, "output"]
"""A file that a driver writes. A Path is one that it reads: where its content has changed, SIGHUP starts the driver anew."""

NameOrPath = Annotated[str, "name or path"]
"""A name; or with a slash in it a path, absolute once it is read, and like a Path relative to the folder of the configuration."""


class Address(NamedTuple):
    """Written "host:port" or "[v6]:port"."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Form(NamedTuple):
    """`pattern` must match the whole string; `words` are what people read instead of it."""

    pattern: str
    words: str

    def fits(self, text: str) -> bool:
        return re.fullmatch(self.pattern, text) is not None


TOPIC = Form(
    r"[A-Za-z0-9._-]{1,249}",
    "the name of a Kafka topic: up to 249 letters, digits, dots, underscores and hyphens",
)
NAME = Form(r"[A-Za-z0-9._-]{1,64}", "a name of up to 64 letters, digits, dots, underscores and hyphens")


class Secret:
    """A secret that prints as ***; written as a table: {env = "NAME"}, {file = "path"} or {credential = "name"}."""

    def __init__(self, reveal: Callable[[], str], source: str, form: Form | None = None) -> None:
        self._reveal = reveal
        self.source = source
        self.form = form

    def reveal(self) -> str:
        """The secret, read now: a file that was replaced is seen. A variable and a credential stay as they were when the process
        began, as long as it lives. Raises OSError or LookupError."""
        return self._reveal()

    def keep(self) -> None:
        """As it is now, for a process that may not read it again. Raises OSError, LookupError or UnicodeDecodeError."""
        secret = self._reveal()
        self._reveal = lambda: secret

    def __repr__(self) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other.source == self.source

    def __hash__(self) -> int:
        return hash(self.source)


def setting(
    default: Any = dataclasses.MISSING,
    *,
    doc: str,
    factory: Any = dataclasses.MISSING,
    minimum: float | None = None,
    maximum: float | None = None,
    form: Form | None = None,
    example: str | None = None,
    transport: Literal["TCP", "UDP"] = "TCP",
    dual_stack: bool = True,
) -> Any:
    """A field of a settings dataclass. `form` is of a string, also a secret one, or of each in an array; `example` is TOML
    text; `transport` is of an address to listen on, and `dual_stack` whether `[::]` takes IPv4 too."""
    metadata = {
        "doc": doc,
        "minimum": minimum,
        "maximum": maximum,
        "form": form,
        "example": example,
        "transport": transport,
        "dual_stack": dual_stack,
    }
    if factory is not dataclasses.MISSING:
        return dataclasses.field(default_factory=factory, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)
