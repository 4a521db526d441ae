"""The sync while its queue can't write: what waits is delivered as soon as a few pages are free, and it never ends."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.clock import SystemClock
from gateway.codec import Entry, Shape
from gateway.queue import Queue
from gateway.sync import LinkState, Sync
from gateway.sync.kafka import partition_of
from gateway.sync.settings import KafkaSettings
from gateway.sync.sink import Batch, Receipt
from gateway.testing.sink import MemoryCluster, MemorySink, MemoryTopic
from tests.queue.full_disk import fill, needs_root, small_disk
from tests.queue.rig import dead_letters, open_queue
from tests.sync.rig import delivered, entries, until

CAP_BYTES = 4 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", 8) as disk:
        yield disk


class Sink(MemorySink):
    """`before` happens once, when the first transaction with records is under way."""

    before: Callable[[], Awaitable[None]] | None = None

    async def deliver(self, batches: Sequence[Batch], positions: Sequence[tuple[bytes, bytes]]) -> Receipt:
        if self.before is not None and any(batch.lane == "main" for batch in batches):
            before, self.before = self.before, None
            await before()
        return await super().deliver(batches, positions)


def kafka() -> MemoryCluster:
    cluster = MemoryCluster()
    cluster.topics |= {
        "tidegate-ledger": MemoryTopic(),
        "telemetry": MemoryTopic(),
        "keyed": MemoryTopic(keyed=True),
    }
    return cluster


@asynccontextmanager
async def running(queue: Queue, sink: Sink) -> AsyncIterator[Sync]:
    """It must not end by itself."""
    settings = KafkaSettings(bootstrap_servers=["memory:1"], linger=0.0)
    sync = Sync(queue, sink, settings, "gw", SystemClock(), partition_of)
    task = asyncio.create_task(sync.run())
    try:
        yield sync
        assert not task.done(), task.exception()
    finally:
        task.cancel()
        await asyncio.wait([task])
    assert task.cancelled()


async def refused(queue: Queue, folder: Path) -> Path:
    """Not even the reserve is left."""
    (folder / "queue.reserve").unlink(missing_ok=True)
    others = fill(folder.parent)
    queue._store._reserve.release()  # noqa: SLF001 as another process that was faster
    return others


@pytest.mark.slow
@needs_root
async def test_what_waits_on_a_full_disk_is_delivered(disk: Path) -> None:
    queue = await open_queue(disk / "queue", max_bytes=CAP_BYTES)
    await queue.put(entries("telemetry", *range(1000)))
    await queue.close()
    fill(disk)
    queue = await open_queue(disk / "queue", max_bytes=CAP_BYTES)
    cluster = kafka()
    async with running(queue, Sink(cluster, "gw")):
        await delivered(queue)
    assert [int(record.value or b"") for record in cluster.topics["telemetry"].logs[0]] == list(range(1000))
    await queue.close()
    queue = await open_queue(disk / "queue", max_bytes=CAP_BYTES)
    assert queue.position("main") == 1000
    await queue.close()


@pytest.mark.slow
@needs_root
async def test_without_a_page_it_says_so_and_goes_on_later(disk: Path) -> None:
    queue = await open_queue(disk / "queue", max_bytes=CAP_BYTES)
    await queue.put(entries("telemetry", *range(1000)))
    others = await refused(queue, disk / "queue")
    cluster = kafka()
    async with running(queue, Sink(cluster, "gw")) as sync:
        await until(lambda: sync.status().alarm is not None)
        status = sync.status()
        assert (status.state, status.alarm) == (LinkState.DOWN, "the disk is full: database or disk is full")
        others.unlink()
        await delivered(queue)
        assert sync.status().alarm is None
        assert len(cluster.topics["telemetry"].logs[0]) == 1000
        await refused(queue, disk / "queue")  # on the way out there is nothing to be noted either
    await queue.close()


@pytest.mark.slow
@needs_root
async def test_a_dead_letter_that_finds_no_room_waits_for_it(disk: Path) -> None:
    queue = await open_queue(disk / "queue", max_bytes=CAP_BYTES)
    keyless = Entry(Shape("keyed", None, ()), 1, bytes(100_000))
    await queue.put([keyless, *entries("telemetry", 1, 2)])
    freed: list[Path] = []

    async def fills() -> None:
        freed.append(await refused(queue, disk / "queue"))

    cluster = kafka()
    sink = Sink(cluster, "gw")
    sink.before = fills
    async with running(queue, sink) as sync:
        await until(lambda: sync.status().alarm is not None)
        freed[0].unlink()
        await delivered(queue)
    assert [letter.entry.value for letter in await dead_letters(queue)] == [keyless.value]
    assert len(cluster.topics["telemetry"].logs[0]) == 2
    await queue.close()


async def test_a_record_that_is_damaged_before_it_is_put_aside_is_a_gap(tmp_path: Path) -> None:
    queue = await open_queue(tmp_path)
    await queue.put([Entry(Shape("keyed", None, ()), 1, b"no key")])
    await queue.put(entries("telemetry", 1, 2))
    await queue.close()
    queue = await open_queue(tmp_path)

    def damage() -> None:
        queue._store._db.execute("UPDATE segment SET body=x'00' WHERE count=1")  # noqa: SLF001

    cluster = kafka()
    sink = Sink(cluster, "gw")
    sink.before = lambda: queue._call(damage)  # noqa: SLF001
    async with running(queue, sink):
        await delivered(queue)
    stats = queue.stats().lanes["main"]
    assert (stats.pending, stats.dead, stats.delivered) == (0, 0, 2)
    await queue.close()
