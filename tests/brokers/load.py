"""A gateway's queue and sync under load, and what Kafka then has of it."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

from gateway.clock import SystemClock
from gateway.queue import Queue
from gateway.sync import Sync, kafka_sync
from gateway.sync.settings import KafkaSettings
from gateway.testing.kafka import Delivered
from tests import proof
from tests.sync.rig import delivered, entries, open_queue, until

DEVICES = ("press", "pump", "oven")
RECORDS_A_TURN = 5
TURN_S = 0.02


class Load:
    """Records of DEVICES for `topic`, numbered, as long as the context lasts. `told` are those that are on disk."""

    def __init__(self, queue: Queue, sync: Sync, topic: str) -> None:
        self.queue = queue
        self.sync = sync
        self.topic = topic
        self.told = 0
        self.recovery_s = 0.0

    @classmethod
    @asynccontextmanager
    async def on(
        cls, folder: Path, servers: Sequence[str], gateway_id: str, topic: str, **changes: Any
    ) -> AsyncIterator[Self]:
        """At its end all is delivered. `changes` are of KafkaSettings."""
        queue = await open_queue(folder)
        settings = KafkaSettings(
            **{"bootstrap_servers": list(servers), "linger": 0.01, "transaction_timeout": 6.0, **changes}
        )
        sync = kafka_sync(queue, settings, gateway_id, SystemClock())
        load = cls(queue, sync, topic)
        delivery = asyncio.create_task(sync.run())
        feeding = asyncio.create_task(load._feed())
        try:
            await load.flows()
            yield load
            feeding.cancel()
            await asyncio.wait([feeding])
            await delivered(queue)
        finally:
            feeding.cancel()
            delivery.cancel()
            await asyncio.wait([feeding, delivery])
            await queue.close()

    async def flows(self, within_s: float = 60) -> None:
        """Until something that was stored after now is delivered."""
        began = time.monotonic()
        now = self.queue.next_seq("main")
        await until(lambda: self.queue.position("main") >= now, within_s)
        self.recovery_s = time.monotonic() - began

    async def _feed(self) -> None:
        number = 0
        while True:
            for device in DEVICES:
                numbers = range(number, number + RECORDS_A_TURN)
                await self.queue.put(entries(self.topic, *numbers, device=device))
                self.told += RECORDS_A_TURN
            number += RECORDS_A_TURN
            await asyncio.sleep(TURN_S)


def judge(found: Sequence[Delivered], told: int) -> tuple[int, int]:
    """(lost, twice). Raises AssertionError for what is out of order, or not as it was stored."""
    seen: dict[bytes | None, list[int]] = {}
    for record in sorted(found, key=lambda one: (one.partition, one.offset)):
        seen.setdefault(record.key, []).append(int(record.value))
    for key, numbers in seen.items():
        assert numbers == sorted(numbers), f"{key!r} is out of order"
    distinct = sum(len(set(numbers)) for numbers in seen.values())
    return max(0, told - distinct), len(found) - distinct


def prove(
    fault: str, what: str, load: Load, found: Sequence[Delivered], command: str, times: int = 1
) -> None:
    """Nothing lost, nothing twice; and the row of it."""
    lost, twice = judge(found, load.told)
    proof.tell(proof.Row(fault, what, times, load.told, lost, twice, load.recovery_s, command))
    assert (lost, twice) == (0, 0)
