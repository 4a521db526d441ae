"""What the sync's tests share: a queue, a sync that runs, entries, and what arrived."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from gateway.clock import SystemClock
from gateway.codec import Entry, Shape
from gateway.queue import Queue, QueueSettings
from gateway.sync import Sync, kafka_sync
from gateway.sync.settings import KafkaSettings
from gateway.testing.kafka import Delivered


async def open_queue(folder: Path) -> Queue:
    settings = QueueSettings(min_free_bytes=0, commit_interval=0.001)
    return await Queue.open(folder / "queue.db", settings, SystemClock())


@asynccontextmanager
async def running(queue: Queue, bootstrap: str, gateway_id: str, **changes: Any) -> AsyncIterator[Sync]:
    settings = KafkaSettings(bootstrap_servers=[bootstrap], linger=0.01, **changes)
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


def all_delivered(queue: Queue) -> bool:
    return queue.position("main") == queue.next_seq("main") - 1


async def delivered(queue: Queue) -> None:
    await until(lambda: all_delivered(queue))


def numbers(records: list[Delivered]) -> list[int]:
    return [int(record.value) for record in sorted(records, key=lambda one: (one.partition, one.offset))]
