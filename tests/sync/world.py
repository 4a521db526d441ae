"""A gateway's queue and sync on a cluster in memory, with all that may befall them, and the books that must balance."""

import asyncio
import itertools
import json
import random
import shutil
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from gateway.audit.books import Books
from gateway.clock import SystemClock
from gateway.codec import Entry, Shape
from gateway.errors import Refused
from gateway.queue import LANES, DeadLetter, LaneStats, Queue, QueueSettings
from gateway.sync import LinkState, Sync
from gateway.sync.position import Key, Progress, decode, encode_key
from gateway.sync.settings import KafkaSettings
from gateway.testing.sink import MemoryCluster, MemoryRecord, MemorySink, MemoryTopic

GATEWAY = "plant"
LEDGER_TOPIC = "tidegate-ledger"
QUIET_S = 30.0


class Stored(NamedTuple):
    """What an acknowledged record must look like in the cluster."""

    topic: str
    key: bytes | None
    value: bytes


def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits seconds for a real cluster waits milliseconds for this one."""
    monkeypatch.setattr("gateway.sync.sync.BACKOFF_S", (0.001, 0.002))
    monkeypatch.setattr("gateway.sync.sync.REFUSED_BACKOFF_S", (0.001, 0.002))
    monkeypatch.setattr("gateway.sync.sync.STOP_S", 0.01)
    monkeypatch.setattr("gateway.sync.sync.PARKED_S", 0.01)
    monkeypatch.setattr("gateway.sync.topics.PARKED_S", 0.01)
    monkeypatch.setattr("gateway.sync.position.RUNS_TAIL", 100)


def new_cluster(name: str) -> MemoryCluster:
    cluster = MemoryCluster(name)
    cluster.topics = {
        "alpha": MemoryTopic(partitions=3),
        "beta": MemoryTopic(partitions=2, batch_bytes_max=40_000),
        "keyed": MemoryTopic(partitions=2, keyed=True),
        LEDGER_TOPIC: MemoryTopic(partitions=2),
    }
    return cluster


class Image(NamedTuple):
    """A copy of the data directory, and what its disk holds by number."""

    folder: Path
    stored: dict[int, Stored]


class World:
    """`stored` is what devices were told is accepted, by number; `retried` are numbers of dead letters that became
    new records; `clusters` are those that records went to, the present one last."""

    def __init__(self, root: Path, when_full: str = "drop_oldest", max_bytes: int = 1 << 20) -> None:
        self.root = root
        self.settings = QueueSettings(
            min_free_bytes=0,
            commit_interval=0.001,
            max_bytes=max_bytes,
            when_full=when_full,  # type: ignore[arg-type]
        )
        self.clusters = [new_cluster("one")]
        self.stored: dict[int, Stored] = {}
        self.retried: set[int] = set()
        self.retried_values: set[bytes] = set()
        self.lives = 0
        self.gateway = GATEWAY
        self.board: str | None = None
        self.replaces: str | None = None
        self.folder = root / "0"
        self.branched = self.untold = False
        self.twin: Image | None = None
        self.lost: list[Stored] = []
        self._bodies = itertools.count(1)
        self._shapes: dict[tuple[str, bytes | None], Shape] = {}

    @property
    def cluster(self) -> MemoryCluster:
        return self.clusters[-1]

    async def start(self, *, connect: bool = True) -> None:
        self.queue = await Queue.open(self.folder / "queue.db", self.settings, SystemClock())
        if connect:
            self.connect()

    def connect(self) -> None:
        settings = KafkaSettings(bootstrap_servers=["memory:1"], linger=0.0)
        sink = MemorySink(self.cluster, self.gateway)
        self.sync = Sync(
            self.queue, sink, settings, self.gateway, SystemClock(), _partition, self.board, self.replaces
        )
        self._task = asyncio.create_task(self.sync.run())

    async def disconnect(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])
        assert self._task.cancelled(), self._task.exception()

    async def stop(self) -> None:
        await self.disconnect()
        await self.queue.close()

    async def kill(self) -> None:
        """What is on the disk at one moment is all that is left; a transaction under way is never heard of again."""
        await self._go_on_with(await self.image())

    async def image(self) -> Image:
        """The disk as it is now, taken while the gateway runs."""
        self.lives += 1
        folder = self.root / str(self.lives)
        await self.queue._call(shutil.copytree, self.folder, folder)  # noqa: SLF001
        return Image(folder, dict(self.stored))

    async def _go_on_with(self, image: Image) -> None:
        self.cluster.epochs[self.gateway] += 1
        await self.stop()
        self.folder, self.stored = image.folder, dict(image.stored)

    def copied(self, root: Path, board: str | None) -> "World":
        """A copy of the whole card in another board, on the same cluster; both may run."""
        copy = World(root)
        copy.clusters, copy.stored, copy._bodies = self.clusters, dict(self.stored), self._bodies
        copy.board, copy.branched = board, True
        self.branched = True
        shutil.copytree(self.folder, copy.folder)
        return copy

    async def put_back(self, image: Image) -> None:
        """What was stored since it was taken is gone, if it was not delivered."""
        kept = set(image.stored.items())
        self.lost += [record for number, record in self.stored.items() if (number, record) not in kept]
        self.branched = True
        # What that life dropped or put aside, and could not yet tell, nobody will ever know.
        self.untold |= self.queue.pending("ledger")[0] > 0 or self.queue._gaps_open  # noqa: SLF001
        self.lives += 1
        folder = self.root / str(self.lives)
        shutil.copytree(image.folder, folder)
        await self._go_on_with(image._replace(folder=folder))

    async def clone(self) -> None:
        """Another board gets a copy of the disk; it waits until `switch`."""
        self.branched = True
        self.twin = await self.image()

    async def switch(self) -> None:
        """The other of two copies runs."""
        assert self.twin is not None
        ours = await self.image()
        await self._go_on_with(self.twin)
        self.twin = ours

    async def emit(self, *records: tuple[str, bytes | None, int]) -> bool:
        """(topic, key, size) each; whether they were accepted."""
        entries = [self._entry(*record) for record in records]
        try:
            await self.queue.put(entries)
        except Refused:
            return False
        self._accepted(entries)
        return True

    async def _letters(self) -> list[DeadLetter]:
        return await self.queue.dead([letter.id for letter in await self.queue.dead_list(10_000)])

    async def retry(self) -> None:
        letters = {letter.id: letter for letter in await self._letters()}
        main = [letter for letter in letters.values() if letter.lane == "main"]
        passed = [letter for letter in main if letter.seq <= self.queue.position("main")]
        try:
            await self.queue.retry([letter.id for letter in passed])
        except Refused:
            return
        self._accepted([letter.entry for letter in passed])
        self.retried |= {letter.seq for letter in passed}
        self.retried_values |= {letter.entry.value for letter in passed}

    def rival(self) -> None:
        """Another database delivers under our id, once."""
        self.cluster.epochs[GATEWAY] += 1
        value = b'{"seq":0,"run":"theirs","runs":[["theirs",1]],"hw":null}'
        self.cluster.commit([], [(encode_key(Key(GATEWAY, "other", lane)), value) for lane in LANES])

    def progress(self, lane: str) -> Progress | None:
        key = encode_key(Key(self.gateway, self.queue.queue_id, lane))
        values = [one.value for one in self.cluster.positions if one.key == key]
        return decode(values[-1]).progress if values else None

    @property
    def held(self) -> bool:
        return self.sync.status().state is LinkState.HELD

    async def quiet(self) -> None:
        """Until nothing is left to do but what waits for an operator or a topic."""
        self.cluster.resume()
        await self.until(lambda: self.held or self.drained)

    @property
    def drained(self) -> bool:
        return all(self._done(lane) for lane in LANES)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(QUIET_S):
            while not condition():
                assert not self._task.done(), self._task.exception()
                await asyncio.sleep(0.0005)

    def _done(self, lane: str) -> bool:
        progress = self.progress(lane)
        if progress is None or progress.floor != self.queue.position(lane):
            return False
        writable = [name for name in progress.parked if name in self.cluster.topics]
        waits = any(self.cluster.topics[name].writable for name in writable)
        return progress.frontier == self.queue.next_seq(lane) - 1 and not waits

    async def _settle(self) -> tuple[Mapping[str, LaneStats], list[DeadLetter]]:
        """Everything healed and drained, and the gateway stopped."""
        await self.quiet()
        while self.held:
            await self.sync.adopt(None)
            await self.until(lambda: not self.held)
            await self.quiet()
        await self.stop()  # what is dropped is told with a commit
        await self.start()
        await self.quiet()
        letters = await self._letters()
        # The ledger may have more to say meanwhile. A pin that stays keeps the queue from making room.
        await self.until(lambda: self.drained and not self.queue._pins)  # noqa: SLF001
        stats = self.queue.stats().lanes
        await self.stop()
        return stats, letters

    async def balance(self) -> None:
        """What was accepted is in the cluster once, dead, or told as dropped."""
        stats, letters = await self._settle()
        if self.branched:
            await self._balance_lives(letters)
        else:
            self._balance_numbers(stats, letters)
        self._look_at_order()
        self.audit()

    async def _balance_lives(self, letters: list[DeadLetter]) -> None:
        """The same where numbers were given more than once: values tell the records apart."""
        disks = [self.stored]
        if self.twin is not None:
            self.folder, self.stored = self.twin.folder, dict(self.twin.stored)
            await self.start()
            letters = [*letters, *(await self._settle())[1]]
            disks.append(self.stored)
        found = [record for _, record in self.found("main")]
        again = self.retried_values
        twice = [one for one, times in Counter(found).items() if times > 1 and one.value not in again]
        assert twice == [], "delivered twice"
        known = {record for disk in disks for record in disk.values()}
        assert set(found) <= known | set(self.lost), "records of nobody"
        gone = {
            number
            for kind in ("dropped", "dead")
            for first, last in self.told(kind)
            for number in range(first, last + 1)
        }
        dead = {letter.entry.value for letter in letters}
        for disk in disks:
            for number, record in disk.items():
                told = number in gone or record.value in dead
                assert record in found or told or self.untold, f"{number} is lost, and nobody was told"

    def _balance_numbers(self, stats: Mapping[str, LaneStats], letters: list[DeadLetter]) -> None:
        found = self.found("main")
        numbers = Counter(number for number, _ in found)
        assert [number for number, times in numbers.items() if times > 1] == [], "delivered twice"
        for number, record in found:
            assert self.stored.get(number) == record, f"{number} is not what was stored"
        dead = {letter.seq for letter in letters if letter.lane == "main"} | self.retried
        dropped = [number for first, last in self.told("dropped") for number in range(first, last + 1)]
        # The oldest letters make room for newer ones: then only the ledger knows of them.
        dead |= {first for first, _ in self.told("dead")} - set(numbers) - set(dropped)
        assert len(dropped) == len(set(dropped)), "told as dropped twice"
        explained = Counter([*numbers, *dead, *dropped])
        assert [number for number in self.stored if not explained[number]] == [], "lost, and nobody was told"
        assert not numbers.keys() & dead, "delivered, and with the dead letters"
        assert not numbers.keys() & set(dropped), "delivered, and told as dropped"
        assert not dead & set(dropped), "with the dead letters, and told as dropped"
        assert explained.keys() == self.stored.keys(), "numbers of nobody"
        main, ledger = stats["main"], stats["ledger"]
        assert (main.stored, main.pending) == (len(self.stored), 0)
        assert (main.delivered, main.dead, main.dropped) == (len(numbers), len(dead), len(dropped))
        told = sorted(number for number, _ in self.found("ledger"))
        assert told == list(range(1, ledger.stored + 1))
        assert (ledger.delivered, ledger.pending) == (ledger.stored, 0)

    def _entry(self, topic: str, key: bytes | None, size: int) -> Entry:
        shape = self._shapes.setdefault((topic, key), Shape(topic, key, ()))
        number = next(self._bodies)
        return Entry(shape, SystemClock().wall_ms(), b"%06d" % number + random.Random(number).randbytes(size))

    def _accepted(self, entries: Iterable[Entry]) -> None:
        stored = [Stored(entry.shape.topic, entry.shape.key, entry.value) for entry in entries]
        first = self.queue.next_seq("main") - len(stored)
        assert not self.stored.keys() & set(range(first, first + len(stored))), "a number was given twice"
        self.stored |= dict(enumerate(stored, first))

    def _records(self, lane: str) -> Iterable[tuple[str, int, int, MemoryRecord]]:
        for cluster in self.clusters:
            for name, topic in cluster.topics.items():
                for partition, log in topic.logs.items():
                    for record in log:
                        if record.headers["tg.lane"] == lane.encode():
                            yield name, partition, int(record.headers["tg.seq"]), record

    def found(self, lane: str = "main") -> list[tuple[int, Stored]]:
        return [
            (number, Stored(topic, record.key, record.value or b""))
            for topic, _, number, record in self._records(lane)
        ]

    def told(self, kind: str) -> list[tuple[int, int]]:
        statements: list[dict[str, Any]] = [
            json.loads(record.value or b"") for _, _, _, record in self._records("ledger")
        ]
        return [
            (body["first"], body["last"])
            for body in statements
            if body["kind"] == kind and body["lane"] == "main"
        ]

    def _look_at_order(self) -> None:
        latest: dict[tuple[str, bytes | None, bytes], int] = {}
        for topic, _, number, record in self._records("main"):
            place = (topic, record.key, record.headers["tg.queue"])
            assert record.key is None or latest.get(place, 0) < number, f"{place} out of order"
            latest[place] = number

    def audit(self) -> None:
        books = Books(LEDGER_TOPIC)
        for cluster in self.clusters:
            for position in cluster.positions:
                books.position(position.key, position.value)
        for lane in LANES:
            for topic, partition, _, record in self._records(lane):
                headers = list(record.headers.items())
                books.record((topic, partition), record.timestamp_ms or 0, headers)
                if lane == "ledger":
                    books.statement(headers, record.value or b"")
        report = books.findings()
        if self.untold:
            assert not any(lane.twice or lane.clashes for lane in report.lanes), report
        else:
            assert report.exit_code == 0, report


def _partition(key: bytes, partitions: int) -> int:
    return zlib.crc32(key) % partitions
