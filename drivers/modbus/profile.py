"""Device profiles: one TOML file a model, with its registers. Built-in ones stand in profiles/, others anywhere."""

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from drivers.modbus.protocol import READ_REGISTERS_MAX
from drivers.modbus.register import Order, Register, problems

FOLDER = Path(__file__).parent / "profiles"
PROFILE_BYTES_MAX = 1 << 20
PROFILES_MAX = 64
"""Kept at a time."""


@dataclass(frozen=True, kw_only=True)
class Profile:
    """`source` is the document that the registers come from."""

    summary: str
    source: str
    registers: Mapping[str, Register]
    word_order: Order = "big"
    byte_order: Order = "big"
    registers_max: int = READ_REGISTERS_MAX
    holes: bool = True


def built_in() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def path_of(name: str) -> Path:
    """A name with a slash is the path of a profile that is not built in."""
    return Path(name) if "/" in name else FOLDER / f"{name}.toml"


def load(name: str) -> Profile:
    """Raises ValueError that says what is wrong with it."""
    path = path_of(name)
    try:
        state = path.stat()
        if state.st_size > PROFILE_BYTES_MAX:
            raise ValueError(f"profile {path}: is larger than {PROFILE_BYTES_MAX} bytes")
        return _read(path, state.st_mtime_ns)
    except FileNotFoundError as error:
        if "/" in name:
            raise ValueError(f"profile {path}: there is no such file") from error
        known = ", ".join(built_in())
        raise ValueError(f"no profile {name!r}; there are {known}; a path with a slash is your own") from None
    except OSError as error:
        raise ValueError(f"profile {path}: {error.strerror}") from error


@lru_cache(maxsize=PROFILES_MAX)
def _read(path: Path, changed_ns: int) -> Profile:
    """Once for each time that the file was changed."""
    try:
        return _profile(tomllib.loads(path.read_text()))
    except ValueError as error:
        raise ValueError(f"profile {path}: {error}") from error


def register(fields: object, where: str) -> Register:
    """Raises ValueError for a field that is missing, unknown or of the wrong sort."""
    made: Register = _made(Register, fields, where)
    return made


def _profile(table: dict[str, Any]) -> Profile:
    registers = table.pop("registers", None)
    if not isinstance(registers, dict) or not registers:
        raise ValueError("needs a table [registers]")
    made = {}
    for name, fields in registers.items():
        made[name] = register(fields, f"registers.{name}")
        for field, message in problems(made[name]):
            raise ValueError(f"registers.{name}.{field}: {message}")
    profile: Profile = _made(Profile, {**table, "registers": made}, "")
    return profile


def _made(kind: type[Any], fields: object, where: str) -> Any:
    if not isinstance(fields, dict):
        raise ValueError(f"{where} must be a table")
    hints = get_type_hints(kind)
    for name, value in fields.items():
        path = f"{where}.{name}".removeprefix(".")
        if name not in hints:
            raise ValueError(f"{path} is unknown; known are {', '.join(hints)}")
        if not _fits(value, hints[name]):
            raise ValueError(f"{path}: {value!r} is not possible; see `tidegate drivers modbus --reference`")
    for field in dataclasses.fields(kind):
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and field.name not in fields:
            raise ValueError(f"{f'{where}.{field.name}'.removeprefix('.')} is missing")
    return kind(**fields)


def _fits(value: object, hint: Any) -> bool:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return value in arguments
    if origin is Union or origin is UnionType:
        return any(_fits(value, one) for one in arguments if one is not NoneType)
    if origin is dict or origin is Mapping:
        return isinstance(value, dict) and all(_fits(item, arguments[1]) for item in value.values())
    if origin is list:
        return isinstance(value, list) and all(_fits(item, arguments[0]) for item in value)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is hint
