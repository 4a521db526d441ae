"""SenML packs, JSON and CBOR, into values (RFC 8428): base fields resolved, records of the same time together."""

import base64
import json
import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from drivers.coap import cbor
from drivers.coap.protocol import BAD_REQUEST, TOO_LARGE, Problem
from gateway.limits import EMIT_RECORDS_MAX, RECORD_BYTES_MAX
from gateway.record import Value

JSON_FORMAT = 110
CBOR_FORMAT = 112

VERSION_MAX = 10
RELATIVE_BEFORE_S = 1 << 28
"""A time below this is in seconds from now (RFC 8428, 4.5.3)."""

TIME_MAX_S = 1 << 40

_LABELS = {
    -1: "bver",
    -2: "bn",
    -3: "bt",
    -4: "bu",
    -5: "bv",
    -6: "bs",
    0: "n",
    1: "u",
    2: "v",
    3: "vs",
    4: "vb",
    5: "s",
    6: "t",
    7: "ut",
    8: "vd",
}
"""RFC 8428, 6: labels in CBOR."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9\-:./_]*")
_BASE_FIELDS = frozenset(("bver", "bn", "bt", "bu", "bv", "bs"))
_NUMBERS = frozenset(("bver", "bt", "bv", "bs", "v", "s", "t", "ut"))
_TEXTS = frozenset(("bn", "bu", "n", "u", "vs"))


class Reading(NamedTuple):
    """Values of one time, by their full names; a sum is called "<name> sum", which no name can be. Units where given."""

    time_ms: int
    values: dict[str, Value]
    units: dict[str, str]


class _Entry(NamedTuple):
    time_ms: int
    name: str
    value: Value
    unit: str


def readings(pack: bytes, content_format: int, now_ms: int) -> list[Reading]:
    """In order of time. A value of a name that is there already begins a new reading. Raises Problem."""
    entries = _resolve(_decoded(pack, content_format), now_ms)
    found: list[Reading] = []
    for entry in sorted(entries, key=lambda entry: entry.time_ms):
        if not found or found[-1].time_ms != entry.time_ms or entry.name in found[-1].values:
            found.append(Reading(entry.time_ms, {}, {}))
        found[-1].values[entry.name] = entry.value
        if entry.unit:
            found[-1].units[entry.name] = entry.unit
    if len(found) > EMIT_RECORDS_MAX:
        raise Problem(TOO_LARGE, f"more than {EMIT_RECORDS_MAX} times in a pack; nothing was stored")
    return found


def _decoded(pack: bytes, content_format: int) -> list[dict[str, Any]]:
    try:
        if content_format == CBOR_FORMAT:
            decoded = cbor.decode(pack)
        else:
            decoded = json.loads(pack.decode(), parse_constant=_no_constant, object_pairs_hook=_pairs)
    except (ValueError, RecursionError) as error:
        raise _malformed(f"can't be read: {error}") from error
    if not isinstance(decoded, list) or not decoded:
        raise _malformed("is not an array of records")
    return [_record(index, fields) for index, fields in enumerate(decoded)]


def _no_constant(literal: str) -> Any:
    raise ValueError(f"{literal} is not a number")


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({label for label, _ in pairs}) < len(pairs):
        raise ValueError("a label comes twice in a record")
    return dict(pairs)


def _record(index: int, fields: Any) -> dict[str, Any]:
    """Labels as in JSON, values of their types. Others' labels are passed over, unless they end in _ (4.4)."""
    if not isinstance(fields, dict):
        raise _malformed(f"record {index} is not an object")
    record = {}
    for label, value in fields.items():
        text = _LABELS.get(label) if isinstance(label, int) and not isinstance(label, bool) else label
        if isinstance(text, str) and text.endswith("_"):
            raise _malformed(f"record {index} has {text}, which is not understood")
        if text in _NUMBERS:
            good = isinstance(value, int | float) and not isinstance(value, bool) and _is_double(value)
        elif text in _TEXTS:
            good = isinstance(value, str)
        elif text == "vb":
            good = isinstance(value, bool)
        elif text == "vd":
            good = isinstance(value, str | bytes)
        else:
            continue
        if not good:
            raise _malformed(f"record {index}: {text} is not of its type")
        record[text] = value
    return record


def _resolve(records: list[dict[str, Any]], now_ms: int) -> list[_Entry]:
    """RFC 8428, 4.6. Raises Problem."""
    base: dict[str, Any] = {}
    entries = []
    size = 0
    for index, record in enumerate(records):
        base.update((label, record[label]) for label in _BASE_FIELDS & record.keys())
        if base.get("bver", VERSION_MAX) > VERSION_MAX:
            raise _malformed(f"has version {base['bver']}; {VERSION_MAX} is understood")
        found = _values(record, base, index)
        if not found and not record.keys() <= _BASE_FIELDS:
            raise _malformed(f"record {index} has no value")
        if len(found) > 2 or (len(found) == 2 and "sum" not in found):
            raise _malformed(f"record {index} has more than one value")
        name = base.get("bn", "") + record.get("n", "")
        if found and not _NAME.fullmatch(name):
            raise _malformed(f"record {index} has no name, or one with characters that SenML doesn't allow")
        unit = record.get("u", base.get("bu", ""))
        size += len(name) + len(unit)
        if size > RECORD_BYTES_MAX:
            raise Problem(TOO_LARGE, f"resolved names and units have more than {RECORD_BYTES_MAX} bytes")
        time_ms = _time_ms(base.get("bt", 0) + record.get("t", 0), now_ms, index)
        for kind, value in found.items():
            entries.append(_Entry(time_ms, f"{name} sum" if kind == "sum" else name, value, unit))
    return entries


def _values(record: Mapping[str, Any], base: Mapping[str, Any], index: int) -> dict[str, Value]:
    found: dict[str, Value] = {}
    for kind, label, base_label in (("v", "v", "bv"), ("sum", "s", "bs")):
        if label in record:
            total = record[label] + base.get(base_label, 0)
            if not _is_double(total):
                raise _malformed(f"record {index} has a number that is out of range")
            found[kind] = total
    if "vs" in record:
        found["vs"] = record["vs"]
    if "vb" in record:
        found["vb"] = record["vb"]
    if "vd" in record:
        data = record["vd"]
        found["vd"] = (
            base64.urlsafe_b64encode(data).rstrip(b"=").decode() if isinstance(data, bytes) else data
        )
    return found


def _is_double(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _time_ms(time_s: float, now_ms: int, index: int) -> int:
    if not abs(time_s) < TIME_MAX_S:
        raise _malformed(f"record {index} has a time that is out of range")
    offset_ms = round(time_s * 1000)
    return now_ms + offset_ms if time_s < RELATIVE_BEFORE_S else offset_ms


def _malformed(what: str) -> Problem:
    return Problem(BAD_REQUEST, f"the SenML pack {what}; nothing was stored")
