"""Runs one driver for as long as the gateway lives: a driver that fails restarts alone, later and later."""

import asyncio
import logging
from dataclasses import dataclass

from gateway.backoff import Backoff
from gateway.clock import Clock
from gateway.config import DriverConfig, digest_of_files
from gateway.driver import Context
from gateway.errors import DeviceError
from gateway.runtime.emit import QueueEmit

BACKOFF_S = (1.0, 60.0)
HEALTHY_S = 60.0
"""A driver that ran so long, or stored a record, has recovered."""

STOP_S = 2.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DriverHealth:
    """`since_s` is the time since the last change between running and not; `error` is the last one, even if it is over."""

    running: bool
    since_s: float
    error: str | None
    restarts: int


class Supervisor:
    """`run` until cancelled; cancelling waits for the driver to end, at most STOP_S."""

    def __init__(self, settings: DriverConfig, emit: QueueEmit, clock: Clock, seed: str) -> None:
        self.settings = settings
        self.emit = emit
        self._clock = clock
        self._backoff = Backoff(f"{seed}/{settings.name}", *BACKOFF_S)
        self._running = False
        self._since = clock.monotonic()
        self._error: str | None = None
        self._failing = False
        self._restarts = 0
        self._digest: bytes | None = None

    @property
    def health(self) -> DriverHealth:
        return DriverHealth(self._running, self._clock.monotonic() - self._since, self._error, self._restarts)

    def outdated(self) -> bool:
        """Whether it began with other files or secrets than its settings name now."""
        return self._digest is not None and digest_of_files(self.settings.settings) != self._digest

    async def run(self) -> None:
        while True:
            failure = await self._run_once()
            self._running = False
            self._since = self._clock.monotonic()
            first = not self._failing
            self._failing = True
            self._error = str(failure) or type(failure).__name__
            delay = self._backoff.next_delay()
            self._tell(failure, first, delay)
            await asyncio.sleep(delay)
            self._restarts += 1

    async def _run_once(self) -> BaseException:
        """The failure that ended it."""
        stored, began = self.emit.stored.value, self._clock.monotonic()
        task = asyncio.create_task(self._drive(), name=f"driver {self.settings.name}")
        try:
            while not task.done():
                await asyncio.wait([task], timeout=HEALTHY_S if not self._failing else 1.0)
                aged = self._clock.monotonic() - began >= HEALTHY_S
                if not task.done() and (aged or self.emit.stored.value > stored):
                    self._recovered()
        except asyncio.CancelledError:
            task.cancel()
            _, still = await asyncio.wait([task], timeout=STOP_S)
            if still:
                _log.warning("driver %s did not end in %g s", self.settings.name, STOP_S)
            raise
        if task.cancelled():
            return DeviceError("the driver cancelled itself")
        return task.exception() or DeviceError("the driver ended by itself")

    async def _drive(self) -> None:
        name = self.settings.name
        # First: what is replaced meanwhile counts as new.
        self._digest = digest_of_files(self.settings.settings)
        driver = self.settings.manifest.load()(self.settings.settings, Context(name, self._clock))
        self._running = True
        self._since = self._clock.monotonic()
        await driver.run(self.emit)

    def _recovered(self) -> None:
        self._backoff.reset()
        if self._failing:
            self._failing = False
            _log.info("driver %s works again", self.settings.name)

    def _tell(self, failure: BaseException, first: bool, delay: float) -> None:
        """One line for the first failure; those that follow are for those who look closely. A bug shows its trace."""
        expected = isinstance(failure, DeviceError)
        level = logging.DEBUG if not first else logging.WARNING if expected else logging.ERROR
        _log.log(
            level,
            "driver %s failed: %s; trying again, next in %.1f s",
            self.settings.name,
            self._error,
            delay,
            exc_info=None if expected or not first else failure,
        )
