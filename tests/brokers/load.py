"""A gateway's queue and sync under load, and what Kafka then has of it."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
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
    """Records of DEVICES for `topic`, numbered, as long as the context lasts. `told` are the first numbers of each
    device that are not known to be on disk."""

    def __init__(self, queue: Queue, sync: Sync, topic: str) -> None:
        self.queue = queue
        self.sync = sync
        self.topic = topic
        self.turn_s = TURN_S
        self.told = dict.fromkeys(DEVICES, 0)
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
            load.recovery_s = 0.0
            yield load
            feeding.cancel()
            await asyncio.wait([feeding])
            await delivered(queue)
        finally:
            feeding.cancel()
            delivery.cancel()
            await asyncio.wait([feeding, delivery])
            await queue.close()

    async def flows(self, within_s: float = 90) -> None:
        """Until something that was stored after now is delivered."""
        began = time.monotonic()
        now = self.queue.next_seq("main")
        await until(lambda: self.queue.position("main") >= now, within_s)
        self.recovery_s = max(self.recovery_s, time.monotonic() - began)

    async def _feed(self) -> None:
        while True:
            for device in DEVICES:
                number = self.told[device]
                numbers = range(number, number + RECORDS_A_TURN)
                await self.queue.put(entries(self.topic, *numbers, device=device))
                self.told[device] = number + RECORDS_A_TURN
            await asyncio.sleep(self.turn_s)


def judge(found: Sequence[Delivered], told: Mapping[str, int]) -> tuple[int, int]:
    """(lost, twice). Raises AssertionError for what is out of order."""
    seen: dict[str, list[int]] = {device: [] for device in told}
    for record in sorted(found, key=lambda one: (one.partition, one.offset)):
        seen[(record.key or b"").decode()].append(int(record.value))
    lost = 0
    for device, numbers in seen.items():
        assert numbers == sorted(numbers), f"{device} is out of order"
        lost += len(set(range(told[device])).difference(numbers))
    return lost, len(found) - sum(len(set(numbers)) for numbers in seen.values())


def prove(
    fault: str, what: str, load: Load, found: Sequence[Delivered], command: str, times: int = 1
) -> None:
    """Nothing lost, nothing twice; and the row of it."""
    lost, twice = judge(found, load.told)
    told = sum(load.told.values())
    proof.tell(proof.Row(fault, what, times, told, lost, twice, load.recovery_s, command))
    assert (lost, twice) == (0, 0)
