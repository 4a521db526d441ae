"""Values from one frame, by description.

A field that can't be read is named in `quality` instead of standing in `values`; a frame that is not what was
described raises Undescribed.
"""

import csv
import math
import re
import struct
from collections.abc import Callable, Mapping
from typing import NamedTuple

from drivers.serial import WRITTEN, Field, Layout
from drivers.serial.expression import Expression, TookTooLong
from gateway.record import Value

NUMBER = re.compile(
    r"([+-]?) *(\d{1,32}(?:\.\d{1,32})?|\.\d{1,32})(e[+-]?\d{1,3})?", re.ASCII | re.IGNORECASE
)
SWAPPED = str.maketrans(",.", ".,")
"""Beside the mark that is set the other one may stand between thousands: it makes no number."""

DIGITS = 15
"""All that a double holds. After a factor a number is rounded to them: 231 * 0.1 is 23.1."""

EMPTY = "empty"
NOT_A_NUMBER = "not a number"


class Undescribed(ValueError):
    """The message is what is counted."""


class Unreadable(ValueError):
    """The message is the field's quality."""


class Reading(NamedTuple):
    values: dict[str, Value]
    quality: dict[str, str]


Reader = Callable[[bytes, bytes], Reading]
"""From a whole frame, and what stands between its start and end."""


def reader(layout: Layout, encoding: str) -> Reader:
    """The way in which a layout reads a frame."""
    fields = layout.fields
    if layout.pattern is not None:
        pattern = Expression(layout.pattern)
        return lambda frame, content: _by_pattern(pattern, fields, text(content, encoding))
    if layout.separator is not None:
        separator = layout.separator
        return lambda frame, content: _by_column(separator, fields, text(content, encoding))
    return lambda frame, content: _by_place(fields, frame, encoding)


def text(content: bytes, encoding: str) -> str:
    """Raises Undescribed."""
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise Undescribed("frames that are not text") from error


def number(written: str, decimal: str = ".") -> int | float:
    """Raises Unreadable."""
    found = NUMBER.fullmatch((written if decimal == "." else written.translate(SWAPPED)).strip())
    if found is None:
        raise Unreadable(NOT_A_NUMBER if written.strip() else EMPTY)
    sign, digits, power = found.groups(default="")
    if digits.isdecimal() and not power and len(digits) <= DIGITS:
        return int(sign + digits)
    return finite(float(sign + digits + power))


def finite(value: float) -> float:
    """Raises Unreadable for what JSON has no word for."""
    if not math.isfinite(value):
        raise Unreadable(NOT_A_NUMBER)
    return value


def _by_pattern(pattern: Expression, fields: Mapping[str, Field], content: str) -> Reading:
    try:
        match = pattern.match(content)
    except TookTooLong:
        raise Undescribed("frames that the pattern takes too long for") from None
    if match is None:
        raise Undescribed("frames that the pattern doesn't match")
    return _read(fields, lambda name, field: match[name])


def _by_column(separator: str, fields: Mapping[str, Field], content: str) -> Reading:
    try:
        columns = (
            content.split() if separator == " " else next(csv.reader([content], delimiter=separator), [])
        )
    except csv.Error as error:
        raise Undescribed("frames that are no columns") from error
    by_number = dict(enumerate(columns, start=1))
    return _read(fields, lambda name, field: by_number.get(field.column or 0))


def _by_place(fields: Mapping[str, Field], frame: bytes, encoding: str) -> Reading:
    def written(name: str, field: Field) -> bytes | str | None:
        at = field.at or 0
        start = at if at >= 0 else len(frame) + at
        taken = frame[start : start + field.size] if start >= 0 else b""
        if len(taken) < field.size:
            return None
        if field.type == "text":
            # Filled up with them. In a number a NUL is a digit whose parity was wrong.
            taken = taken.rstrip(b"\0")
        return taken.decode(encoding, "replace") if field.type in WRITTEN else taken

    return _read(fields, written)


def _read(fields: Mapping[str, Field], written: Callable[[str, Field], bytes | str | None]) -> Reading:
    found = Reading({}, {})
    for name, field in fields.items():
        raw = written(name, field)
        if raw is None:
            found.quality[name] = "not in the frame"
            continue
        try:
            found.values[name] = _value(field, raw)
        except Unreadable as reason:
            found.quality[name] = str(reason)
    return found


def _value(field: Field, raw: bytes | str) -> Value:
    """Raises Unreadable."""
    if isinstance(raw, str):
        if field.type == "text":
            return _text(raw.strip())
        value = _hex(raw.strip()) if field.type == "hex" else number(raw, field.decimal)
    else:
        value = _binary(field, raw)
    if field.mask is not None and isinstance(value, int):
        value = (value & field.mask) >> field.mask_shift
    if _is_missing(field, value):
        raise Unreadable("missing")
    if field.names:
        return _named(field.names, value)
    if (field.scale, field.offset) == (1.0, 0.0):
        return value
    return finite(float(f"{value * field.scale + field.offset:.{DIGITS}g}"))


def _is_missing(field: Field, value: float) -> bool:
    missing = field.missing_as_read
    if missing is None or isinstance(value, int):
        return value == missing
    if field.type == "f32":
        return struct.pack("f", value) == struct.pack("f", missing)
    return value == float(missing)


def _named(names: Mapping[str, str], value: float) -> str:
    name = names.get(str(value))
    if name is None:
        raise Unreadable(f"{value} has no name")
    return name


def _text(written: str) -> str:
    if not written:
        raise Unreadable(EMPTY)
    if "\N{REPLACEMENT CHARACTER}" in written:
        raise Unreadable("not text")
    return written


def _hex(digits: str) -> int:
    if re.fullmatch(r"[0-9a-fA-F]{1,16}", digits) is None:
        raise Unreadable("not hexadecimal" if digits else EMPTY)
    return int(digits, 16)


def _binary(field: Field, raw: bytes) -> int | float:
    little = field.byte_order == "little"
    if field.type == "bcd":
        digits = (raw[::-1] if little else raw).hex()
        if not digits.isdecimal():
            raise Unreadable("not decimal")
        return int(digits)
    if field.type == "f32":
        return _single(struct.unpack("<f" if little else ">f", raw)[0])
    if field.type == "f64":
        return finite(struct.unpack("<d" if little else ">d", raw)[0])
    return int.from_bytes(raw, field.byte_order, signed=field.type.startswith("i"))


def _single(value: float) -> float:
    """The shortest number that is the same 32 bits: 21.6, not 21.600000381469727."""
    finite(value)
    for digits in range(6, 9):
        short = float(f"{value:.{digits}g}")
        if struct.pack("f", short) == struct.pack("f", value):
            return short
    return value
