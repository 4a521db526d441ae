"""The segment table: append, read, trim, evict, merge. Everything here runs inside the caller's transaction."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, cast

import apsw

from gateway.codec import DecodeError, Entry, decode, encode
from gateway.queue import checked
from gateway.queue.schema import are_numbers, segment_first, segment_id, segment_ids

SEGMENT_RECORDS_MAX = 1024
SEGMENT_BYTES_MAX = 256 << 10
SMALL_RECORDS = 128
"""A segment of fewer records is worth merging once it has waited with others of its kind."""

MERGE_SEGMENTS = 64

HEAD = "id,count,run,size,wall_ms,boot_ms,merged,sum"
"""Columns beside the body, which has a checksum of its own."""

NO_BODY = "x''"


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
    """One row as it lies on the disk, perhaps without its body. Merged ones were accepted from `wall_ms` on until the next
    one was."""

    id: int
    records: int
    run: int
    size: int
    wall_ms: int
    boot_ms: int
    merged: int
    body: bytes

    @property
    def first(self) -> int:
        return segment_first(self.id)

    @property
    def last(self) -> int:
        return self.first + self.records - 1

    def entries(self) -> list[Entry]:
        """Raises DecodeError."""
        entries = decode(self.body)
        if len(entries) != self.records:
            raise DecodeError(f"{len(entries)} records in a segment of {self.records}")
        return entries


def is_sound(head: Sequence[Any], found: object) -> bool:
    """Whether the columns beside the body are what was written, with checksum `found`."""
    return are_numbers(*head[1:]) and found == checked.checksum(head)


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
            self._insert((segment_id(lane, first), len(part), run, size, *now, 0), part)
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
        for row in self._select("body", "ORDER BY id", (start or lowest, highest)):
            if row.last <= after:
                continue
            rows.append(row)
            records_max -= row.records
            bytes_max -= row.size
            if records_max <= 0 or bytes_max <= 0:
                break
        return rows

    def ranges(self, lane: str) -> Iterator[tuple[int, int, int]]:
        """(first, count, size) of every segment, in order; bodies are not read."""
        for row in self._select(NO_BODY, "ORDER BY id", segment_ids(lane)):
            yield row.first, row.records, row.size

    def oldest_ms(self, lane: str, after: int) -> int | None:
        row = self._next(lane, after)
        return None if row is None else row.wall_ms

    def _next(self, lane: str, after: int) -> Stored | None:
        """The oldest that begins behind `after`, without its body."""
        return next(iter(self._select(NO_BODY, "ORDER BY id LIMIT 1", segment_ids(lane, after + 1))), None)

    def _select(self, body: str, which: str, ids: tuple[int, int]) -> Iterator[Stored]:
        """Raises apsw.CorruptError for what was not written so: also pages that were mixed up leave rows out of order."""
        query = f"SELECT {HEAD},{body} FROM segment WHERE id BETWEEN ? AND ? {which}"  # noqa: S608 the words are ours
        cursor: Any = self._db.execute(query, ids)
        try:
            last = 0
            for *head, found, content in cursor:
                row = Stored._make((*head, content))
                if not is_sound(head, found) or row.id <= last:
                    raise apsw.CorruptError("a row of table segment can't be read")
                last = row.id + row.records - 1
                yield row
        finally:
            cursor.close()

    def _insert(self, head: tuple[int, ...], entries: Sequence[Entry]) -> None:
        self._db.execute(
            "INSERT INTO segment VALUES(?,?,?,?,?,?,?,?,?)", (*head, checked.checksum(head), encode(entries))
        )

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
        row = self._next(lane, after)
        if row is None:
            return None
        self._db.execute("DELETE FROM segment WHERE id=?", (row.id,))
        to_ms = self.oldest_ms(lane, row.last) if row.merged else None
        return Gap(lane, row.first, row.last, row.wall_ms, to_ms or row.wall_ms, reason)

    def delete(self, lane: str, first: int) -> None:
        self._db.execute("DELETE FROM segment WHERE id=?", (segment_id(lane, first),))

    def merge(self, lane: str, position: int) -> None:
        """Once enough small segments wait, rewrite adjacent ones as one: each record is rewritten at most once."""
        if self._small < MERGE_SEGMENTS:
            return
        lowest, highest = segment_ids(lane, position + 1)
        begin = max(self._merge_from.get(lane, 0), lowest)
        which = f"AND merged=0 ORDER BY id LIMIT {MERGE_SEGMENTS}"
        rows = list(self._select("body", which, (begin, highest)))
        self._small = 0
        group: list[Stored] = []
        for row in rows:
            if group and not _joins(group, row):
                self._rewrite(lane, group)
                group = []
            group.append(row)
        if len(rows) == MERGE_SEGMENTS:
            self._rewrite(lane, group)
        else:
            self._small = len(group)

    def _rewrite(self, lane: str, group: Sequence[Stored]) -> None:
        first, last = group[0], group[-1]
        self._merge_from[lane] = last.id + last.records
        if len(group) == 1:
            return
        try:
            entries = [entry for row in group for entry in row.entries()]
        except DecodeError:
            return  # left as it is: reading it finds the damage and accounts for it
        self._db.execute("DELETE FROM segment WHERE id BETWEEN ? AND ?", (first.id, last.id))
        size = sum(row.size for row in group)
        self._insert((first.id, len(entries), first.run, size, first.wall_ms, first.boot_ms, 1), entries)


def _joins(group: Sequence[Stored], row: Stored) -> bool:
    return (
        row.id == group[-1].id + group[-1].records
        and row.run == group[-1].run
        and sum(member.records for member in group) + row.records <= SEGMENT_RECORDS_MAX
        and sum(member.size for member in group) + row.size <= SEGMENT_BYTES_MAX
    )
