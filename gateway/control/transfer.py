"""Records on their way from one gateway's queue to another's.

A transfer is a sequence of frames: four bytes of length, big endian, then msgpack. The first frame is the origin,
[gateway id, queue id]; every other one is a segment, [lane, first number, run, gateway.codec bytes].

An import is named by its file (a hash of what it holds) and goes by parts, each one transaction with a mark that says
how many of the file's records are in: an interrupted import goes on where it stopped, and a file is imported once.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence, Set
from typing import NamedTuple

import msgpack

from gateway.codec import DecodeError, Entry, decode, encode
from gateway.control.wire import StoredRecord
from gateway.driver import Mark
from gateway.queue import Queue, Segment

LANE = "main"
PEEK_RECORDS = 1024
PEEK_BYTES = 256 << 10

PART_BYTES_MAX = 2 << 20
"""Frames of one request of an import."""

PART_INFLATED_BYTES_MAX = 16 << 20
"""What they may inflate to: a part that `tidegate queue import` sends has 512 KiB, or one record."""

TIME_MS_MAX = 1 << 62
"""Before and after 1970: a segment has differences of times, and these have 64 bits."""

FILE_SCOPE = "import"
FILE_LIFETIME_S = 3650 * 86_400

IMPORTED = "tg.imported"
"""Header of an imported record: gateway id/queue id/lane/number that it had."""


class Origin(NamedTuple):
    gateway_id: str
    queue_id: str


class Imported(NamedTuple):
    """`done`: records of the file that are in by now; `added` of them by this call."""

    done: int
    added: int


class BadTransfer(ValueError):
    pass


def frame(content: Sequence[object]) -> bytes:
    packed: bytes = msgpack.packb(content)
    return len(packed).to_bytes(4, "big") + packed


def segment_frame(lane: str, first: int, run: str, entries: Sequence[Entry]) -> bytes:
    return frame((lane, first, run, encode(entries)))


async def export_frames(queue: Queue, gateway_id: str) -> AsyncIterator[bytes]:
    """What waits now; records that are delivered meanwhile are left out."""
    through = queue.next_seq(LANE) - 1
    after = queue.position(LANE)
    yield frame(Origin(gateway_id, queue.queue_id))
    while after < through:
        segments = await queue.peek(LANE, after, PEEK_RECORDS, PEEK_BYTES)
        if not segments:
            return
        for segment in segments:
            entries = segment.entries[: max(0, through - segment.first + 1)]
            if entries:
                yield segment_frame(segment.lane, segment.first, segment.run, entries)
        after = segments[-1].last


def read_frames(chunks: Iterable[bytes]) -> Iterator[list[object]]:
    """Raises BadTransfer, also at the end if the last frame is not whole."""
    pending = bytearray()
    for chunk in chunks:
        pending += chunk
        while len(pending) >= 4:
            end = 4 + int.from_bytes(pending[:4], "big")
            if len(pending) < end:
                break
            content = bytes(pending[4:end])
            del pending[:end]
            try:
                unpacked = msgpack.unpackb(content)
            except (ValueError, msgpack.UnpackException) as error:
                raise BadTransfer(f"a frame is not msgpack: {error}") from error
            if not isinstance(unpacked, list):
                raise BadTransfer("a frame is not an array")
            yield unpacked
    if pending:
        raise BadTransfer("the transfer ends in the middle of a frame")


def read_origin(content: Sequence[object]) -> Origin:
    """Raises BadTransfer."""
    if len(content) != 2 or not all(isinstance(part, str) for part in content):
        raise BadTransfer("the first frame is not an origin")
    return Origin(*map(str, content))


def read_segment(content: Sequence[object], room: memoryview | None = None) -> Segment:
    """Raises BadTransfer."""
    match content:
        case [str() as lane, int() as first, str() as run, bytes() as body]:
            try:
                entries = decode(body, room)
            except DecodeError as error:
                raise BadTransfer(str(error)) from error
            return Segment.of(lane, first, run, entries)
    raise BadTransfer("a frame is not a segment")


def size(entry: Entry) -> int:
    """Its value and headers; that records may share these counts for nothing."""
    return len(entry.value) + sum(len(name) + len(value) for name, value in entry.shape.headers)


def records(segment: Segment) -> Iterator[StoredRecord]:
    for seq, entry in enumerate(segment.entries, segment.first):
        yield StoredRecord(segment.lane, seq, segment.run, entry)


async def import_part(
    queue: Queue, file: str, start: int, transfer: bytes, reserved: Set[str] = frozenset()
) -> Imported:
    """Store the records of one part, the first of which is number `start` of the file, counted from 0. None may go to a
    topic of `reserved`, as no device's may.

    Raises BadTransfer; Refused with nothing of this part stored.
    """
    frames = read_frames([transfer])
    origin = read_origin(next(frames, []))
    incoming: list[StoredRecord] = []
    room = memoryview(bytearray(PART_INFLATED_BYTES_MAX))
    for content in frames:
        segment = read_segment(content, room)
        room = room[sum(map(size, segment.entries)) :]
        incoming += records(segment)
        await asyncio.sleep(0)
    for record in incoming:
        _check(record, reserved)
    key = file.encode()
    done = int(queue.recall(FILE_SCOPE).get(key, b"0"))
    if start > done:
        raise BadTransfer(f"records {done} to {start - 1} of the file are missing")
    fresh = incoming[done - start :]
    if not fresh:
        return Imported(done, 0)
    done += len(fresh)
    mark = Mark(FILE_SCOPE, key, str(done).encode(), FILE_LIFETIME_S)
    await queue.put([_with_origin(record, origin) for record in fresh], remember=[mark])
    return Imported(done, len(fresh))


def _check(record: StoredRecord, reserved: Set[str]) -> None:
    """Raises BadTransfer for what would end the queue, or be believed after a crash."""
    if abs(record.entry.time_ms) > TIME_MS_MAX:
        raise BadTransfer(
            f"record {record.lane}/{record.seq} has no time that can be: {record.entry.time_ms}"
        )
    if record.entry.shape.topic in reserved:
        raise BadTransfer(
            f"record {record.lane}/{record.seq} is for topic {record.entry.shape.topic}, where only the gateway writes"
        )


def _with_origin(record: StoredRecord, origin: Origin) -> Entry:
    came_from = f"{origin.gateway_id}/{origin.queue_id}/{record.lane}/{record.seq}"
    shape = record.entry.shape
    return record.entry._replace(
        shape=shape._replace(headers=(*shape.headers, (IMPORTED, came_from.encode())))
    )
