"""The segment table: append, read, trim, evict, merge. Everything here runs inside the caller's transaction."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, cast

import apsw

from gateway.codec import DecodeError, Entry, decode, encode
from gateway.queue.schema import check_numbers, segment_first, segment_id, segment_ids

SEGMENT_RECORDS_MAX = 1024
SEGMENT_BYTES_MAX = 256 << 10
SMALL_RECORDS = 128
"""A segment of fewer records is worth merging once it has waited with others of its kind."""

MERGE_SEGMENTS = 64


DROPPED = "queue full: oldest dropped"
DROPPED_UNKNOWING = "queue full before Kafka's position was known: oldest dropped"


class Segment(NamedTuple):
    """Records of one lane with contiguous sequence numbers: entries[i] is number first + i. `size`: their payload bytes."""

    lane: str
    first: int
    run: str
    entries: Sequence[Entry]
    size: int

    @property
    def last(self) -> int:
        return self.first + len(self.entries) - 1

    def part(self, start: int, end: int) -> "Segment":
        """Of entries[start:end]."""
        return Segment.of(self.lane, self.first + start, self.run, self.entries[start:end])

    @classmethod
    def of(cls, lane: str, first: int, run: str, entries: Sequence[Entry]) -> "Segment":
        return cls(lane, first, run, entries, payload_bytes(entries))


def payload_bytes(entries: Sequence[Entry]) -> int:
    return sum([len(entry[2]) for entry in entries])


class Gap(NamedTuple):
    """Records that were deleted undelivered, `first` to `last` both included. They were accepted between the two times (Unix
    ms); the later one is of the first record of theirs where the next one's isn't known."""

    lane: str
    first: int
    last: int
    from_ms: int
    to_ms: int
    reason: str

    @property
    def records(self) -> int:
        return self.last - self.first + 1

    def joins(self, later: "Gap") -> bool:
        return (self.lane, self.last + 1, self.reason) == (later.lane, later.first, later.reason)


class Stored(NamedTuple):
    """One row as it lies on the disk. Merged ones were accepted from `wall_ms` on until the next one was."""

    first: int
    records: int
    run: int
    size: int
    wall_ms: int
    body: bytes

    @property
    def last(self) -> int:
        return self.first + self.records - 1

    def entries(self) -> list[Entry]:
        """Raises DecodeError."""
        entries = decode(self.body)
        if len(entries) != self.records:
            raise DecodeError(f"{len(entries)} records in a segment of {self.records}")
        return entries


def slices(entries: Sequence[Entry]) -> Iterator[tuple[Sequence[Entry], int]]:
    """Cut into what fits one segment each, with its payload bytes."""
    size = payload_bytes(entries)
    if 0 < len(entries) <= SEGMENT_RECORDS_MAX and size <= SEGMENT_BYTES_MAX:
        yield entries, size
        return
    start = size = 0
    for index, entry in enumerate(entries):
        if index > start and (
            index - start >= SEGMENT_RECORDS_MAX or size + len(entry.value) > SEGMENT_BYTES_MAX
        ):
            yield entries[start:index], size
            start, size = index, 0
        size += len(entry.value)
    if start < len(entries):
        yield entries[start:], size


def cut(segments: Sequence[Segment], after: int, records_max: int, bytes_max: int) -> list[Segment]:
    """From `after` + 1 on, until one of the limits is reached; at least one record."""
    chosen: list[Segment] = []
    for segment in segments:
        if segment.last <= after:
            continue
        skip = max(0, after + 1 - segment.first)
        if not skip and len(segment.entries) <= records_max and segment.size <= bytes_max:
            chosen.append(segment)
            records_max -= len(segment.entries)
            bytes_max -= segment.size
            continue
        end = skip
        while end < len(segment.entries) and (records_max > 0 and bytes_max > 0):
            records_max -= 1
            bytes_max -= len(segment.entries[end][2])
            end += 1
        if end > skip:
            chosen.append(segment.part(skip, end))
        if records_max <= 0 or bytes_max <= 0:
            break
    return chosen


class Segments:
    def __init__(self, connection: apsw.Connection) -> None:
        self._db = connection
        self._small = 0
        self._merge_from: dict[str, int] = {}

    def append(self, lane: str, first: int, entries: Sequence[Entry], run: int, now: tuple[int, int]) -> int:
        """Returns the next free sequence number. `now` is (wall ms, boot ms)."""
        for part, size in slices(entries):
            row = (segment_id(lane, first), len(part), run, size, *now, 0, encode(part))
            self._db.execute("INSERT INTO segment VALUES(?,?,?,?,?,?,?,?)", row)
            self._small += len(part) < SMALL_RECORDS
            first += len(part)
        return first

    def read(self, lane: str, after: int, records_max: int, bytes_max: int) -> list[Stored]:
        """Rows that hold numbers > after, in order; at least one if there is any."""
        lowest, highest = segment_ids(lane)
        start = self._rows(
            "SELECT max(id) FROM segment WHERE id BETWEEN ? AND ?",
            (lowest, segment_id(lane, after + 1)),
        )[0][0]
        rows: list[Stored] = []
        cursor: Any = self._db.execute(
            "SELECT id,count,run,size,wall_ms,body FROM segment WHERE id BETWEEN ? AND ? ORDER BY id",
            (start or lowest, highest),
        )
        for row_id, count, run, size, wall_ms, body in cursor:
            check_numbers("segment", count, run, size, wall_ms)
            row = Stored(segment_first(row_id), count, run, size, wall_ms, body)
            if row.last <= after:
                continue
            rows.append(row)
            records_max -= row.records
            bytes_max -= row.size
            if records_max <= 0 or bytes_max <= 0:
                break
        cursor.close()
        return rows

    def ranges(self, lane: str) -> Iterator[tuple[int, int, int]]:
        """(first, count, size) of every segment, in order; bodies are not read."""
        rows: Any = self._db.execute(
            "SELECT id,count,size FROM segment WHERE id BETWEEN ? AND ? ORDER BY id",
            segment_ids(lane),
        )
        for row_id, count, size in rows:
            check_numbers("segment", count, size)
            yield segment_first(row_id), count, size

    def oldest_ms(self, lane: str, after: int) -> int | None:
        rows = self._rows(
            "SELECT wall_ms FROM segment WHERE id BETWEEN ? AND ? ORDER BY id LIMIT 1",
            segment_ids(lane, after + 1),
        )
        check_numbers("segment", *rows[0] if rows else ())
        return int(rows[0][0]) if rows else None

    def _rows(self, sql: str, bindings: tuple[int, ...]) -> list[Any]:
        return cast(list[Any], self._db.execute(sql, bindings).fetchall())

    def trim(self, lane: str, position: int) -> None:
        """Delete the segments that are delivered whole."""
        low, high = segment_id(lane, 0), segment_id(lane, position)
        self._db.execute(
            "DELETE FROM segment WHERE id BETWEEN ? AND ? AND id+count-1 <= ?", (low, high, high)
        )

    def evict(self, lane: str, after: int, reason: str) -> Gap | None:
        """Delete the oldest segment that starts behind `after`; None if there is none."""
        rows = self._rows(
            "SELECT id,count,wall_ms,merged FROM segment WHERE id BETWEEN ? AND ? ORDER BY id LIMIT 1",
            segment_ids(lane, after + 1),
        )
        if not rows:
            return None
        row_id, count, wall_ms, merged = rows[0]
        check_numbers("segment", count, wall_ms)
        self._db.execute("DELETE FROM segment WHERE id=?", (row_id,))
        first = segment_first(row_id)
        last = first + count - 1
        to_ms = self.oldest_ms(lane, last) if merged else None
        return Gap(lane, first, last, wall_ms, to_ms or wall_ms, reason)

    def delete(self, lane: str, first: int) -> None:
        self._db.execute("DELETE FROM segment WHERE id=?", (segment_id(lane, first),))

    def merge(self, lane: str, position: int) -> None:
        """Once enough small segments wait, rewrite adjacent ones as one: each record is rewritten at most once."""
        if self._small < MERGE_SEGMENTS:
            return
        lowest, highest = segment_ids(lane, position + 1)
        begin = max(self._merge_from.get(lane, 0), lowest)
        rows = self._rows(
            "SELECT id,count,run,size,wall_ms,boot_ms,body FROM segment WHERE id BETWEEN ? AND ? AND merged=0"
            " ORDER BY id LIMIT ?",
            (begin, highest, MERGE_SEGMENTS),
        )
        self._small = 0
        group: list[tuple[int, int, int, int, int, int, bytes]] = []
        for row in rows:
            if group and not _joins(group, row):
                self._rewrite(lane, group)
                group = []
            group.append(row)
        if len(rows) == MERGE_SEGMENTS:
            self._rewrite(lane, group)
        else:
            self._small = len(group)

    def _rewrite(self, lane: str, group: list[tuple[int, int, int, int, int, int, bytes]]) -> None:
        first_id, _, run, _, wall_ms, boot_ms, _ = group[0]
        self._merge_from[lane] = group[-1][0] + group[-1][1]
        if len(group) == 1:
            return
        try:
            entries = [entry for row in group for entry in decode(row[6])]
        except DecodeError:
            return  # left as it is: reading it finds the damage and accounts for it
        self._db.execute("DELETE FROM segment WHERE id BETWEEN ? AND ?", (first_id, group[-1][0]))
        size = sum(row[3] for row in group)
        self._db.execute(
            "INSERT INTO segment VALUES(?,?,?,?,?,?,?,?)",
            (first_id, len(entries), run, size, wall_ms, boot_ms, 1, encode(entries)),
        )


def _joins(
    group: list[tuple[int, int, int, int, int, int, bytes]], row: tuple[int, int, int, int, int, int, bytes]
) -> bool:
    last_id, last_count, run = group[-1][:3]
    return (
        row[0] == last_id + last_count
        and row[2] == run
        and sum(member[1] for member in group) + row[1] <= SEGMENT_RECORDS_MAX
        and sum(member[3] for member in group) + row[3] <= SEGMENT_BYTES_MAX
    )
