"""Records of a real queue reach a real Kafka once and in order, whatever happens on the way."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.clock import SystemClock
from gateway.codec import Entry, Shape
from gateway.queue import Queue, QueueSettings
from gateway.sync import LinkState, Sync, kafka_sync
from gateway.sync.settings import KafkaSettings
from gateway.testing.kafka import Delivered, KafkaBroker

pytestmark = pytest.mark.kafka

HOUR_MS = 3_600_000


async def open_queue(folder: Path) -> Queue:
    settings = QueueSettings(min_free_bytes=0, commit_interval=0.001)
    return await Queue.open(folder / "queue.db", settings, SystemClock())


@asynccontextmanager
async def running(queue: Queue, bootstrap: str, gateway_id: str, **changes: object) -> AsyncIterator[Sync]:
    settings = KafkaSettings(bootstrap_servers=[bootstrap], linger=0.01, **changes)  # type: ignore[arg-type]
    sync = kafka_sync(queue, settings, gateway_id, SystemClock())
    task = asyncio.create_task(sync.run())
    try:
        yield sync
    finally:
        task.cancel()
        await asyncio.wait([task])


def entries(topic: str, *numbers: int, device: str = "press", time_ms: int | None = None) -> list[Entry]:
    shape = Shape(topic, device.encode(), (("tg.device", device.encode()),))
    now = SystemClock().wall_ms() if time_ms is None else time_ms
    return [Entry(shape, now, b"%d" % number) for number in numbers]


async def until(condition: Callable[[], bool], within_s: float = 60) -> None:
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def delivered(queue: Queue) -> None:
    await until(lambda: queue.position("main") == queue.next_seq("main") - 1)


def numbers(records: list[Delivered]) -> list[int]:
    return [int(record.value) for record in sorted(records, key=lambda one: (one.partition, one.offset))]


async def test_records_arrive_once_in_order_and_say_where_they_come_from(
    kafka: KafkaBroker, topic: str, tmp_path: Path
) -> None:
    queue = await open_queue(tmp_path)
    async with running(queue, kafka.bootstrap, "plain-1") as sync:
        for start in range(0, 3000, 100):
            await queue.put(entries(topic, *range(start, start + 100)))
        await delivered(queue)
        assert sync.status().state is LinkState.LIVE
        assert sync.status().delivered["main"] == 3000
    found = kafka.read(topic)
    assert numbers(found) == list(range(3000))
    last = max(found, key=lambda record: int(record.headers["tg.seq"]))
    assert last.key == b"press"
    assert {
        name: last.headers[name] for name in ("tg.gateway", "tg.queue", "tg.run", "tg.lane", "tg.seq")
    } == {
        "tg.gateway": b"plain-1",
        "tg.queue": queue.queue_id.encode(),
        "tg.run": queue.run_id.encode(),
        "tg.lane": b"main",
        "tg.seq": b"3000",
    }
    await queue.close()
