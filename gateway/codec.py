"""A segment's bytes: records that are ready for Kafka, packed with msgpack, compressed, versioned, checksummed.

Layout: version byte | crc32 of the rest, big endian | zstd frame of msgpack [shapes, shape index, time, value, ...].
What many records share (topic, key, headers) is a shape, written once a segment; records refer to it by index.
Times are milliseconds, written as the difference to the record before.
"""

import zlib
from collections.abc import Sequence
from typing import NamedTuple

import msgpack
from cramjam import DecompressionError, zstd

from gateway.errors import StorageError

VERSION = 1
ZSTD_LEVEL = 1


class Shape(NamedTuple):
    """Where records go: topic, key and the headers that they share. Interned by routing, so compared by identity."""

    topic: str
    key: bytes | None
    headers: tuple[tuple[str, bytes], ...]


class Entry(NamedTuple):
    """One record ready for Kafka: `time_ms` is wall time at reception, `value` the bytes to deliver."""

    shape: Shape
    time_ms: int
    value: bytes


class DecodeError(StorageError):
    """Bytes that are not a segment: cut, changed or of another version."""


def encode(entries: Sequence[Entry]) -> bytes:
    indexes: dict[int, int] = {}
    shapes: list[Shape] = []
    which: list[int] = []
    times: list[int] = []
    values: list[bytes] = []
    before = 0
    for shape, time_ms, value in entries:
        index = indexes.get(id(shape))
        if index is None:
            index = indexes[id(shape)] = len(shapes)
            shapes.append(shape)
        which.append(index)
        times.append(time_ms - before)
        before = time_ms
        values.append(value)
    packed = msgpack.packb((shapes, which, times, values))
    body = bytes(zstd.compress(packed, ZSTD_LEVEL))
    return bytes((VERSION,)) + zlib.crc32(body).to_bytes(4, "big") + body


def decode(data: object, room: memoryview | None = None) -> list[Entry]:
    """Raises DecodeError, also for what are no bytes: a flipped bit makes anything of a column. What others made is inflated
    into a `room` and no larger; the queue's own segments are as large as their headers make them."""
    if not isinstance(data, bytes) or len(data) < 5 or data[0] != VERSION:
        raise DecodeError(f"not a segment of version {VERSION}")
    body = memoryview(data)[5:]
    if zlib.crc32(body) != int.from_bytes(data[1:5], "big"):
        raise DecodeError("checksum of a segment does not match")
    try:
        packed = zstd.decompress(body) if room is None else room[: zstd.decompress_into(body, room)]
        rows, which, times, values = msgpack.unpackb(packed, use_list=False)
        shapes = [_shape(*row) for row in rows]
        # A negative index would name a shape from the end, and a time may be what can't be added.
        if not (_all(int, which, times) and _all(bytes, values) and min(which, default=0) >= 0):
            raise ValueError("a record is not what it should be")
        entries = []
        time_ms = 0
        for index, step, value in zip(which, times, values, strict=True):
            time_ms += step
            entries.append(Entry(shapes[index], time_ms, value))
    except (DecompressionError, msgpack.UnpackException, ValueError, TypeError, IndexError) as error:
        larger = "" if room is None else f", or inflates to more than {len(room)} bytes"
        raise DecodeError(f"a segment with a good checksum is none{larger}: {error}") from error
    return entries


def _shape(topic: object, key: object, headers: object) -> Shape:
    """Raises ValueError."""
    if not (
        isinstance(topic, str) and (key is None or isinstance(key, bytes)) and isinstance(headers, tuple)
    ):
        raise ValueError("a shape is not what it should be")
    for name, value in headers:
        if not (isinstance(name, str) and isinstance(value, bytes)):
            raise ValueError("a header is not what it should be")
    return Shape(topic, key, headers)


def _all(kind: type, *columns: Sequence[object]) -> bool:
    return all({*map(type, column)} <= {kind} for column in columns)
