"""The synchronous side: one SQLite connection, used from one thread. Every method is one transaction or a read."""

import json
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from functools import cache, wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

import apsw

from gateway.codec import DecodeError, Entry, Shape
from gateway.driver import Mark, MarkKey
from gateway.errors import QueueFull, StorageFailing
from gateway.queue import checked, lanes, meta, salvaged
from gateway.queue.dead import Dead
from gateway.queue.gaps import Gaps
from gateway.queue.ledger import of_queue, statement
from gateway.queue.log import lost_commits
from gateway.queue.origin import Former, Run, Salvaged, encode_formers
from gateway.queue.quarantine import Quarantine
from gateway.queue.reserve import Reserve
from gateway.queue.schema import FORMAT, LANES, TABLES, connect, format_of
from gateway.queue.segments import DROPPED, DROPPED_UNKNOWING, Gap, Segment, Segments, Stored, payload_bytes
from gateway.queue.settings import QueueSettings
from gateway.queue.state import Buried, DeadLetter, Group, LaneState, Loaded, Outcome, StorageDamaged
from gateway.queue.story import Story

PAGE_BYTES = 4096
WAL_BYTES_MAX = 4 << 20
"""Checkpoint from here on; sooner where the cap is so small that the log would fill it."""

SCHEMA = "SELECT name,rootpage,sql FROM sqlite_schema ORDER BY name"
RUNS_MAX = 1_000

SAVED_RUN = 1
"""The run of what was saved from a damaged database, by whichever run it was stored there."""

RunRow = tuple[int, str, str, int, int, int, int]
"""Row id, run id, boot id, wall ms, boot ms, and the first number in each lane."""

UNREADABLE = (apsw.SQLITE_IOERR_READ, apsw.SQLITE_IOERR_SHORT_READ)

P = ParamSpec("P")
T = TypeVar("T")


def log_bytes_max(settings: QueueSettings) -> int:
    return min(WAL_BYTES_MAX, settings.max_bytes // 8)


def reserve_path(database: Path) -> Path:
    return database.with_suffix(".reserve")


def free_bytes(folder: Path) -> int:
    """For users, as it is now."""
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize


def _reserved(
    method: Callable[Concatenate["Store", P], T],
) -> Callable[Concatenate["Store", P], T]:
    """A transaction without which nothing could be delivered and trimmed: on a full disk it gets the reserve."""

    @wraps(method)
    def run(store: "Store", /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return method(store, *args, **kwargs)
        except QueueFull:
            store.use_reserve()
            return method(store, *args, **kwargs)

    return run


@cache
def _tables() -> list[Any]:
    """What SCHEMA finds in a database of this format."""
    fresh = apsw.Connection(":memory:")
    fresh.execute(TABLES)
    return cast(list[Any], fresh.execute(SCHEMA).fetchall())


class Store:
    """`ledger` is the shape of the ledger's records. Methods raise StorageFailing; commit may raise QueueFull."""

    def __init__(self, path: Path, settings: QueueSettings, ledger: Shape, vfs: str | None = None) -> None:
        self._path = path
        self._max_bytes = settings.max_bytes
        self._log_bytes_max = log_bytes_max(settings)
        self._reserve = Reserve(reserve_path(path), self._log_bytes_max)
        self._quarantine = Quarantine(path)
        self.floor_bytes = max(settings.min_free_bytes, self._log_bytes_max)
        """Stays free on the disk: at least what it takes to fold the log into the file."""
        self._ledger = ledger
        self._run_unwritten: RunRow | None = None
        self.commits = 0
        with _translated():
            self._db = connect(path, PAGE_BYTES, vfs)
            # Overwritten in place, or each checkpoint would cost metadata; but a log as large as one large commit
            # would fill a small queue for good.
            self._db.execute(f"PRAGMA journal_size_limit={2 * self._log_bytes_max}").fetchall()
        self._wal_pages = 0
        self._db.set_wal_hook(self._wal_grew)
        self._segments = Segments(self._db)
        self._gaps = Gaps(self._db)
        self._dead = Dead(self._db, self._max_bytes)

    def create(self, queue_id: str) -> None:
        with self._transaction():
            self._db.execute(TABLES)
            meta.put(self._db, "queue_id", queue_id)
            for lane in LANES:
                lanes.put(self._db, lane, LaneState())
            self._db.execute(f"PRAGMA user_version={FORMAT}")

    def check(self, whole: bool) -> None:
        """Of the whole file, or of all but the segments, which `load` counts. Raises StorageDamaged."""
        with _translated():
            tables = self._rows(SCHEMA)
            # One bit of a page can take rows away, and SQLite reads on.
            checks = [f"PRAGMA quick_check({scope})" for scope in (["1"] if whole else checked.KEYS)]
            found = next((said for check in checks if (said := self._rows(check)[0][0]) != "ok"), "ok")
            frames = self._rows("PRAGMA wal_checkpoint(NOOP)")[0][1]
        if found != "ok":
            raise StorageDamaged(f"the queue's database is damaged: {found}")
        if tables != _tables():
            raise StorageDamaged("the queue's database has other tables")
        if lost_commits(Path(f"{self._path}-wal"), frames, PAGE_BYTES):
            raise StorageDamaged("the queue's log is damaged: commits behind the damage can't be read")

    def empty(self) -> bool:
        """Raises StorageDamaged, and StorageError for a database of a later version."""
        with _translated():
            if self._rows(SCHEMA) != _tables():
                return format_of(self._db) == 0
            version = self._rows("PRAGMA user_version")[0][0]
        if version != FORMAT:
            raise StorageDamaged(
                f"the queue's database says it has format {version}, its tables have {FORMAT}"
            )
        return False

    def load(self) -> "Loaded":
        with _translated():
            known = meta.load(self._db)
            if "queue_id" not in known:
                raise apsw.CorruptError("a row of table meta is missing")
            states = lanes.load(self._db)
            holes: dict[str, list[tuple[int, int]]] = {lane: [] for lane in LANES}
            sizes = dict.fromkeys(LANES, 0)
            for name, state in states.items():
                expected = state.position + 1
                for first, count, size in self._segments.ranges(name):
                    if first > expected:
                        holes[name].append((expected, first - 1))
                    expected = max(expected, first + count)
                    sizes[name] += size
                if state.next_seq > expected:
                    holes[name].append((expected, state.next_seq - 1))
                state.next_seq = max(state.next_seq, expected)
                self._gaps.check(name, holes[name])
            age_s = int(known.get("age_s", "0"))
            marks = {
                (scope, key): (value, expires)
                for scope, key, value, expires in checked.load(self._db, "mark", "expires_s")
                if expires >= age_s
            }
            self._forget_marks(age_s)
            pieces = salvaged.load(self._db)
            story = Story.parse(known["salvage"]) if "salvage" in known else None
            if story is not None and not story.has_all(pieces):
                raise apsw.CorruptError("rows of table salvage are missing")
        return Loaded(known, states, holes, sizes, marks, pieces, story)

    def _forget_marks(self, age_s: int) -> None:
        """Those of scopes that nobody writes any more; a full disk keeps them."""
        with suppress(apsw.FullError):
            self._db.execute("DELETE FROM mark WHERE expires_s<?", (age_s,))

    def start_run(self, run: tuple[str, str, int, int], firsts: Mapping[str, int]) -> list[tuple[int, Run]]:
        """`run` is (run id, boot id, wall ms, boot ms). Returns all runs with their row ids, oldest first.

        A run that gave no number is named nowhere, neither here nor in Kafka, and makes room. Of the others RUNS_MAX are
        kept, and all since the position: Kafka's names one of them, and records that wait were given by them.
        On a full disk the run is written with the first commit that succeeds, which is the first to give a number. Raises
        StorageDamaged where numbers were given and no run is there.
        """
        earlier = self._run_rows()
        if not earlier and any(first > 1 for first in firsts.values()):
            raise StorageDamaged("the queue's database is damaged: rows of table run are missing")
        self._run = 1 + max((row[0] for row in earlier), default=0)
        self._run_unwritten = self._run_row(run, firsts)
        with suppress(QueueFull):
            self._store_run()
        self._renew_reserve()
        rows = [row for row in self._run_rows() if row[0] != self._run]
        rows.append(self._run_row(run, firsts))
        return [
            (row[0], Run(row[1], lane, first))
            for row in rows
            for lane, first in zip(LANES, row[5:], strict=True)
        ]

    def commit(self, group: Group, next_seq: Mapping[str, int], now: tuple[int, int]) -> Outcome:
        """Raises QueueFull where devices' records find no room; the reserve is not for them."""
        self.make_room(0)
        if group.entries.get("main"):
            try:
                outcome = self._commit(group, next_seq, now)
            except QueueFull:
                if self._pages_bytes()[1] >= self._reserve.size:
                    self.use_reserve()  # the file needs no room for what is in the log, so it can be had again
                else:
                    self._fold()
                raise
        else:
            outcome = self._commit_reserved(group, next_seq, now)
        self._checkpoint()
        self._renew_reserve()
        self.measure(outcome)
        return outcome

    def make_room(self, size: int) -> None:
        """Near the floor what was set aside goes first, before a device is refused or a record dropped."""
        while self.disk_free() < self.floor_bytes + max(size, 2 * self._reserve.size):
            if not self._quarantine.forget_oldest():
                return

    def _run_rows(self) -> list[tuple[Any, ...]]:
        """Of earlier ones, oldest first."""
        with _translated():
            return checked.load(self._db, "run", "id")

    def _run_row(self, run: tuple[str, str, int, int], firsts: Mapping[str, int]) -> RunRow:
        return (self._run, *run, firsts["main"], firsts["ledger"])

    @_reserved
    def _store_run(self) -> None:
        with self._transaction():
            self._write_run()
        self._run_unwritten = None

    def _write_run(self) -> None:
        if self._run_unwritten is None:
            return
        *_, main, ledger = self._run_unwritten
        self._db.execute("DELETE FROM run WHERE main=? AND ledger=?", (main, ledger))
        checked.put(self._db, "run", self._run_unwritten)
        states = lanes.load(self._db)
        named = min(self._named(lane, states[lane].position) for lane in LANES)
        self._db.execute("DELETE FROM run WHERE id<=? AND id<?", (self._run - RUNS_MAX, named))

    @_reserved
    def _commit_reserved(self, group: Group, next_seq: Mapping[str, int], now: tuple[int, int]) -> Outcome:
        return self._commit(group, next_seq, now)

    def _commit(self, group: Group, next_seq: Mapping[str, int], now: tuple[int, int]) -> Outcome:
        outcome = Outcome(dict(next_seq), [], {})
        with self._transaction():
            self._write_run()
            if group.confirm:
                self._confirm(group, outcome)
            if group.age_s is not None:
                meta.put(self._db, "age_s", str(group.age_s))
            if group.evict_after is not None:
                self._make_room(group.evict_after, group, outcome)
            if group.settle and group.known is not None:
                self._settle(group.known, outcome, now)
            for lane, entries in group.entries.items():
                outcome.next_seq[lane] = self._segments.append(
                    lane, outcome.next_seq[lane], entries, self._run, now
                )
            for mark in group.marks:
                self._mark(mark)
            if group.origin is not None:
                meta.put(self._db, "queue_id", group.origin.of)
                meta.put(self._db, "origin", group.origin.encode())
            self._dead.exhume(group.exhume)
            self._segments.merge("main", group.confirm["main"].position if "main" in group.confirm else 0)
        self._run_unwritten = None
        return outcome

    @property
    def run_is_written(self) -> bool:
        """And with it the log holds something."""
        return self._run_unwritten is None

    @property
    def reserve_bytes(self) -> int:
        return self._reserve.size

    def _renew_reserve(self) -> None:
        if not self._reserve.held and self.disk_free() >= self.floor_bytes + 2 * self._reserve.size:
            self._reserve.renew()

    def use_reserve(self) -> None:
        self._reserve.release()
        self.make_room(0)
        self._fold()

    def _fold(self) -> None:
        """What is in the log goes to the file, as far as there is room; the next transaction overwrites it in place, and
        cuts a log that one large commit made long. That one counts as used, so it must not wait for a next one."""
        with _translated(), suppress(apsw.FullError):
            self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            if self._wal_is_long():
                change = secrets.token_hex(4)  # SQLite writes nothing where nothing changes
                meta.put(self._db, "log_cut", change)

    def measure(self, outcome: Outcome) -> None:
        """Live pages and log are used; pages that SQLite keeps free can be used again without growing the file."""
        live, free = self._pages_bytes()
        outcome.used_bytes = live + self._wal_bytes()
        if self._reserve.held:
            outcome.used_bytes += self._reserve.size
        outcome.reusable_bytes = free
        outcome.disk_free_bytes = self.disk_free()
        outcome.ample = outcome.disk_free_bytes >= self.floor_bytes or free >= self._reserve.size

    def read(
        self, lane: str, after: int, records_max: int, bytes_max: int, through: int | None = None
    ) -> tuple[list[tuple[Stored, list[Entry]]], list[Gap]]:
        """Segments decoded; a damaged one is deleted, remembered as a gap and returned as one. With `through`, the last
        number that was given, one that is missing for no reason is StorageDamaged."""
        good, damaged = [], []
        with _translated():
            rows = self._segments.read(lane, after, records_max, bytes_max)
            if through is not None:
                self._check_holes(lane, after, through, rows)
            for row in rows:
                try:
                    good.append((row, row.entries()))
                except DecodeError as error:
                    until_ms = self._segments.oldest_ms(lane, row.last) or row.wall_ms
                    damaged.append(Gap(lane, row.first, row.last, row.wall_ms, until_ms, f"damaged: {error}"))
        if damaged:
            self._give_up(damaged)
        return good, damaged

    def _check_holes(self, lane: str, after: int, through: int, rows: Sequence[Stored]) -> None:
        """One bit of a way in the tree leads past records that are there. Raises apsw.CorruptError."""
        holes, expected = [], after + 1
        for row in rows:
            if row.first > expected:
                holes.append((expected, row.first - 1))
            expected = max(expected, row.last + 1)
        if not rows and expected <= through:
            holes.append((expected, through))
        if holes:
            position = lanes.load(self._db)[lane].position
            behind = [(max(first, position + 1), last) for first, last in holes if last > position]
            self._gaps.check(lane, behind)

    @_reserved
    def _give_up(self, damaged: Sequence[Gap]) -> None:
        with self._transaction():
            for gap in damaged:
                self._segments.delete(gap.lane, gap.first)
                self._gaps.remember(gap)

    def ranges(self, lane: str) -> list[tuple[int, int, int]]:
        with _translated():
            return list(self._segments.ranges(lane))

    def oldest_ms(self, lane: str, after: int) -> int | None:
        with _translated():
            return self._segments.oldest_ms(lane, after)

    def gaps(self) -> list[Gap]:
        with _translated():
            return self._gaps.untold()

    @_reserved
    def put_meta(self, key: str, value: str) -> None:
        with self._transaction():
            meta.put(self._db, key, value)

    @_reserved
    def bury(self, segment: Segment, time_ms: int, reason: str) -> None:
        with self._transaction():
            self._dead.bury(segment, time_ms, reason)

    def surplus(self) -> list[Buried]:
        with _translated():
            return self._dead.surplus()

    def dead_list(self, limit: int) -> list[Buried]:
        with _translated():
            return self._dead.oldest(limit)

    def dead(self, ids: Sequence[int]) -> list[DeadLetter]:
        with _translated():
            return self._dead.letters(ids)

    def buried(self) -> Mapping[str, list[int]]:
        with _translated():
            return self._dead.numbers()

    def save(
        self, lane: str, queue_id: str, rows: Iterable[tuple[int, list[Entry]]], now: tuple[int, int]
    ) -> list[Salvaged]:
        """Take over another database's records, (first number there, entries) each."""
        first = 1
        size = 0
        pieces: list[Salvaged] = []
        with _translated():
            for old_first, entries in rows:
                piece = Salvaged(queue_id, old_first, len(entries), first)
                if pieces and pieces[-1].old_first + pieces[-1].records == old_first:
                    piece = pieces.pop().longer(len(entries))
                pieces.append(piece)
                first = self._segments.append(lane, first, entries, SAVED_RUN, now)
                size += payload_bytes(entries)
                if size > self._log_bytes_max // 2:  # or the log would grow to the size of all that is saved
                    self._db.execute("COMMIT")
                    self._checkpoint()
                    self._db.execute("BEGIN IMMEDIATE")
                    size = 0
        return pieces

    def take_over(self, known: Mapping[str, str], marks: Sequence[Any]) -> None:
        """The first part of a salvage; its transaction ends with finish_salvage."""
        with _translated():
            self._db.execute("BEGIN IMMEDIATE")
            for key, value in known.items():
                if key != "queue_id":
                    meta.put(self._db, key, value)
            for row in marks:
                checked.put(self._db, "mark", row)

    def finish_salvage(
        self,
        story: Story,
        pieces: Mapping[str, Sequence[Salvaged]],
        dead: Sequence[Any],
        dropped: Sequence[Gap],
        formers: Mapping[str, Mapping[str, Former]],
        now: tuple[int, int],
    ) -> None:
        """`pieces` by lane, the nearest queue's first; `dead` are rows of the damaged one, `dropped` what it had not told."""
        with _translated():
            self._dead.take_over(dead, story.queue_id, pieces)
            for lane in LANES:
                salvaged.put(self._db, lane, pieces[lane])
            meta.put(self._db, "salvage", story.encode())
            meta.put(self._db, "formers", encode_formers(formers))
            told = Entry(self._ledger, now[0], json.dumps({"kind": "salvage", **asdict(story)}).encode())
            gaps = [of_queue(self._dropped(gap, now), story.queue_id) for gap in dropped]
            self._segments.append("ledger", story.ledger.records + 1, [told, *gaps], SAVED_RUN, now)
            checked.put(self._db, "run", (SAVED_RUN, secrets.token_hex(4), "", *now, 1, 1))
            self._db.execute("COMMIT")

    def close(self) -> None:
        """Fold the write-ahead log into the file, so that an empty log tells of a clean stop. On a full disk it stays."""
        with _translated():
            with suppress(apsw.FullError):
                self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            self._db.close()

    def abandon(self) -> None:
        """Let go of the files without writing."""
        self._db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        self._db.close(True)

    def _named(self, lane: str, position: int) -> int:
        """The row of the run that gave the number at the position."""
        query = f"SELECT coalesce(max(id),0) FROM run WHERE {lane}<=max(1,?)"  # noqa: S608
        return int(self._rows(query, (position,))[0][0])

    def _confirm(self, group: Group, outcome: Outcome) -> None:
        for lane, state in group.confirm.items():
            self._segments.trim(lane, state.position)
            self._gaps.forget(lane, state.position)
            lanes.put(self._db, lane, replace(state, next_seq=outcome.next_seq[lane]))

    def _make_room(self, after: int, group: Group, outcome: Outcome) -> None:
        reason = DROPPED_UNKNOWING if group.known is None else DROPPED
        while True:
            self.measure(outcome)
            size = max(group.bytes, group.room)
            fits = outcome.used_bytes + size <= self._max_bytes
            if fits and not outcome.lowers_floor(size, self.floor_bytes):
                return
            gap = self._segments.evict("main", after, reason)
            if gap is None:
                return
            self._gaps.remember(gap)
            outcome.evicted.append(gap)

    def _settle(self, known: Mapping[str, int], outcome: Outcome, now: tuple[int, int]) -> None:
        """Count what was really lost and say so in the ledger lane. What was dropped before the positions were `known`
        may have been delivered up to them; later only what is not in flight is dropped: all of that is lost."""
        outcome.settled = True
        told = []
        for gap in self._gaps.untold():
            first = gap.first if gap.reason == DROPPED else max(gap.first, known[gap.lane] + 1)
            if first <= gap.last:
                lost = gap._replace(first=first)
                outcome.dropped[gap.lane] = outcome.dropped.get(gap.lane, 0) + lost.records
                told.append(lost)
        self._gaps.tell()
        for lane, records in outcome.dropped.items():
            lanes.dropped(self._db, lane, records)
        entries = [self._dropped(gap, now) for gap in told]
        if entries:
            outcome.next_seq["ledger"] = self._segments.append(
                "ledger", outcome.next_seq["ledger"], entries, self._run, now
            )

    def _dropped(self, gap: Gap, now: tuple[int, int]) -> Entry:
        return statement(self._ledger, "dropped", time_ms=now[0], records=gap.records, **gap._asdict())

    def _mark(self, mark: tuple[Mark, int] | MarkKey) -> None:
        if isinstance(mark, MarkKey):
            self._db.execute("DELETE FROM mark WHERE scope=? AND key=?", (mark.scope, mark.key))
        else:
            (scope, key, value, _), expires_s = mark
            checked.put(self._db, "mark", (scope, key, value, expires_s))

    def _rows(self, sql: str, bindings: tuple[object, ...] = ()) -> list[Any]:
        return cast(list[Any], self._db.execute(sql, cast(Any, bindings)).fetchall())

    def _checkpoint(self) -> None:
        self.commits += 1
        if self._wal_pages * PAGE_BYTES >= self._log_bytes_max or self._wal_is_long():
            self._fold()

    def _wal_is_long(self) -> bool:
        """One large commit made it so, perhaps of an earlier process."""
        return self._wal_bytes() > 2 * self._log_bytes_max

    def _wal_grew(self, _connection: apsw.Connection, _name: str, pages: int) -> int:
        self._wal_pages = pages
        return apsw.SQLITE_OK

    def _pages_bytes(self) -> tuple[int, int]:
        """Of live pages, and of those that SQLite keeps free."""
        with _translated():
            free, pages = (self._rows(f"PRAGMA {count}")[0][0] for count in ("freelist_count", "page_count"))
            if not 0 <= free <= pages:
                raise apsw.CorruptError(f"{free} of {pages} pages are free")
            return (pages - free) * PAGE_BYTES, free * PAGE_BYTES

    def disk_free(self) -> int:
        """The only method that any thread may call."""
        return free_bytes(self._path.parent)

    def _wal_bytes(self) -> int:
        try:
            return os.stat(f"{self._path}-wal").st_size
        except FileNotFoundError:
            return 0

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with _translated():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except apsw.FullError as error:
        raise QueueFull(f"the disk is full: {error}") from error
    except (apsw.CorruptError, apsw.NotADBError, apsw.ConstraintError, UnicodeDecodeError) as error:
        raise StorageDamaged(f"the queue's database is damaged: {error}") from error
    except apsw.IOError as error:
        unreadable = cast(Any, error).extendedresult in UNREADABLE
        kind = StorageDamaged if unreadable else StorageFailing
        raise kind(f"the queue's disk failed: {error}") from error
    except apsw.Error as error:
        raise StorageFailing(f"the queue's disk failed: {error}") from error
