"""A running gateway: the queue, one supervised task a driver, the sync. Made from a configuration, changed by another."""

import asyncio
import dataclasses
import logging
import os
from collections.abc import Iterable, Mapping, Set

import gateway
from gateway.clock import Clock
from gateway.codec import Shape
from gateway.config import Config, DriverConfig, changes, kept_until_restart, unusable_files
from gateway.errors import StorageFailing
from gateway.metrics import Metrics
from gateway.queue import Queue
from gateway.routing import Router
from gateway.runtime.emit import QueueEmit
from gateway.runtime.gauges import (
    describe_driver,
    describe_link,
    describe_process,
    describe_queue,
    describe_wear,
)
from gateway.runtime.status import (
    DeviceStatus,
    DriverStatus,
    LaneLaw,
    LossWindows,
    Status,
    Verification,
)
from gateway.runtime.supervisor import STOP_S, Supervisor
from gateway.runtime.tap import Tap
from gateway.runtime.wear import SAMPLE_INTERVAL_S, Wear
from gateway.sync import Answer, Sent, Sync, SyncStatus, kafka_sync

QUEUE_FILE = "queue.db"
SYNC_RESTART_S = 30.0

_log = logging.getLogger(__name__)


class Runtime:
    """Satisfies gateway.control's Gateway. Made by `start`, ended by `stop`; `failed` is the queue's."""

    def __init__(self, config: Config, queue: Queue, clock: Clock) -> None:
        self.config = self._started = config
        self.queue = queue
        self.metrics = Metrics()
        self._sent = Sent()
        self.tap = Tap()
        self._clock = clock
        self._born = clock.monotonic()
        self._router = _router(config)
        self._wear = Wear(config.gateway.data_dir, clock)
        self._needs_restart: tuple[str, ...] = ()
        self._oldest_s = 0.0
        self._drivers: dict[str, tuple[Supervisor, asyncio.Task[None]]] = {}
        self._start_sync()  # first: it notes what came with a card from another board before a device stores more
        for name in config.drivers:
            self._start_driver(config.drivers[name])
        self._housekeeping = asyncio.create_task(self._keep_house(), name="housekeeping")
        describe_process(
            self.metrics, clock.wall_ms(), lambda: bool(self._needs_restart), lambda: self._oldest_s
        )
        describe_queue(self.metrics, queue)
        describe_wear(self.metrics, self._wear)

    @classmethod
    async def start(cls, config: Config, clock: Clock) -> "Runtime":
        """Raises StorageError or StorageFailing. Needs no network and no device."""
        ledger = Shape(config.kafka.ledger_topic, config.gateway.id.encode(), ())
        path = config.gateway.data_dir / QUEUE_FILE
        queue = await Queue.open(path, config.queue, clock, ledger=ledger)
        return cls(config, queue, clock)

    @property
    def failed(self) -> "asyncio.Future[StorageFailing]":
        return self.queue.failed

    async def stop(self) -> None:
        """Devices first, so that what they still wait for is stored; bounded but for the last commit."""
        self._housekeeping.cancel()
        await _end([task for _, task in self._drivers.values()], STOP_S + 0.5)
        await _end([self._sync_task], STOP_S + 0.5)
        await self.queue.close()

    async def reconfigure(self, wanted: Config) -> None:
        """Restart only what changed. What only a restart of the process can change is kept, and shown in status."""
        new = kept_until_restart(self._started, wanted)
        needs_restart = changes(self._started, wanted).needs_restart
        change = changes(self.config, new)
        kept = self._drivers.keys() - change.drivers_removed - change.drivers_changed
        changed = change.drivers_changed | self._outdated(sorted(kept))
        change = dataclasses.replace(change, drivers_changed=changed)
        if not change and needs_restart == self._needs_restart:
            _log.info("the configuration is the same")
            return
        self.config, self._needs_restart = new, needs_restart
        if change.routes:
            self._router = _router(new)
            for supervisor, _ in self._drivers.values():
                supervisor.emit.router = self._router
        ending = change.drivers_removed | change.drivers_changed
        await _end([self._drivers[name][1] for name in ending], STOP_S + 0.5)
        for name in ending:
            del self._drivers[name]
        for name in change.drivers_removed:
            self.metrics.forget("driver", name)
        for name in new.drivers:
            if name not in self._drivers:
                self._start_driver(new.drivers[name])
        if change.restart_sync:
            await _end([self._sync_task], STOP_S + 0.5)
            self._start_sync()
        started = sorted(change.drivers_added | change.drivers_changed)
        _log.info(
            "new configuration: drivers started: %s; ended: %s; Kafka connection %s",
            ", ".join(started) or "none",
            ", ".join(sorted(change.drivers_removed)) or "none",
            "made anew" if change.restart_sync else "kept",
        )
        if self._needs_restart:
            _log.warning("changed, but only a restart brings it in: %s", ", ".join(self._needs_restart))

    async def adopt(self, answer: Answer | None) -> None:
        await self._sync.adopt(answer)

    async def status(self) -> Status:
        link, queue = self._sync.status(), self.queue.stats()
        pending = queue.lanes["main"].pending
        return Status(
            version=gateway.__version__,
            gateway_id=self.config.gateway.id,
            queue_id=self.queue.queue_id,
            run_id=self.queue.run_id,
            pid=os.getpid(),
            now_ms=self._clock.wall_ms(),
            up_s=self._clock.monotonic() - self._born,
            drivers={name: _driver_status(one) for name, (one, _) in self._drivers.items()},
            queue=queue,
            oldest_ms=await self.queue.oldest_ms("main"),
            drain_s=pending / link.records_per_s if link.records_per_s >= 1 and not link.parked else None,
            link=link,
            wear=self._wear.status(),
            loss=LossWindows(0.0, self.config.queue.unacked_interval + queue.slowest_commit_s),
            needs_restart=self._needs_restart,
        )

    async def prometheus(self) -> str:
        """Every series now. How long the oldest record waits is asked of the disk: that takes as long as a commit may."""
        oldest_ms = await self.queue.oldest_ms("main")
        age_ms = 0 if oldest_ms is None else self._clock.wall_ms() - oldest_ms
        self._oldest_s = max(0, age_ms) / 1000
        return self.metrics.render()

    async def verify(self) -> Verification:
        """Count every side of the conservation law from its own source; reads the whole queue."""
        lanes = {}
        for lane in self.queue.stats().lanes:
            count = await self.queue.count_pending(lane)
            stats = self.queue.stats().lanes[lane]
            lanes[lane] = LaneLaw(count.through, count.records, stats.delivered, stats.dead, stats.dropped)
        emits = [supervisor.emit for supervisor, _ in self._drivers.values()]
        return Verification(
            lanes, sum(emit.told.value for emit in emits), sum(emit.stored.value for emit in emits)
        )

    def summary(self) -> str:
        """One line for systemd's STATUS."""
        failing = sorted(name for name, (one, _) in self._drivers.items() if not one.health.running)
        drivers = f"{len(self._drivers)} drivers" + (f", failed: {', '.join(failing)}" if failing else "")
        return f"{drivers}; {self.queue.stats().lanes['main'].pending} records wait; Kafka {self._sync.status().state}"

    @property
    def own_topics(self) -> Set[str]:
        return self.config.kafka.own_topics

    @property
    def link(self) -> SyncStatus:
        return self._sync.status()

    @property
    def drivers(self) -> Mapping[str, Supervisor]:
        return {name: supervisor for name, (supervisor, _) in self._drivers.items()}

    def _outdated(self, names: Iterable[str]) -> set[str]:
        """Drivers whose certificates, secrets or profiles were replaced by others that can be used."""
        found = set()
        for name in names:
            supervisor, _ = self._drivers[name]
            if supervisor.outdated():
                wrong = unusable_files(supervisor.settings.settings, f"drivers.{name}")
                for where, why in wrong.items():
                    _log.error("%s: %s; the driver is left with what it has", where, why)
                if not wrong:
                    _log.info("driver %s: files or secrets that it uses were replaced", name)
                    found.add(name)
        return found

    def _start_driver(self, settings: DriverConfig) -> None:
        emit = QueueEmit(settings.name, self.queue, self._router, self.tap, self.metrics, self._clock)
        supervisor = Supervisor(settings, emit, self._clock, self.config.gateway.id)
        describe_driver(self.metrics, supervisor)
        task = asyncio.create_task(supervisor.run(), name=f"supervisor {settings.name}")
        self._drivers[settings.name] = (supervisor, task)

    def _new_sync(self) -> Sync:
        gateway = self.config.gateway
        return kafka_sync(
            self.queue, self.config.kafka, gateway.id, self._clock, gateway.replaces, self._sent
        )

    def _start_sync(self) -> None:
        self._sync: Sync = self._new_sync()
        describe_link(self.metrics, self._sync)
        self._sync_task = asyncio.create_task(self._run_sync(), name="sync")

    async def _run_sync(self) -> None:
        """A sync that ends by a bug of ours begins anew: what it had under way, Kafka decides."""
        while True:
            try:
                await self._sync.run()
            except StorageFailing:
                return  # the process ends because of it
            except Exception:
                _log.exception("the sync ended unexpectedly; it starts again in %g s", SYNC_RESTART_S)
            await asyncio.sleep(SYNC_RESTART_S)
            self._sync = self._new_sync()
            describe_link(self.metrics, self._sync)

    async def _keep_house(self) -> None:
        while True:
            await asyncio.sleep(SAMPLE_INTERVAL_S)
            self._wear.sample()


def _router(config: Config) -> Router:
    return Router(config.routes, config.gateway.default_topic, config.kafka.own_topics)


def _driver_status(supervisor: Supervisor) -> DriverStatus:
    emit = supervisor.emit
    return DriverStatus(
        type=supervisor.settings.manifest.name,
        health=supervisor.health,
        stored=emit.stored.value,
        accepted=emit.told.value,
        devices={
            name: DeviceStatus(one.records, one.failures, one.seen_ms, one.error, one.failed_ms)
            for name, one in emit.devices.by_name.items()
        },
        devices_forgotten=emit.devices.forgotten,
        events={event: counter.value for event, counter in emit.events.items()},
    )


async def _end(tasks: list[asyncio.Task[None]], within_s: float) -> None:
    """Cancel and wait; what doesn't end in time is left behind."""
    for task in tasks:
        task.cancel()
    if tasks:
        _, still = await asyncio.wait(tasks, timeout=within_s)
        for task in still:
            _log.warning("%s did not end in %g s", task.get_name(), within_s)
