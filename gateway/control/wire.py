"""Typed data as JSON and back: dataclasses are objects, bytes are text where they are text."""

import base64
import dataclasses
import types
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

from gateway.codec import Entry, Shape

T = TypeVar("T")


class StoredRecord(NamedTuple):
    """A record of the queue: its number in its lane, the run that gave it, and what Kafka will get."""

    lane: str
    seq: int
    run: str
    entry: Entry


def to_json(value: Any) -> Any:
    """What json.dumps takes."""
    if dataclasses.is_dataclass(value):
        return {field.name: to_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return to_json(value._asdict())
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    return value


def from_json(cls: type[T], data: Any) -> T:
    """Raises ValueError, TypeError or KeyError for what isn't such an object."""
    return _read(cls, data)  # type: ignore[no-any-return]


def _read(kind: Any, data: Any) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any or origin is Literal:
        return data
    if origin in (Union, types.UnionType):
        present = next(one for one in arguments if one is not type(None))
        return None if data is None else _read(present, data)
    if dataclasses.is_dataclass(kind):
        hints = get_type_hints(kind)
        return kind(**{f.name: _read(hints[f.name], data[f.name]) for f in dataclasses.fields(kind)})  # type: ignore[operator]
    if origin is tuple:
        return tuple(_read(arguments[0], item) for item in data)
    if origin is not None and issubclass(origin, Mapping):
        return {name: _read(arguments[1], item) for name, item in data.items()}
    if origin is not None and issubclass(origin, Sequence):
        return [_read(arguments[0], item) for item in data]
    return kind(data)


def bytes_to_json(name: str, value: bytes | None) -> dict[str, str | None]:
    """{"name": text} where the bytes are UTF-8, else {"name_base64": ...}."""
    if value is None:
        return {name: None}
    try:
        return {name: value.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(value).decode()}


def bytes_from_json(name: str, fields: Mapping[str, Any]) -> bytes | None:
    """Raises KeyError or ValueError."""
    encoded = fields.get(f"{name}_base64")
    if encoded is not None:
        return base64.b64decode(encoded, validate=True)
    value = fields[name]
    return None if value is None else str(value).encode()


def record_to_json(record: StoredRecord) -> dict[str, Any]:
    topic, key, headers = record.entry.shape
    return {
        "lane": record.lane,
        "seq": record.seq,
        "run": record.run,
        "time_ms": record.entry.time_ms,
        "topic": topic,
        **bytes_to_json("key", key),
        "headers": [{"name": name, **bytes_to_json("value", value)} for name, value in headers],
        **bytes_to_json("value", record.entry.value),
    }


def record_from_json(fields: Mapping[str, Any]) -> StoredRecord:
    """Raises KeyError, TypeError or ValueError."""
    headers = tuple((str(one["name"]), bytes_from_json("value", one) or b"") for one in fields["headers"])
    shape = Shape(str(fields["topic"]), bytes_from_json("key", fields), headers)
    entry = Entry(shape, int(fields["time_ms"]), bytes_from_json("value", fields) or b"")
    return StoredRecord(str(fields["lane"]), int(fields["seq"]), str(fields["run"]), entry)
