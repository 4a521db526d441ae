"""Devices and Kafka as one seed makes them: what they do to a real queue, and a note of it for the promise."""

import asyncio
import random
from typing import Literal

from gateway.codec import Entry
from gateway.driver import Mark, MarkKey
from gateway.errors import QueueFull
from gateway.queue import Queue, QueueSettings
from gateway.sync.position import run_of
from tests.crash.promise import (
    SCOPE,
    SHAPE,
    Begun,
    Done,
    Promise,
    Refusal,
    Remark,
    Step,
    TestClock,
    Transaction,
)
from tests.crash.recorder import Recorder

CAP_BYTES = 256 << 10
MARK_BYTES_MAX = 300
"""As large as drivers make them: with those of whole bodies and a few dead letters so small a queue is full for good."""


def settings(when_full: Literal["reject", "drop_oldest"]) -> QueueSettings:
    return QueueSettings(
        max_bytes=CAP_BYTES,
        min_free_bytes=0,
        commit_interval=0.0,
        unacked_interval=3600.0,
        when_full=when_full,
    )


class Workload:
    """`remarks` are (number of operations before it, what was said), in order."""

    def __init__(self, recorder: Recorder, promise: Promise, rng: random.Random) -> None:
        self.remarks: list[tuple[int, Remark]] = []
        self._recorder = recorder
        self._promise = promise.copy()
        self._rng = rng
        self._clock = TestClock()
        self._when_full: Literal["reject", "drop_oldest"] = rng.choice(["reject", "drop_oldest"])
        self._offered = 0
        self._waiting: list[tuple[Step, asyncio.Future[None]]] = []
        self._waited: list[asyncio.Future[None]] = []

    async def run(self, steps: int) -> None:
        await self._open()
        actions = (
            [self._emit] * 12
            + [self._deliver] * 6
            + [self._trickle, self._flood, self._retry, self._retry, self._reopen]
            + [self._store, self._tell, self._wait, self._wait]
            + [self._forget] * 3
        )
        for _ in range(steps):
            await self._rng.choice(actions)()
        await self._queue.close()
        self._tell_devices()

    def _say(self, remark: Remark) -> None:
        self.remarks.append((len(self._recorder.operations), remark))
        self._promise.happens(remark)

    async def _open(self) -> None:
        path = self._recorder.folder / "data" / "queue.db"
        self._queue = await Queue.open(path, settings(self._when_full), self._clock, vfs=self._recorder.vfs)
        self._say(self._promise.opened(self._queue))
        self._connected = False
        if self._rng.random() < 0.7:
            await self._connect()

    async def _connect(self) -> None:
        self._connected = True
        await self._promise.resume(self._queue)
        self._tell_devices()

    async def _reopen(self) -> None:
        await self._queue.close()
        self._tell_devices()
        await self._open()

    def _body(self, size: int) -> bytes:
        self._offered += 1
        return b"%06d " % self._offered + self._rng.randbytes(size)

    def _put(self, step: Step, entries: list[Entry], *, lane: str = "main", waits: bool = True) -> None:
        remember = [Mark(SCOPE, key, value, 10**6) for key, value in step.marks.items() if value is not None]
        forget = [MarkKey(SCOPE, key) for key, value in step.marks.items() if value is None]
        try:
            future = self._queue.put(entries, lane=lane, remember=remember, forget=forget, waits=waits)
        except QueueFull:
            return
        self._say(Begun(step))
        self._waiting.append((step, future))
        if waits:
            self._waited.append(future)

    async def _stored(self) -> None:
        """All that was put, also what nobody waits for."""
        await self._queue.put([])
        self._tell_devices()

    async def _answered(self) -> None:
        """Those who wait are told; what nobody waits for may be in memory still."""
        pending = [future for future in self._waited if not future.done()]
        if pending:
            await asyncio.wait(pending)
        self._waited = []
        self._tell_devices()

    def _tell_devices(self) -> None:
        for step, future in self._waiting:
            if future.done() and future.exception() is None:
                self._say(Done(step))
        self._waiting = [(step, future) for step, future in self._waiting if not future.done()]

    async def _emit(self, sizes: tuple[int, ...] = (0, 20, 300, 300, 6000)) -> None:
        """Several devices in one commit; some of them do not wait."""
        self._clock.now_s += 0.1
        for _ in range(self._rng.randint(1, 3)):
            bodies = [self._body(self._rng.choice(sizes)) for _ in range(self._rng.randint(1, 3))]
            step = Step(bodies)
            if self._rng.random() < 0.5:
                step.marks[b"%d" % self._rng.randint(0, 3)] = bodies[0][:MARK_BYTES_MAX]
            waits = self._rng.random() < 0.8
            self._put(step, [Entry(SHAPE, self._clock.wall_ms(), body) for body in bodies], waits=waits)
        await self._answered()

    async def _trickle(self) -> None:
        """One small record a commit, as in a quiet outage: what merging is for."""
        for _ in range(70):
            body = self._body(10)
            self._put(Step([body]), [Entry(SHAPE, self._clock.wall_ms(), body)])
            await self._answered()

    async def _flood(self) -> None:
        """More than the queue may hold."""
        for _ in range(10):
            await self._emit((12_000, 20_000))

    async def _forget(self) -> None:
        self._put(Step(marks={b"%d" % self._rng.randint(0, 3): None}), [])
        await self._answered()

    async def _tell(self) -> None:
        body = self._body(50)
        self._put(Step(ledger=[body]), [Entry(SHAPE, self._clock.wall_ms(), body)], lane="ledger")
        await self._answered()

    async def _wait(self) -> None:
        """Long enough for a confirmation, or for what was dropped to be told."""
        self._clock.now_s += self._rng.choice([6.0, 61.0])
        await self._stored()

    async def _store(self) -> None:
        await self._stored()
        step = Step(values={f"test.{self._rng.randint(0, 1)}": self._body(100).hex()})
        self._say(Begun(step))
        for key, value in step.values.items():
            await self._queue.store(key, value)
        self._say(Done(step))

    async def _deliver(self) -> None:
        """A transaction that is committed, or fails, or whose answer is lost; its last record may be poison."""
        if not self._connected:
            await self._connect()
        lane = self._rng.choice(["main", "main", "main", "ledger"])
        queue, after = self._queue, self._queue.position(lane)
        segments = await queue.peek(lane, after, self._rng.choice([1, 5, 50, 1000]), 1 << 20, pin=True)
        records = {
            segment.first + index: entry
            for segment in segments
            for index, entry in enumerate(segment.entries)
        }
        position = max(records, default=0)
        for number in queue.buried(lane):
            records.pop(number, None)
        if records and lane == "main" and self._rng.random() < 0.3:
            await self._bury(max(records), records)
        fate = self._rng.choice(["committed", "committed", "answer lost", "failed"])
        if segments and fate != "failed":
            run = run_of(position, queue.runs(lane))
            self._say(Transaction(lane, records, position, run))
            await self._meanwhile()
            if fate == "committed":
                queue.advance(lane, position, len(records))
            else:
                await self._connect()
        queue.unpin(lane)
        if self._rng.random() < 0.5:
            await self._stored()

    async def _meanwhile(self) -> None:
        """Kafka has the transaction, and the queue does not know it yet."""
        match self._rng.choice(["quiet", "devices", "many devices"]):
            case "devices":
                await self._emit()
            case "many devices":
                await self._flood()

    async def _bury(self, number: int, records: dict[int, Entry]) -> None:
        await self._stored()
        step = Step(buried=[number])
        self._say(Begun(step))
        await self._queue.bury("main", number, records.pop(number), "too large")
        self._say(Done(step))

    async def _retry(self) -> None:
        await self._stored()
        position = self._queue.position("main")
        letters = await self._queue.dead(
            [one.id for one in await self._queue.dead_list(3) if one.seq <= position]
        )
        if not letters:
            return
        step = Step([one.entry.value for one in letters], exhumed=[one.seq for one in letters])
        self._say(Begun(step))
        try:
            await self._queue.retry([one.id for one in letters])
        except QueueFull:
            self._say(Refusal(step))
        else:
            self._say(Done(step))
