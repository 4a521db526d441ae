"""The asynchronous side: admission, group commit, positions and what is remembered of them between commits."""

import asyncio
import logging
import secrets
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import ParamSpec, TypeVar

from gateway.clock import Clock, boot_id
from gateway.codec import Entry, Shape
from gateway.driver import Mark, MarkKey
from gateway.errors import QueueFull, Refused, StorageFailing, TooLarge
from gateway.limits import EMIT_RECORDS_MAX, RECORD_BYTES_MAX, RECORD_OVERHEAD_BYTES
from gateway.queue.arrivals import Arrivals
from gateway.queue.census import Census, Count
from gateway.queue.ledger import statement
from gateway.queue.lock import FileLock, Note, lock_path
from gateway.queue.marks import Marks
from gateway.queue.origin import Origin, Run
from gateway.queue.past import Past
from gateway.queue.quarantine import Quarantine
from gateway.queue.ranges import include, overlap
from gateway.queue.recent import Recent
from gateway.queue.salvage import open_store
from gateway.queue.schema import LANES
from gateway.queue.segments import DROPPED, Gap, Segment, cut, payload_bytes
from gateway.queue.settings import QueueSettings
from gateway.queue.state import Buried, DeadLetter, Group, LaneState, Outcome
from gateway.queue.stats import QueueStats, lane_stats
from gateway.repeats import Repeats, since

P = ParamSpec("P")
T = TypeVar("T")

GROUP_BYTES_MAX = 8 << 20
"""Bytes that may wait for the disk; beyond it the disk is too slow and devices are refused."""

LOOK_AGAIN_S = 1.0
"""While devices are refused a commit with nothing in it looks so often whether there is room by now."""

CONFIRM_INTERVAL_S = 5.0
CONFIRM_RECORDS = 20_000
"""A delivered position is written with the next commit once one of these is reached."""

AGE_INTERVAL_S = 60
"""While nothing is confirmed the running time is written so often, with a mark: a power cut sets it back no further."""

SETTLE_INTERVAL_S = 60.0
"""What is dropped is told so often: a record of the ledger with every commit would fill the queue in a long outage."""

ROOM_SHARE = 0.01
"""Of the cap: with so much room devices count as accepted again, or each small record that fits would say so."""

LEDGER = Shape("tidegate-ledger", b"", ())

_log = logging.getLogger(__name__)


class Queue:
    """See the package's docstring. Made by `open`; used from one event loop."""

    def __init__(self, path: Path, settings: QueueSettings, clock: Clock, ledger: Shape) -> None:
        self._lock = FileLock(lock_path(path))
        self._path = path
        self._settings = settings
        self._clock = clock
        self._ledger = ledger
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1, "queue")
        self._group = Group()
        self._waiters: list[asyncio.Future[None]] = []
        self._arrivals = Arrivals()
        self._timer: asyncio.TimerHandle | None = None
        self._committing: asyncio.Future[Outcome] | None = None
        self._committing_bytes = self._committing_records = 0
        self._slowest_commit_s = 0.0
        self._last_commit = self._last_confirm = self._last_settled = float("-inf")
        self._refusing: str | None = None
        self._told_refusing = False
        self._disk_full: str | None = None
        self._recent = Recent()
        self._pins: dict[str, int] = {}
        self._reading = 0
        self._evicting = False
        self._known: dict[str, int] = {}
        self._gaps_open = self._settle_at_once = False
        self._unsettled: dict[str, list[tuple[int, int]]] = {lane: [] for lane in LANES}
        self._closing = False
        self._exhuming = asyncio.Lock()
        self._surpluses = Repeats()
        self.run_id = secrets.token_hex(4)
        self.failed: asyncio.Future[StorageFailing] = self._loop.create_future()

    @classmethod
    async def open(
        cls,
        path: Path,
        settings: QueueSettings,
        clock: Clock,
        *,
        ledger: Shape = LEDGER,
        vfs: str | None = None,
    ) -> "Queue":
        """Open or create the queue in `path`. What is damaged is set aside and salvaged. Raises StorageError."""
        queue = cls(path, settings, clock, ledger)
        try:
            await queue._open(vfs)
        except BaseException:
            queue._thread.shutdown(wait=False)
            queue._lock.release()
            raise
        return queue

    async def _open(self, vfs: str | None) -> None:
        now = (self._clock.wall_ms(), self._clock.boottime_ms())
        noted = self._lock.read()
        self._store = await self._call(open_store, self._path, self._settings, self._ledger, noted, now, vfs)
        try:
            await self._load(now)
        except BaseException:
            self._store.abandon()
            raise

    async def _load(self, now: tuple[int, int]) -> None:
        loaded = await self._call(self._store.load)
        self.queue_id = loaded.meta["queue_id"]
        self._meta = loaded.meta
        self._story = loaded.story
        self._lanes: dict[str, LaneState] = loaded.lanes
        self._holes = loaded.holes
        self._bytes = loaded.sizes
        buried = await self._call(self._store.buried)
        self._buried = {lane: [seq for seq in buried[lane] if seq > self.position(lane)] for lane in LANES}
        self._confirmed = {lane: state.position for lane, state in self._lanes.items()}
        for gap in await self._call(self._store.gaps):
            self._gaps_open = True
            if gap.reason != DROPPED:
                include(self._unsettled[gap.lane], gap.first, gap.last)
        self.past = Past(loaded.meta, loaded.salvaged)
        self._age_written_s = int(loaded.meta.get("age_s", "0"))
        self._marks = Marks(loaded.marks, self._age_written_s, self._clock, self._settings.max_bytes)
        run = (self.run_id, boot_id(), *now)
        firsts = {lane: state.next_seq for lane, state in self._lanes.items()}
        self._runs = await self._call(self._store.start_run, run, firsts)
        self._lock.note(Note(self.queue_id, is_open=self._store.run_is_written))
        self._run_ids = {row_id: run.run_id for row_id, run in self._runs}
        self._room = Outcome({}, [], {})
        await self._call(self._store.measure, self._room)

    def put(
        self,
        entries: Sequence[Entry],
        *,
        lane: str = "main",
        remember: Sequence[Mark] = (),
        forget: Sequence[MarkKey] = (),
        waits: bool = True,
    ) -> asyncio.Future[None]:
        """Admit or raise Refused at once; the future resolves when all of it is on disk. The ledger's few records are
        admitted above the cap: without them nothing is delivered, and a full queue would stay full."""
        self._admit(entries, capped=lane == "main")
        group = self._group
        group.entries.setdefault(lane, []).extend(entries)
        group.marks += self._marks.dated(remember)
        group.marks += forget
        future: asyncio.Future[None] = self._loop.create_future()
        self._waiters.append(future)
        if group.full:
            self._commit_at(0)
        elif waits:
            self._commit_at(self._last_commit + self._settings.commit_interval)
        else:
            self._commit_at(self._clock.monotonic() + self._settings.unacked_interval)
        return future

    def recall(self, scope: str) -> dict[bytes, bytes]:
        return self._marks.recall(scope)

    def next_seq(self, lane: str) -> int:
        return self._lanes[lane].next_seq

    def position(self, lane: str) -> int:
        return self._lanes[lane].position

    def advance(self, lane: str, position: int, delivered: int | None = None) -> None:
        """All up to `position` is delivered; called once after reconciling even if nothing moved.

        `delivered` is the count from Kafka's answers; None where only the position is known.
        """
        state = self._lanes[lane]
        step = position - state.position
        first_time = lane not in self._known
        held = overlap(self._holes[lane], state.position, position)
        if first_time:  # deleted while nobody knew that they were delivered: they were
            held -= overlap(self._unsettled[lane], state.position, position)
        dead = sum(seq <= position for seq in self._buried[lane])
        if step > 0:
            share = min(1.0, step / max(1, state.next_seq - 1 - state.position))
            self._bytes[lane] -= int(self._bytes[lane] * share)
            state.delivered += step - held - dead if delivered is None else delivered
            state.dead += dead
            state.position = position
            self._buried[lane] = [seq for seq in self._buried[lane] if seq > position]
            self._holes[lane] = [hole for hole in self._holes[lane] if hole[1] > position]
            if lane == "main":
                self._recent.forget_through(position)
        self._known.setdefault(lane, position)
        self._settle_at_once |= first_time and self._gaps_open
        if step > 0 or (first_time and self._gaps_open):
            due = self._last_confirm + CONFIRM_INTERVAL_S
            self._commit_at(0 if self._confirm_is_due() else max(due, self._clock.monotonic() + 1))

    async def peek(
        self, lane: str, after: int, max_records: int, max_bytes: int, *, pin: bool = False
    ) -> list[Segment]:
        """Records with a number > after, in order, at least one if there is any; damaged segments become gaps.
        With `pin` they are pinned before anything could evict them."""
        # A commit under way may delete what is still remembered; a read comes after it.
        going = pin and self._committing is not None and self._evicting
        if lane == "main" and self._recent.covers(after + 1) and not going:
            segments: Sequence[Segment] = self._recent.segments()
        else:
            segments = await self._read(lane, after, max_records, max_bytes)
        chosen = cut(segments, after, max_records, max_bytes)
        if pin and chosen:
            self.pin(lane, max(chosen[-1].last, self._pins.get(lane, 0)))
        return chosen

    async def _read(self, lane: str, after: int, max_records: int, max_bytes: int) -> list[Segment]:
        self._reading += 1
        try:
            through = self._lanes[lane].next_seq - 1
            read = partial(self._store.read, lane, after, max_records, max_bytes, through)
            rows, damaged = await self._call(read)
            while damaged:
                for gap in damaged:
                    self._lose(gap)
                if self._known.keys() >= set(LANES):
                    await self.put([])  # before a position can pass them they are told as dropped
                if rows:
                    break
                # Nothing good is not the end: the next one may be.
                rows, damaged = await self._call(read)
        finally:
            self._reading -= 1
        return [
            Segment(lane, row.first, self._run_ids.get(row.run, "unknown"), entries, row.size)
            for row, entries in rows
        ]

    async def wait_for(self, lane: str, after: int) -> None:
        """Until a record with a number > after is on disk."""
        if self._lanes[lane].next_seq - 1 > after:
            return
        await self._arrivals.wait(lane, after)

    def pin(self, lane: str, through: int) -> None:
        """Never evict up to `through`: it is in flight, or nobody knows whether it was delivered."""
        self._pins[lane] = through

    def unpin(self, lane: str) -> None:
        self._pins.pop(lane, None)

    def runs(self, lane: str) -> list[Run]:
        """Oldest first, the present one last."""
        return [run for _, run in self._runs if run.lane == lane]

    def pending(self, lane: str) -> tuple[int, int]:
        """(records, payload bytes); the bytes are an estimate."""
        state = self._lanes[lane]
        gone = overlap(self._holes[lane], state.position, state.next_seq - 1)
        return state.next_seq - 1 - state.position - gone - len(self._buried[lane]), self._bytes[lane]

    async def count_pending(self, lane: str) -> Count:
        """By reading and decoding all of it, not from any counter. Dead letters that wait are not counted."""
        census = await Census.of(
            lambda after: self._call(self._store.read, lane, after, 1, 1),
            self.position(lane),
            lambda: self.next_seq(lane) - 1,
        )
        count = census.count(self.position(lane), self._holes[lane])
        return count._replace(records=count.records - len(self._buried[lane]))

    async def oldest_ms(self, lane: str) -> int | None:
        """Unix time at which the oldest pending segment was accepted."""
        return await self._call(self._store.oldest_ms, lane, self.position(lane))

    @property
    def origin(self) -> Origin | None:
        """Of which queue the first numbers are, if not of this one."""
        return Origin.known(self._meta, self.queue_id)

    async def part(self, origin: Origin, **told: object) -> None:
        """Go on as queue `origin.of`; the ledger tells it with `told`. On disk when this returns. Raises Refused."""
        told |= {"of": origin.of, "queue_id": origin.queue_id}
        future = self.put(
            [statement(self._ledger, "parted", "main", self._clock.wall_ms(), **told)], lane="ledger"
        )
        self._group.origin = origin
        await future

    async def bury(self, lane: str, seq: int, entry: Entry, reason: str) -> None:
        """A dead letter, on disk when this returns; the position may then pass it. Beyond the caps the oldest go."""
        letter = Segment.of(lane, seq, self.run_id, (entry,))
        await self._call(self._store.bury, letter, self._clock.wall_ms(), reason)
        if seq not in self._buried[lane]:
            self._buried[lane].append(seq)
        async with self._exhuming:
            surplus = await self._call(self._store.surplus)
            if surplus:
                text = "the oldest dead letters made room for newer ones: "
                text += ", ".join(f"{one.lane}/{one.seq}" for one in surplus)
                if count := self._surpluses.due("", self._clock.monotonic()):
                    _log.warning("%s%s", text, since(count, "times"))
                note = statement(self._ledger, "note", lane, self._clock.wall_ms(), text=text)
                future = self.put([note], lane="ledger")
                self._group.exhume += [one.id for one in surplus]
                await future

    def buried(self, lane: str) -> Sequence[int]:
        """Numbers of dead letters that the position has not passed yet."""
        return tuple(self._buried[lane])

    async def dead_list(self, limit: int) -> list[Buried]:
        """Oldest first."""
        return await self._call(self._store.dead_list, limit)

    async def dead(self, ids: Sequence[int]) -> list[DeadLetter]:
        return await self._call(self._store.dead, ids)

    async def retry(self, ids: Sequence[int]) -> int:
        """Dead letters become new records that name the old one; returns how many were found. One that the position
        has not passed yet stays: it is still the record itself."""
        async with self._exhuming:
            found = await self.dead(ids)
            letters = [letter for letter in found if letter.seq <= self.position(letter.lane)]
            entries = []
            for letter in letters:
                shape = letter.entry.shape
                origin = ("tg.retry", f"{letter.lane}/{letter.seq}".encode())
                entries.append(letter.entry._replace(shape=shape._replace(headers=(*shape.headers, origin))))
            if entries:
                future = self.put(entries)
                self._group.exhume += [letter.id for letter in letters]
                await future
            return len(entries)

    def committing_s(self) -> float:
        """How long the commit that is under way has taken."""
        return 0.0 if self._committing is None else self._clock.monotonic() - self._last_commit

    def load(self, key: str) -> str | None:
        return self._meta.get(key)

    async def store(self, key: str, value: str) -> None:
        await self._call(self._store.put_meta, key, value)
        self._meta[key] = value

    def stats(self) -> QueueStats:
        lanes = {}
        for lane, state in self._lanes.items():
            settled = lane in self._known and not self._gaps_open
            first, buried = self.runs(lane)[-1].first, len(self._buried[lane])
            lanes[lane] = lane_stats(state, *self.pending(lane), buried, first, settled)
        room = self._room
        return QueueStats(
            lanes=lanes,
            used_bytes=room.used_bytes,
            max_bytes=self._settings.max_bytes,
            disk_free_bytes=self._store.disk_free(),
            commits=self._store.commits,
            slowest_commit_s=self._slowest_commit_s,
            salvage=self._story,
            refusing=self._refusing,
        )

    async def close(self) -> None:
        """Commit what waits, fold the log into the file, let go of the lock. After a failure: only let go."""
        if self._committing is not None:
            await asyncio.wait([self._committing])
        if not self.failed.done():
            self._closing = True
            self._flush()
            if self._committing is not None:
                await asyncio.wait([self._committing])
        if self._timer is not None:
            self._timer.cancel()
        try:
            if self.failed.done():
                await self._call(self._store.abandon)
            else:
                self._lock.note(Note(self.queue_id, is_open=False))
                await self._call(self._store.close)
        finally:
            self._thread.shutdown(wait=False)
            self._lock.release()

    def _admit(self, entries: Sequence[Entry], capped: bool) -> None:
        if self.failed.done():
            raise self.failed.result()
        if not entries:
            return
        sizes = [len(entry[2]) for entry in entries]
        if len(entries) > EMIT_RECORDS_MAX or max(sizes) > RECORD_BYTES_MAX:
            raise TooLarge(
                f"at most {EMIT_RECORDS_MAX} records at once, each of at most {RECORD_BYTES_MAX} bytes"
            )
        size = sum(sizes)
        waiting = self._group.bytes + self._committing_bytes
        others = self._group.records + self._committing_records
        crowd = waiting + size + RECORD_OVERHEAD_BYTES * (others + len(entries))
        if others and crowd > GROUP_BYTES_MAX:
            raise QueueFull("the disk is slower than the devices")
        if capped:
            self._refuse_if_full(waiting + size)
        self._group.bytes += size
        self._group.records += len(entries)

    def _refuse_if_full(self, size: int) -> None:
        self._refusing = self._full(size)
        if self._refusing is not None:
            self._commit_at(0 if self._confirm_is_due() else self._last_commit + LOOK_AGAIN_S)
            if not self._told_refusing:
                self._told_refusing = True
                _log.warning("devices are refused: %s", self._refusing)
            raise QueueFull(self._refusing)

    def _accept_again(self) -> None:
        """Something was stored, and there is room for more than one small record."""
        if self._told_refusing and self._full(int(self._settings.max_bytes * ROOM_SHARE)) is None:
            self._told_refusing, self._refusing = False, None
            _log.info("devices are accepted again")

    def _full(self, size: int) -> str | None:
        room, floor = self._room, self._store.floor_bytes
        if self._disk_full is not None:
            return self._disk_full
        if room.lowers_floor(size, floor):
            if self._settings.when_full == "reject" or not self._evictable():
                return f"less than {floor} bytes would stay free on the disk"
        elif room.used_bytes + size <= self._settings.max_bytes:
            return None
        if self._settings.when_full == "reject" or not self._evictable():
            return f"the queue is at its cap of {self._settings.max_bytes} bytes"
        return None

    def _evictable(self) -> bool:
        delivered = self._lanes["main"].position > self._confirmed["main"]
        return delivered or self._lanes["main"].next_seq - 1 > self._evict_after()

    def _evict_after(self) -> int:
        """Behind the position, the pin, and dead letters that the position has not passed: those count as dead."""
        return max(self._lanes["main"].position, self._pins.get("main", 0), *self._buried["main"])

    def _commit_at(self, when: float) -> None:
        """Commit no later than `when` (monotonic seconds), or as soon as the present commit ends."""
        if self._timer is not None:
            if self._timer.when() <= self._loop.time() + max(0.0, when - self._clock.monotonic()):
                return
            self._timer.cancel()
        self._timer = self._loop.call_later(max(0.0, when - self._clock.monotonic()), self._flush)

    def _confirm_is_due(self) -> bool:
        moved = sum(state.position - self._confirmed[lane] for lane, state in self._lanes.items())
        if moved == 0:
            return False
        crowded = self._room.used_bytes + self._group.bytes > 0.9 * self._settings.max_bytes
        passed = self._clock.monotonic() - self._last_confirm >= CONFIRM_INTERVAL_S
        return passed or moved >= CONFIRM_RECORDS or crowded or self._refusing is not None

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._committing is not None or self.failed.done():
            return
        group, self._group = self._group, Group()
        waiters, self._waiters = self._waiters, []
        now = self._clock.monotonic()
        if self._known.keys() >= set(LANES):
            group.known = dict(self._known)
            due = self._settle_at_once or now - self._last_settled >= SETTLE_INTERVAL_S
            group.settle = self._gaps_open and (due or self._closing)
        if group.exhume or self._confirm_is_due() or self._closing:
            group.confirm = {lane: replace(state) for lane, state in self._lanes.items()}
            self._last_confirm = now
        age_s = self._marks.age_s()
        if group.confirm or (group.marks and age_s >= self._age_written_s + AGE_INTERVAL_S):
            group.age_s = self._age_written_s = age_s
        if self._settings.when_full == "drop_oldest" and not self._reading:
            group.evict_after = self._evict_after()
            group.room = self._store.reserve_bytes if self._disk_full is not None else 0
        self._evicting = (
            group.evict_after is not None
            and (self._room.used_bytes + group.bytes) * 2 > self._settings.max_bytes
        )
        self._last_commit = now
        self._committing_bytes, self._committing_records = group.bytes, group.records
        next_seq = {lane: state.next_seq for lane, state in self._lanes.items()}
        wall = (self._clock.wall_ms(), self._clock.boottime_ms())
        self._committing = self._loop.run_in_executor(self._thread, self._store.commit, group, next_seq, wall)
        self._committing.add_done_callback(lambda future: self._committed(future, group, waiters))

    def _committed(
        self, commit: asyncio.Future[Outcome], group: Group, waiters: list[asyncio.Future[None]]
    ) -> None:
        self._slowest_commit_s = max(self.committing_s(), self._slowest_commit_s)
        self._committing = None
        self._committing_bytes = self._committing_records = 0
        error = commit.exception()
        if error is None:
            self._apply(commit.result(), group)
        elif isinstance(error, QueueFull):
            self._disk_full = str(error)
            # stored now, what came meanwhile would lie before what failed and is sent again
            if self._group.entries.get("main"):
                waiters += self._waiters
                self._group, self._waiters = Group(), []
            self._commit_at(self._last_commit + LOOK_AGAIN_S)
        else:
            self._fail(error if isinstance(error, StorageFailing) else StorageFailing(repr(error)))
        for waiter in waiters:
            if not waiter.done():
                if error is None:
                    waiter.set_result(None)
                else:
                    waiter.set_exception(error if isinstance(error, Refused) else self.failed.result())
                    waiter.exception()  # a driver may have left it unawaited
        if self._waiters:
            self._commit_at(0 if self._group.full else self._last_commit + self._settings.commit_interval)

    def _apply(self, outcome: Outcome, group: Group) -> None:
        self._room = outcome
        if outcome.ample:
            self._disk_full = None
        self._group.marks[:0] = self._marks.apply(group.marks)  # one of these keys may be in use again
        if group.origin is not None:
            self.queue_id = group.origin.of
            self._meta["origin"] = group.origin.encode()
            self._lock.note(Note(self.queue_id, is_open=True))
        for lane, state in group.confirm.items():
            self._confirmed[lane] = state.position
        for lane, records in outcome.dropped.items():
            self._lanes[lane].dropped += records
        for gap in outcome.evicted:
            self._lose(gap)
        if outcome.settled:
            self._gaps_open = self._settle_at_once = False
            self._last_settled = self._clock.monotonic()
            self._unsettled = {lane: [] for lane in LANES}
        for lane, entries in group.entries.items():
            first = outcome.next_seq[lane] - len(entries)
            size = payload_bytes(entries)
            self._bytes[lane] += size
            if lane == "main" and entries:
                self._recent.add(Segment(lane, first, self.run_id, entries, size))
        for lane, seq in outcome.next_seq.items():
            self._lanes[lane].next_seq = seq
        if group.entries.get("main"):
            self._accept_again()
        self._arrivals.stored(outcome.next_seq)

    def _fail(self, error: StorageFailing) -> None:
        """After a failed flush nobody knows what the kernel kept: nothing is acknowledged by this process again."""
        self.failed.set_result(error)
        Quarantine(self._path).suspect(error)
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_exception(error)
                waiter.exception()
        self._waiters = []

    def _lose(self, gap: Gap) -> None:
        self._gaps_open = True
        if gap.reason != DROPPED:
            include(self._unsettled[gap.lane], gap.first, gap.last)
            self._settle_at_once |= self._known.keys() >= set(LANES)
        elif not self._closing:
            self._commit_at(self._last_settled + SETTLE_INTERVAL_S)
        include(self._holes[gap.lane], gap.first, gap.last)
        self._recent.clear()

    async def _call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """On the queue's thread; a failing disk fails the whole queue."""
        try:
            return await self._loop.run_in_executor(self._thread, partial(function, *args, **kwargs))
        except StorageFailing as error:
            if not self.failed.done():
                self._fail(error)
            raise
