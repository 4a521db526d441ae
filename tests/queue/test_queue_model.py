"""The queue against a model of it: whatever happens in whatever order, nothing acknowledged is lost or given twice."""

import asyncio
import os
import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway.driver import Mark, MarkKey
from gateway.errors import Refused
from gateway.queue import Queue
from tests.queue.rig import copy_as_killed, entries, open_queue

CAP_BYTES = 1 << 20


class QueueModel(RuleBasedStateMachine):
    """`kafka` is what a sink has committed, with its position: like Kafka it survives the gateway's death."""

    @initialize(when_full=st.sampled_from(["reject", "drop_oldest"]))
    def open(self, when_full: str) -> None:
        self.loop = asyncio.new_event_loop()
        self.root = Path(tempfile.mkdtemp())
        self.lives = 0
        self.when_full = when_full
        self.offered: set[bytes] = set()
        self.acknowledged: set[bytes] = set()
        self.kafka: list[tuple[int, bytes]] = []
        self.kafka_position = 0
        self.dead: set[bytes] = set()
        self.marks: dict[bytes, bytes] = {}
        self.in_flight: list[tuple[int, bytes]] = []
        self.late: list[tuple[bytes, asyncio.Future[None]]] = []
        self.reopen()

    @property
    def folder(self) -> Path:
        return self.root / str(self.lives)

    def reopen(self) -> None:
        async def opened() -> Queue:
            return await open_queue(self.folder, max_bytes=CAP_BYTES, when_full=self.when_full)

        self.queue = self.loop.run_until_complete(opened())
        for lane in ("main", "ledger"):
            self.queue.advance(
                lane, max(self.queue.position(lane), self.kafka_position if lane == "main" else 0)
            )

    def body(self, size: int) -> bytes:
        body = b"%06d" % len(self.offered) + os.urandom(size)
        self.offered.add(body)
        return body

    @rule(
        sizes=st.lists(st.integers(0, 3000) | st.just(60_000), min_size=1, max_size=5), key=st.integers(0, 3)
    )
    def emit_and_remember(self, sizes: list[int], key: int) -> None:
        bodies = [self.body(size) for size in sizes]
        name = b"%d" % key

        async def emit() -> None:
            await self.queue.put(entries(*bodies), remember=[Mark("s", name, bodies[0], 3600)])

        try:
            self.loop.run_until_complete(emit())
        except Refused:
            return
        self.acknowledged |= set(bodies)
        self.marks[name] = bodies[0]

    @rule(key=st.integers(0, 3))
    def forget(self, key: int) -> None:
        async def forget() -> None:
            await self.queue.put([], forget=[MarkKey("s", b"%d" % key)])

        self.loop.run_until_complete(forget())
        self.marks.pop(b"%d" % key, None)

    @rule(count=st.integers(30, 90))
    def trickle(self, count: int) -> None:
        """One record a commit, as in a quiet outage: what merging is for."""
        for _ in range(count):
            self.emit_and_remember([10], 0)

    @rule()
    def emit_unwaited(self) -> None:
        body = self.body(100)

        async def emit() -> asyncio.Future[None]:
            return self.queue.put(entries(body), waits=False)

        try:
            self.late.append((body, self.loop.run_until_complete(emit())))
        except Refused:
            return

    @precondition(lambda self: not self.in_flight)
    @rule(records=st.integers(1, 50))
    def send(self, records: int) -> None:
        after = self.kafka_position
        segments = self.loop.run_until_complete(self.queue.peek("main", after, records, 1 << 20))
        self.in_flight = [
            (segment.first + index, entry.value)
            for segment in segments
            for index, entry in enumerate(segment.entries)
        ]
        if self.in_flight:
            self.queue.pin("main", self.in_flight[-1][0])

    @precondition(lambda self: self.in_flight)
    @rule(fate=st.sampled_from(["delivered", "lost", "delivered, answer lost"]), poison=st.booleans())
    def finish(self, fate: str, poison: bool) -> None:
        flight, self.in_flight = self.in_flight, []
        if fate != "lost":
            if poison:
                number, body = flight.pop()
                entry = entries(body)[0]
                self.loop.run_until_complete(self.queue.bury("main", number, entry, "too large"))
                self.dead.add(body)
                self.kafka_position = number
            if flight:
                self.kafka += flight
                self.kafka_position = max(self.kafka_position, flight[-1][0])
            delivered = len(flight) if fate == "delivered" else None
            self.queue.advance("main", self.kafka_position, delivered)
        self.queue.unpin("main")

    @rule()
    def disk_is_full_for_a_moment(self) -> None:
        def limit(pages: int) -> None:
            self.queue._store._db.execute(f"PRAGMA max_page_count={pages}")  # noqa: SLF001

        self.loop.run_until_complete(self.queue._call(limit, 1))  # noqa: SLF001 SQLite keeps what is in use
        self.emit_and_remember([5000, 5000], 1)
        self.loop.run_until_complete(self.queue._call(limit, 1 << 30))  # noqa: SLF001

    @rule()
    def stop_and_start(self) -> None:
        self.loop.run_until_complete(self.queue.close())
        self.acknowledged |= {body for body, stored in self.late if stored.exception() is None}
        self.late = []
        self.in_flight = []
        self.reopen()

    @rule()
    def kill_and_start(self) -> None:
        self.acknowledged |= {
            body for body, stored in self.late if stored.done() and stored.exception() is None
        }
        self.late = []
        self.in_flight = []
        copy_as_killed(self.folder, self.root / str(self.lives + 1))
        self.loop.run_until_complete(self.queue.close())
        self.lives += 1
        self.reopen()

    @invariant()
    def conservation(self) -> None:
        if not hasattr(self, "queue"):
            return
        pending, stats = None, self.queue.stats().lanes["main"]
        while pending is None or stats != self.queue.stats().lanes["main"]:  # a commit came in between
            stats = self.queue.stats().lanes["main"]
            pending = self.loop.run_until_complete(self.queue.count_pending("main")).records
        assert pending == stats.pending
        assert stats.stored == stats.pending + stats.delivered + stats.dropped + stats.dead
        assert self.queue.recall("s") == self.marks

    def teardown(self) -> None:
        if not hasattr(self, "queue"):
            return
        if self.in_flight:
            self.finish("delivered", False)
        self.stop_and_start()
        while True:
            self.send(1000)
            if not self.in_flight:
                break
            self.finish("delivered", False)
        stats = self.queue.stats().lanes["main"]
        self.loop.run_until_complete(self.queue.close())
        self.loop.close()
        shutil.rmtree(self.root)
        numbers = [number for number, _ in self.kafka]
        bodies = [body for _, body in self.kafka]
        assert numbers == sorted(set(numbers))
        assert len(bodies) == len(set(bodies))
        assert set(bodies) <= self.offered
        missing = self.acknowledged - set(bodies) - self.dead
        assert len(missing) <= stats.dropped
        assert not missing or self.when_full == "drop_oldest"
        assert stats.delivered == len(bodies)


TestQueueModel = QueueModel.TestCase
TestQueueModel.settings = settings(
    max_examples=int(os.environ.get("MODEL_EXAMPLES", "50")),
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
