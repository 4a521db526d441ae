"""A gateway without drivers and without Kafka, for tests of what stands around one: its queue is real."""

import os
from collections.abc import Mapping, Sequence, Set
from pathlib import Path

from gateway import __version__
from gateway.clock import SystemClock
from gateway.errors import CommandError
from gateway.metrics import Metrics
from gateway.queue import Queue, QueueSettings
from gateway.record import Record
from gateway.routing import Router
from gateway.runtime.status import DriverStatus, LaneLaw, LossWindows, Status, Verification
from gateway.runtime.tap import Tap
from gateway.runtime.wear import WearStatus
from gateway.sync import Answer, LinkState, SyncStatus

DOWN = SyncStatus(
    state=LinkState.DOWN,
    since_s=3600.0,
    error="kafka-1:9092: connection refused",
    alarm=None,
    parked={},
    beyond=0,
    delivered={"main": 0, "ledger": 0},
    records_per_s=0.0,
    bytes_sent=0,
    transactions=0,
)


class FakeGateway:
    """Satisfies gateway.control.contract.Gateway. What `status` tells beside the queue is set by the test."""

    def __init__(self, queue: Queue, gateway_id: str) -> None:
        self.queue = queue
        self.metrics = Metrics()
        self.tap = Tap()
        self.gateway_id = gateway_id
        self.own_topics: Set[str] = {"tidegate-positions", "tidegate-ledger"}
        self.drivers: Mapping[str, DriverStatus] = {}
        self.link = DOWN
        self.drain_s: float | None = None
        self.needs_restart: tuple[str, ...] = ()
        self.accepted = self.stored = 0
        self.lost = 0
        """Records that `verify` is to miss."""
        self.adopted: list[Answer | None] = []
        self.nothing_to_decide: CommandError | None = None
        self._router = Router([], "telemetry")
        self._clock = SystemClock()
        self._born = self._clock.monotonic()

    @classmethod
    async def open(cls, folder: Path, gateway_id: str = "plant-7") -> "FakeGateway":
        settings = QueueSettings(min_free_bytes=0)
        return cls(await Queue.open(folder / "queue.db", settings, SystemClock()), gateway_id)

    async def accept(self, driver: str, records: Sequence[Record]) -> None:
        await self.queue.put(self._router.entries(driver, records))
        self.tap.show(driver, records)
        self.stored += len(records)
        self.accepted += len(records)

    async def status(self) -> Status:
        return Status(
            version=__version__,
            gateway_id=self.gateway_id,
            queue_id=self.queue.queue_id,
            run_id=self.queue.run_id,
            pid=os.getpid(),
            now_ms=self._clock.wall_ms(),
            up_s=self._clock.monotonic() - self._born,
            drivers=dict(self.drivers),
            queue=self.queue.stats(),
            oldest_ms=await self.queue.oldest_ms("main"),
            drain_s=self.drain_s,
            link=self.link,
            wear=WearStatus(4096, 12.5, "mmcblk0", 25.0),
            loss=LossWindows(0.0, 5.0),
            needs_restart=self.needs_restart,
        )

    async def prometheus(self) -> str:
        return self.metrics.render()

    async def verify(self) -> Verification:
        lanes = {
            lane: LaneLaw(stats.stored, stats.pending - self.lost, stats.delivered, stats.dead, stats.dropped)
            for lane, stats in self.queue.stats().lanes.items()
        }
        return Verification(lanes, self.accepted, self.stored)

    async def adopt(self, answer: Answer | None) -> None:
        if self.nothing_to_decide is not None:
            raise self.nothing_to_decide
        self.adopted.append(answer)
