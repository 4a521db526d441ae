"""A driver's way into the queue: routing, counting and showing happen here, once a call."""

import asyncio
from collections import Counter as Counts
from collections.abc import Mapping, Sequence
from functools import partial
from operator import itemgetter

from gateway.clock import Clock
from gateway.driver import Mark, MarkKey
from gateway.errors import Refused
from gateway.metrics import Counter, Metrics
from gateway.queue import Queue
from gateway.record import Record
from gateway.routing import Router
from gateway.runtime.devices import Devices
from gateway.runtime.tap import Tap

_DEVICE = itemgetter(Record._fields.index("device"))


class QueueEmit:
    """gateway.driver.Emit for one driver. `router` may be replaced while it is in use."""

    def __init__(
        self, driver: str, queue: Queue, router: Router, tap: Tap, metrics: Metrics, clock: Clock
    ) -> None:
        self.driver = driver
        self.router = router
        self.devices = Devices()
        self.events: dict[str, Counter] = {}
        self.stored = metrics.counter("tidegate_stored_total", "Records on disk.", driver=driver)
        self.told = metrics.counter(
            "tidegate_accepted_total", "Records whose device was told that they are accepted.", driver=driver
        )
        self._queue = queue
        self._tap = tap
        self._metrics = metrics
        self._clock = clock

    def __call__(
        self,
        records: Sequence[Record],
        *,
        remember: Sequence[Mark] = (),
        forget: Sequence[MarkKey] = (),
        waits: bool = True,
    ) -> asyncio.Future[None]:
        try:
            entries = self.router.entries(self.driver, records)
            stored = self._queue.put(entries, remember=remember, forget=forget, waits=waits)
        except Refused as refused:
            self._refused(type(refused).__name__).value += len(records)
            raise
        if records:
            stored.add_done_callback(partial(self._stored, records))
        return stored

    def recall(self, scope: str) -> Mapping[bytes, bytes]:
        return self._queue.recall(scope)

    def accepted(self, count: int) -> None:
        self.told.value += count

    def device_failed(self, device: str, reason: str) -> None:
        self.devices.failed(device, reason, self._clock.wall_ms())

    def count(self, event: str, amount: int = 1) -> None:
        counter = self.events.get(event)
        if counter is None:
            counter = self.events[event] = self._metrics.counter(
                "tidegate_driver_events_total",
                "What a driver counts beside records.",
                driver=self.driver,
                event=event,
            )
        counter.value += amount

    def _stored(self, records: Sequence[Record], stored: asyncio.Future[None]) -> None:
        """A future that a driver cancelled is counted too: its records are in the group all the same."""
        if not stored.cancelled() and stored.exception() is not None:
            return
        self.stored.value += len(records)
        now_ms = self._clock.wall_ms()
        devices = self.devices.by_name
        for name, count in Counts(map(_DEVICE, records)).items():
            device = devices.get(name)
            if device is None:
                device = self.devices.add(name)
            device.records += count
            device.seen_ms = now_ms
            if device.error is not None:
                device.error = None
        if self._tap.onlookers:
            self._tap.show(self.driver, records)

    def _refused(self, reason: str) -> Counter:
        return self._metrics.counter(
            "tidegate_refused_total",
            "Records that were not taken; their devices were not told that they are accepted.",
            driver=self.driver,
            reason=reason,
        )
