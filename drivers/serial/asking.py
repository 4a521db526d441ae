"""Asks devices that speak only when asked, one at a time: on a bus two answers would be none.

A device that doesn't answer goes to the penalty box: it is asked when nothing else is due for as long as that may take, soon
after the first failure, which may have been noise, and then more and more rarely.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from math import inf

from drivers.serial import Request, octets
from drivers.serial.protocol import Decoder, Message
from gateway.clock import Clock
from gateway.penalty import PROBE_S_MAX, Penalty
from gateway.port import Port

REST_S = 0.02
"""Between an answer and the next request, so that the device has let go of a two-wire line."""

UNASKED = "frames that nobody asked for"
UNANSWERED = "requests without an answer"
SKIPPED_TICKS = "skipped ticks"

_log = logging.getLogger(__name__)


class Asked:
    """A request, and when it is sent next unless it is in the penalty box."""

    def __init__(self, name: str, request: Request, due: float) -> None:
        self.name = name
        self.request = request
        self.due = due
        self.penalty = Penalty(request.interval, max(PROBE_S_MAX, request.interval))

    @property
    def silence_s(self) -> float:
        """How long no other device can be asked if this one doesn't answer."""
        return 2 * self.request.timeout + REST_S

    def answered(self, now: float) -> int:
        """Ticks that came while the line was busy; they are left out, none waits for its turn twice."""
        interval = self.request.interval
        boxed = self.penalty.failures > 0
        skipped = 0 if boxed else int((now - self.due) // interval)
        self.due = (now if boxed else self.due + skipped * interval) + interval
        self.penalty.answered()
        return skipped


class Asker:
    """`count` is told what happens, `unanswered` which request had no answer, and why."""

    def __init__(
        self,
        driver: str,
        requests: Mapping[str, Request],
        clock: Clock,
        count: Callable[[str, int], None],
        unanswered: Callable[[str, str], None],
    ) -> None:
        self._driver = driver
        self._monotonic = clock.monotonic
        self._count = count
        self._unanswered = unanswered
        self._all = [Asked(name, request, self._monotonic()) for name, request in requests.items()]
        self._waiting: Asked | None = None
        self._came = asyncio.Event()

    async def run(self, port: Port, decoder: Decoder) -> None:
        """Until cancelled."""
        while True:
            await self._ask(await self._next(), port, decoder)
            await asyncio.sleep(REST_S)

    def answers(self, messages: Sequence[Message]) -> Iterator[tuple[str, Message]]:
        """Messages with the request that they answer; others are counted."""
        for message in messages:
            one = self._waiting
            if one is None or not message.frame.startswith(octets(one.request.expect)):
                self._count(UNASKED, 1)
                continue
            self._waiting = None
            self._came.set()
            if one.penalty.failures:
                _log.info("driver %s: %s answers again", self._driver, one.name)
            yield one.name, message

    async def _next(self) -> Asked:
        """The one whose turn it is, when it has come."""
        while True:
            now = self._monotonic()
            polled = min(
                (one for one in self._all if not one.penalty.failures), key=lambda one: one.due, default=None
            )
            probed = min(self._all, key=lambda one: one.penalty.probe_at)
            due = inf if polled is None else polled.due
            if probed.penalty.may_probe(now, due, probed.silence_s):
                return probed
            if polled is not None and due <= now:
                return polled
            await asyncio.sleep(probed.penalty.pause_s(now, due))

    async def _ask(self, one: Asked, port: Port, decoder: Decoder) -> None:
        request = one.request
        port.discard_input()
        decoder.reset()
        self._waiting = one
        self._came.clear()
        port.write(octets(request.send))
        with suppress(TimeoutError):
            async with asyncio.timeout(request.timeout):
                await self._came.wait()
        if self._came.is_set():
            if skipped := one.answered(self._monotonic()):
                self._count(SKIPPED_TICKS, skipped)
            return
        self._waiting = None
        self._failed(one, f"no answer in {request.timeout:g} s")
        # An answer that comes late would be taken for that of the device asked next.
        await asyncio.sleep(request.timeout)
        one.penalty.failed(self._monotonic())

    def _failed(self, one: Asked, reason: str) -> None:
        self._count(UNANSWERED, 1)
        self._unanswered(one.name, reason)
        if not one.penalty.failures:
            _log.warning("driver %s: %s gives %s", self._driver, one.name, reason)
