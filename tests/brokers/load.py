"""A gateway's queue and sync under load, and what Kafka then has of it."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self

from gateway.clock import SystemClock
from gateway.queue import Queue
from gateway.sync import Sync, kafka_sync
from gateway.sync.settings import KafkaSettings
from gateway.testing.kafka import Delivered
from tests.sync.rig import delivered, entries, open_queue, until

DEVICES = ("press", "pump", "oven")
RECORDS_A_TURN = 5
TURN_S = 0.05


class Load:
    """Records of DEVICES for `topic`, numbered, as long as the context lasts. Those below `told` are on disk."""

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


class Stage(NamedTuple):
    """What was stored on disk meanwhile: of each device the numbers from `first` up to, not including, `end`."""

    first: Mapping[str, int]
    end: Mapping[str, int]


class Count(NamedTuple):
    told: int
    lost: int
    twice: int


def judge(found: Sequence[Delivered], stages: Sequence[Stage]) -> list[Count]:
    """For each stage. Raises AssertionError for what is out of order."""
    latest: dict[str, int] = {}
    copies: Counter[tuple[str, int]] = Counter()
    for record in sorted(found, key=lambda one: (one.partition, one.offset)):
        device, number = (record.key or b"").decode(), int(record.value)
        assert number >= latest.get(device, 0), f"{device}: {number} comes after {latest[device]}"
        latest[device] = number
        copies[device, number] += 1
    counts = []
    for first, end in stages:
        numbers = [(device, number) for device in end for number in range(first[device], end[device])]
        lost = sum(copies[one] == 0 for one in numbers)
        twice = sum(max(0, copies[one] - 1) for one in numbers)
        counts.append(Count(len(numbers), lost, twice))
    return counts
