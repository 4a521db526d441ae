"""A gateway's life on a recorded disk, by seed: everything that a queue writes, in an order that chance decides."""

import asyncio
import random
from pathlib import Path

import pytest

from gateway.codec import Entry
from gateway.driver import Mark, MarkKey
from gateway.errors import QueueFull
from gateway.queue import Queue
from gateway.sync.position import run_of
from tests.crash.disk import Operation
from tests.crash.laws import NOTE, SCOPE, SHAPE, drain, fetch, reconciled, settings
from tests.crash.promises import Event, Promises
from tests.crash.recorder import Recorder, recording
from tests.crash.stepped import BORN_MS, SteppedClock, SteppedLoop

MERGE_SEGMENTS = 8
"""Fewer than in the product, so that a short life has many merges."""

YEAR_S = 365 * 86_400

Trace = list[Operation | Event]


class Life:
    def __init__(self, folder: Path, seed: int, loop: SteppedLoop) -> None:
        self.trace: Trace = []
        self.rng = random.Random(seed)
        self.when_full = "reject" if seed % 4 == 0 else "drop_oldest"
        self._folder = folder
        self._clock = SteppedClock(loop)
        self._promises = Promises()
        self._counter = 0

    def promise(self, event: Event) -> None:
        event(self._promises)
        self.trace.append(event)

    async def live(self, steps: int, queue_class: type[Queue]) -> None:
        with recording(Recorder(self._folder, {}, self.trace.append)) as vfs:
            await self._open(queue_class, vfs)
            for _ in range(steps):
                step, _ = self.rng.choices(STEPS, [weight for _, weight in STEPS])[0]
                await step(self)
                if self.rng.random() < 0.05:
                    await self._queue.close()
                    await self._open(queue_class, vfs)
            await self._queue.close()

    async def _open(self, queue_class: type[Queue], vfs: str) -> None:
        path = self._folder / "queue.db"
        self._queue = await queue_class.open(path, settings(self.when_full), self._clock, vfs=vfs)
        name = self._queue.queue_id
        self.promise(lambda promises: setattr(promises, "queue_id", name))
        if self.rng.random() < 0.5:  # devices don't wait for the link
            await self.burst()
        await reconciled(self._queue, self._promises)

    async def burst(self) -> None:
        """Devices that wait together, and some that don't."""
        futures = [
            self._put(self._values(), waits=self.rng.random() < 0.8) for _ in range(self.rng.randint(1, 4))
        ]
        if self.rng.random() < 0.9:
            await asyncio.wait([future for future in futures if future is not None] or [self._sleep(0)])

    async def trickle(self) -> None:
        """What merging is for."""
        for _ in range(self.rng.randint(3, 10)):
            future = self._put((self._value(10),))
            if future is not None:
                await future

    async def forget(self) -> None:
        future = self._put(())
        assert future is not None
        await future

    async def ledger(self) -> None:
        value = b'{"kind": "test", "number": %d}' % len(self._promises.puts)
        future = self._queue.put([_entry(value)], lane="ledger")
        self._offered(future, (), ledger=(value,))
        await future

    async def send(self) -> None:
        """A transaction: perhaps with a dead letter, perhaps its answer is lost, while devices go on."""
        queue, rng = self._queue, self.rng
        last, found = await fetch(queue, "main", queue.position("main"), rng.choice((1, 5, 50)))
        if last == queue.position("main"):
            return
        if rng.random() < 0.5:
            await self.burst()
        if found and rng.random() < 0.2:
            number = rng.choice(list(found))
            await queue.bury("main", number, found.pop(number), "too large")
            self.promise(lambda promises: promises.dead.add(number))
        if rng.random() < 0.8:
            values = {number: entry.value for number, entry in found.items()}
            run = run_of(last, queue.runs("main"))
            self.promise(lambda promises: promises.deliver("main", last, run, values))
            answered = rng.random() < 0.8
            if not answered:
                await self.burst()
            queue.advance("main", last, len(values) if answered else None)
        queue.unpin("main")

    async def send_ledger(self) -> None:
        await drain(self._queue, "ledger", self.promise, 2)

    async def retry(self) -> None:
        found = [one for one in await self._queue.dead_list(2) if one.seq <= self._queue.position("main")]
        letters = await self._queue.dead([one.id for one in found])
        if letters:
            values = tuple(one.entry.value for one in letters)
            put = len(self._promises.puts)
            again = tuple(one.seq for one in letters)
            self.promise(lambda promises: promises.offer(values, again=again))
            try:
                await self._queue.retry([one.id for one in letters])
            except QueueFull:
                self.promise(Promises.withdraw)
            else:
                self.promise(lambda promises: promises.keep(put))

    async def note(self) -> None:
        value = str(self._clock.boottime_ms())
        self.promise(lambda promises: promises.notes.append(value))
        await self._queue.store(NOTE, value)
        self.promise(lambda promises: setattr(promises, "notes", [value]))

    async def rest(self) -> None:
        await self._sleep(self.rng.choice((0.1, 1, 6, 61)))

    def _sleep(self, seconds: float) -> "asyncio.Task[None]":
        return asyncio.create_task(asyncio.sleep(seconds))

    def _values(self) -> tuple[bytes, ...]:
        return tuple(
            self._value(self.rng.choice((10, 300, 3000, 9000))) for _ in range(self.rng.randint(1, 3))
        )

    def _value(self, size: int) -> bytes:
        self._counter += 1
        return b"%06d" % self._counter + self.rng.randbytes(size)

    def _put(self, values: tuple[bytes, ...], waits: bool = True) -> "asyncio.Future[None] | None":
        """None if the queue is full."""
        marks: list[tuple[bytes, bytes | None]] = []
        if self.rng.random() < 0.5 or not values:
            marks = [(b"%d" % self.rng.randrange(6), values[0][:6] if values else None)]
        remember = [Mark(SCOPE, key, value, YEAR_S) for key, value in marks if value is not None]
        forget = [MarkKey(SCOPE, key) for key, value in marks if value is None]
        try:
            future = self._queue.put(
                [_entry(value) for value in values], remember=remember, forget=forget, waits=waits
            )
        except QueueFull:
            return None
        self._offered(future, values, tuple(marks))
        return future

    def _offered(
        self,
        future: "asyncio.Future[None]",
        values: tuple[bytes, ...],
        marks: tuple[tuple[bytes, bytes | None], ...] = (),
        ledger: tuple[bytes, ...] = (),
    ) -> None:
        put = len(self._promises.puts)
        self.promise(lambda promises: promises.offer(values, marks, ledger))
        future.add_done_callback(lambda _: self.promise(lambda promises: promises.keep(put)))


STEPS = (
    (Life.burst, 8),
    (Life.trickle, 2),
    (Life.forget, 1),
    (Life.ledger, 1),
    (Life.send, 5),
    (Life.send_ledger, 1),
    (Life.retry, 1),
    (Life.note, 1),
    (Life.rest, 2),
)


def _entry(value: bytes) -> Entry:
    return Entry(SHAPE, BORN_MS, value)


def record(folder: Path, seed: int, steps: int, loop: SteppedLoop, queue_class: type[Queue] = Queue) -> Life:
    life = Life(folder, seed, loop)
    folder.mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gateway.queue.segments.MERGE_SEGMENTS", MERGE_SEGMENTS)
        loop.run_until_complete(life.live(steps, queue_class))
    return life
