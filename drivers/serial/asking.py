"""Asks devices that speak only when asked, one at a time: on a bus two answers would be none."""

import asyncio
import logging
from collections.abc import Iterator, Mapping, Sequence

from drivers.serial import Request, octets
from drivers.serial.protocol import Decoder, Message
from gateway.clock import Clock
from gateway.driver import Emit
from gateway.port import Port

REST_S = 0.02
"""Between an answer and the next request, so that the device has let go of a two-wire line."""

UNASKED = "frames that nobody asked for"
UNANSWERED = "requests without an answer"
SKIPPED_TICKS = "skipped ticks"

_log = logging.getLogger(__name__)


class Asker:
    """A tick that comes while the line is busy is counted and left out; none waits for its turn twice."""

    def __init__(self, driver: str, requests: Mapping[str, Request], clock: Clock, emit: Emit) -> None:
        self._driver = driver
        self._requests = requests
        self._clock = clock
        self._emit = emit
        self._silent: set[str] = set()
        self._asked: str | None = None
        self._answered = asyncio.Event()

    async def run(self, port: Port, decoder: Decoder) -> None:
        """Until cancelled."""
        monotonic = self._clock.monotonic
        due = dict.fromkeys(self._requests, monotonic())
        quiet_until = 0.0
        while True:
            name = min(due, key=due.__getitem__)
            await asyncio.sleep(max(due[name], quiet_until) - monotonic())
            await self._ask(name, port, decoder)
            quiet_until = monotonic() + REST_S
            interval = self._requests[name].interval
            skipped = int((monotonic() - due[name]) // interval)
            if skipped:
                self._emit.count(SKIPPED_TICKS, skipped)
            due[name] += (skipped + 1) * interval

    def answers(self, messages: Sequence[Message]) -> Iterator[tuple[str, Message]]:
        """Messages with the device that was asked for them; others are counted."""
        for message in messages:
            name = self._asked
            if name is None or not message.frame.startswith(octets(self._requests[name].expect)):
                self._emit.count(UNASKED)
                continue
            self._asked = None
            self._answered.set()
            if name in self._silent:
                self._silent.remove(name)
                _log.info("driver %s: %s answers again", self._driver, name)
            yield name, message

    async def _ask(self, name: str, port: Port, decoder: Decoder) -> None:
        request = self._requests[name]
        port.discard_input()
        decoder.reset()
        self._asked = name
        self._answered.clear()
        port.write(octets(request.send))
        try:
            async with asyncio.timeout(request.timeout):
                await self._answered.wait()
        except TimeoutError:
            self._asked = None
            self._failed(name, f"no answer in {request.timeout:g} s")
            # An answer that comes late would be taken for that of the device asked next.
            await asyncio.sleep(request.timeout)

    def _failed(self, name: str, reason: str) -> None:
        self._emit.count(UNANSWERED)
        self._emit.device_failed(name, reason)
        if name not in self._silent:
            self._silent.add(name)
            _log.warning("driver %s: %s gives %s", self._driver, name, reason)
