"""What can still be read of a damaged database."""

import secrets
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import apsw

from gateway.codec import DecodeError, Entry, decode
from gateway.queue import checked, gaps, lanes, salvaged
from gateway.queue.origin import Former, Run, Salvaged
from gateway.queue.pages import Pages, Row
from gateway.queue.past import NAMELESS, Past
from gateway.queue.quarantine import write
from gateway.queue.ranges import overlap
from gateway.queue.schema import LANES, are_numbers, connect, first_page, segment_first, segment_ids
from gateway.queue.segments import DROPPED, HEAD, Gap, is_sound
from gateway.queue.store import PAGE_BYTES
from gateway.queue.story import Holes, Story

FORMERS_MAX = 4
"""So many damaged queues, one saved from the other, are known by their runs."""

UNMAPPED_MAX = 16

RECORDS, WALL_MS = (HEAD.split(",").index(column) for column in ("count", "wall_ms"))

NO_DAMAGE = (apsw.BusyError, apsw.LockedError, apsw.FullError, apsw.CantOpenError, apsw.NoMemError)
"""What can't be read for these reasons can be read another time."""

ALWAYS_THE_SAME = (slice(0, 24), slice(40, 92), slice(100, PAGE_BYTES))
"""Of the first page; the rest its writers count."""


class Damaged:
    """Whatever can't be read is passed over. `broken` are the tables of which not all rows can."""

    def __init__(self, path: Path, noted_id: str | None, vfs: str | None) -> None:
        """`noted_id` is the queue's name, as far as it is known elsewhere. Raises NO_DAMAGE, as all that reads does."""
        _restore_first_page(path)
        self.broken: set[str] = set()
        self._pages = Pages(path, vfs)
        self._db: apsw.Connection | None
        try:
            self._db = connect(path, PAGE_BYTES, vfs)
        except NO_DAMAGE:
            raise
        except apsw.Error:
            self._db = None
        self.meta: dict[str, str] = dict(self.rows("meta"))
        self.lanes = lanes.states(self.rows("lane"))
        self.salvaged = salvaged.by_lane(self.rows("salvage"))
        self._past = Past(self.meta, self.salvaged)
        name = self.meta.get("queue_id") or noted_id
        self.queue_id = name or f"unknown-{secrets.token_hex(4)}"
        self.unmapped = self._past.unmapped
        """Queues before this one, the nearest first, unless it is known of all their records which of them wait here."""
        if "salvage" in self.meta:
            self._complete(Story.parse(self.meta["salvage"]))
        if name is None or ({"meta", "salvage"} <= self.broken and "salvage" not in self.meta):
            self.unmapped = [f"{NAMELESS}{self.queue_id}", *self.unmapped][:UNMAPPED_MAX]

    def rows(self, table: str) -> list[tuple[Any, ...]]:
        """Those whose checksum is right, without it."""
        found = self._from_both_ends("*", table, checked.KEYS[table])
        good = list(checked.sound(found))
        if len(good) < len(found):
            self.broken.add(table)
        return good

    def letters(self) -> list[tuple[Any, ...]]:
        """(id, lane, number, time, reason, body) of dead letters."""
        letters: list[tuple[Any, ...]] = []
        for row_id, body, *row in self._from_both_ends("id,body,lane,seq,time_ms,reason,sum", "dead", "id"):
            good = next(checked.sound([row]), None)
            if good is None or not _is_letter(body):
                self.broken.add("dead")
            else:
                letters.append((row_id, *good, body))
        return letters

    def dropped(self) -> list[Gap]:
        """What had to make room, and was not told."""
        return [gap for gap, told in self._gaps if not told and gap.reason == DROPPED]

    @cached_property
    def _gaps(self) -> Sequence[tuple[Gap, int]]:
        """With whether they were told."""
        return [(Gap(*columns), told) for _, *columns, told in self.rows("gap")]

    def _complete(self, story: Story) -> None:
        """What the table of salvage lacks of the nearest queue the story tells once more; what it lacks of earlier ones
        nobody does."""
        nearest = story.queue_id
        lost = "unmapped" not in self.meta
        whole = not lost and "salvage" not in self.broken
        for lane, told in story.lanes().items():
            if not told.has_all(self.salvaged[lane], nearest):
                whole, again = False, told.pieces(nearest)
                lost = lost or again is None
                mine = [piece for piece in self.salvaged[lane] if piece.queue_id == nearest]
                others = [piece for piece in self.salvaged[lane] if piece.queue_id != nearest]
                self.salvaged[lane][:] = [*(mine if again is None else again), *others]
        if not whole:
            past = self._past
            earlier = dict.fromkeys([*past.former_queues, *past.unmapped, *past.queue_ids()])
            earlier.pop(nearest, None)
            self.unmapped = [*([nearest] if lost else ()), *earlier][:UNMAPPED_MAX]

    def segments(self, lane: str, holes: Holes) -> Iterator[tuple[int, list[Entry]]]:
        """(first, entries) of every undelivered segment with a good checksum, in order; one at a time is in memory."""
        deleted = gaps.numbers(lane, (gap for gap, _ in self._gaps))
        for number in self._ids(lane):
            row, entries = next(self._readable(self._rows(number)), (None, []))
            begin = segment_first(number)
            first, last = max(begin, holes.last + 1), begin + len(entries) - 1
            if row is None or first > last or overlap(deleted, first - 1, last) > last - first:
                continue
            yield first, entries[first - begin :]
            wall_ms = row.head[WALL_MS]
            holes.found(first, last, wall_ms if are_numbers(wall_ms) else None)

    @cached_property
    def _segments(self) -> dict[int, list[tuple[int, int]]]:
        """{id of a segment, as it was written: (where a row lies that has it, bytes of its payload)}. Where no way leads to some of them, also
        of those that were deleted."""
        known = {row_id for (row_id,) in self._from_both_ends("id", "segment", "id")}
        places: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for row in self._pages.rows():
            row_id = row.head[0]
            if row_id in known or "segment" in self.broken:
                written = row_id if _is_good(row) else self._written(row)
                if written is None and row_id in known:
                    written = row_id
                if written is not None:
                    places[written].append((row.cell, row.payload_bytes))
        return places

    def _ids(self, lane: str, first: int = 0) -> Sequence[int]:
        """Of the lane's segments that begin with `first` or later, in order."""
        low, high = segment_ids(lane, first)
        return sorted(number for number in self._segments if low <= number <= high)

    def _rows(self, number: int) -> Sequence[Row]:
        """The best first: small segments become one, of which the first has the same id."""
        rows = [row for cell, _ in self._segments[number] if (row := self._pages.row(cell)) is not None]
        return sorted(rows, key=lambda row: row.head[RECORDS] if _is_good(row) else 0, reverse=True)

    def _readable(self, rows: Iterable[Row]) -> Iterator[tuple[Row, list[Entry]]]:
        for row in rows:
            with suppress(DecodeError):
                yield row, decode(self._pages.body(row))

    def _written(self, row: Row) -> int | None:
        """The id of a row whose checksum is wrong, if one bit of it or of the number of its records was flipped."""
        row_id, _, *others, found = row.head
        for _, entries in self._readable([row]):
            for bit in (0, -1 << 63, *(1 << bit for bit in range(63))):
                if checked.checksum((row_id ^ bit, len(entries), *others)) == found:
                    return int(row_id ^ bit)
        return None

    def formers(self, pieces: Mapping[str, Sequence[Salvaged]]) -> Mapping[str, Mapping[str, Former]]:
        """This queue and those before it, the nearest first; without this one if not all of its runs can be read."""
        before = self._past.former_queues
        rows = self.rows("run")
        if not rows or "run" in self.broken:
            return before
        own = {}
        for column, lane in enumerate(LANES, 5):
            own_pieces = [piece for piece in pieces[lane] if piece.queue_id == self.queue_id]
            state = self.lanes.get(lane)
            ends = [own_pieces[-1].old_last + 1 if own_pieces else 1, 1 if state is None else state.next_seq]
            own[lane] = Former([Run(row[1], lane, row[column]) for row in rows], max(ends))
        return dict([(self.queue_id, own), *before.items()][:FORMERS_MAX])

    def undelivered_bytes(self) -> int:
        """Of segments, at most."""
        begins = {lane: state.position + 1 for lane, state in self.lanes.items()}
        return sum(self._bytes(number) for lane in LANES for number in self._ids(lane, begins.get(lane, 1)))

    def leave_the_oldest(self, room: int) -> None:
        """Of lanes of which nobody knows any more how far they were delivered, if there are only `room` bytes for all."""
        wanted = self.undelivered_bytes()
        for lane in LANES:
            for number in () if lane in self.lanes else self._ids(lane):
                if wanted <= room:
                    return
                wanted -= self._bytes(number)
                del self._segments[number]

    def _bytes(self, number: int) -> int:
        return max(payload_bytes for _, payload_bytes in self._segments[number])

    def _from_both_ends(self, columns: str, table: str, key: str) -> list[Any]:
        """In order; what can't be read may lie in the middle."""
        query = f"SELECT {columns} FROM {table} ORDER BY "  # noqa: S608 the names are ours
        if list(self._read(f"PRAGMA quick_check({table})", (), table)) != [("ok",)]:
            self.broken.add(table)  # a page may have lost rows and be readable
        rows = list(self._read(query + key, (), table))
        if table in self.broken:
            backwards = ",".join(f"{column} DESC" for column in key.split(","))
            known, behind = set(rows), []
            for row in self._read(query + backwards, (), table):
                if row in known:
                    break
                behind.append(row)
            rows += reversed(behind)
        return rows

    def _read(self, sql: str, bindings: tuple[int, ...], table: str) -> Iterator[Any]:
        if self._db is None:
            self.broken.add(table)
            return
        try:
            yield from self._db.execute(sql, bindings)
        except NO_DAMAGE:
            raise
        except (apsw.Error, UnicodeDecodeError):
            self.broken.add(table)
            return

    def close(self) -> None:
        """The files stay as they were found, but for the first page."""
        self._pages.close()
        if self._db is not None:
            self._db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            self._db.close(True)


def _restore_first_page(path: Path) -> None:
    """It says where the tables are, which is always the same. SQLite would throw the log of an empty file away.
    Raises OSError for a file that isn't there."""
    fresh = first_page(PAGE_BYTES)
    try:
        with path.open("rb") as file:
            found = file.read(PAGE_BYTES)
    except OSError:
        found = b""
    if [found[part] for part in ALWAYS_THE_SAME] != [fresh[part] for part in ALWAYS_THE_SAME]:
        try:
            write(path, fresh, cut=False)
        except OSError:
            if not found:
                raise  # else it may be good enough


def _is_good(row: Row) -> bool:
    return is_sound(row.head[:-1], row.head[-1])


def _is_letter(body: object) -> bool:
    try:
        return len(decode(body)) == 1
    except DecodeError:
        return False
