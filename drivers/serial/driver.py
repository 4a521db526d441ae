"""One port: opened again for as long as it takes, listened to, and its devices asked where they are to be asked.

A port that is gone doesn't end the driver: the supervisor would wait up to a minute between its attempts, and a cable
that is plugged in again must be in use within seconds.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NoReturn

from drivers.serial import Config
from drivers.serial.asking import Asker
from drivers.serial.protocol import Decoder, Message
from gateway.driver import Context, Emit
from gateway.errors import DeviceError, Refused
from gateway.port import Port
from gateway.record import Record, reading

REOPEN_S = 1.0
DEVICES_MAX = 256
LOST = "losses of the port"
NO_ANSWER = "no answer"

_log = logging.getLogger(__name__)


class SerialDriver:
    def __init__(self, config: Config, context: Context) -> None:
        self._config = config
        self._context = context
        self._devices = Devices(config, context.name)
        self._failure: str | None = None

    async def run(self, emit: Emit) -> None:
        while True:
            try:
                await Line(self._config, self._context, emit, self._devices, self._works).serve()
            except DeviceError as error:
                self._failed(emit, str(error))
            await asyncio.sleep(REOPEN_S)

    def _failed(self, emit: Emit, reason: str) -> None:
        if self._failure is None:
            emit.count(LOST)
            _log.warning("driver %s: %s; trying again every second", self._context.name, reason)
        if self._failure != reason:
            for device in self._devices.names:
                emit.device_failed(device, reason)
        self._failure = reason

    def _works(self) -> None:
        if self._failure is not None:
            _log.info("driver %s: port %s works again", self._context.name, self._config.port)
            self._failure = None


class Devices:
    """Those that share the fate of the port: named by the settings, or by their own frames so far."""

    def __init__(self, config: Config, driver: str) -> None:
        self.name = config.device or driver
        self._told = config.device_field is not None
        asked = [config.asked_device(name) for name in config.requests]
        self.names = dict.fromkeys([] if self._told else asked or [self.name])

    def heard(self, device: str) -> None:
        if self._told and len(self.names) < DEVICES_MAX:
            self.names[device] = None


class Line:
    """A port from its opening to its loss. `works` is called when something comes."""

    def __init__(
        self, config: Config, context: Context, emit: Emit, devices: Devices, works: Callable[[], None]
    ) -> None:
        self._config = config
        self._context = context
        self._emit = emit
        self._devices = devices
        self._works = works
        self._decoder = Decoder(config)
        self._asker = (
            Asker(context.name, config.requests, context.clock, emit.count, self._unanswered)
            if config.requests
            else None
        )
        self._pause: asyncio.TimerHandle | None = None

    async def serve(self) -> NoReturn:
        """Until cancelled; raises DeviceError if the port can't be opened or is lost."""
        lost: asyncio.Future[DeviceError] = asyncio.get_running_loop().create_future()
        port = Port.open(self._config, self._received, lost.set_result)
        self._await_pause()
        asking = self._asker and asyncio.create_task(self._asker.run(port, self._decoder))
        ends: list[asyncio.Future[Any]] = [lost, asking] if asking else [lost]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if asking and asking.done():
                asking.result()
            raise lost.result()
        finally:
            port.close()
            if self._pause is not None:
                self._pause.cancel()
            if asking:
                asking.cancel()
                await asyncio.wait([asking])

    def _received(self, data: bytes) -> None:
        self._works()
        self._await_pause()
        self._store(self._decoder.feed(data))

    def _await_pause(self) -> None:
        if self._pause is not None:
            self._pause.cancel()
        self._pause = asyncio.get_running_loop().call_later(self._config.pause_max, self._paused)

    def _paused(self) -> None:
        self._store(self._decoder.pause())

    def _store(self, messages: Sequence[Message]) -> None:
        for event, count in self._decoder.events.items():
            self._emit.count(event, count)
        self._decoder.events.clear()
        if self._asker is None:
            records = [self._record(message.device or self._devices.name, message) for message in messages]
        else:
            records = [
                self._record(self._config.asked_device(name), message)
                for name, message in self._asker.answers(messages)
            ]
        if not records:
            return
        for record in records:
            self._devices.heard(record.device)
        self._keep(records)

    def _unanswered(self, name: str, reason: str) -> None:
        """A record says so in `quality`, at each field or, where none are described, at the request."""
        time_ms = self._context.clock.wall_ms()
        device = self._config.asked_device(name)
        body = reading(device, time_ms, {}, dict.fromkeys(self._config.fields or [name], NO_ANSWER))
        self._keep([Record(f"serial/{device}", device, body, time_ms, "application/json")], reason)

    def _keep(self, records: Sequence[Record], failed: str = "") -> None:
        """A record clears its device's failure in status, so that one is told afterwards."""
        try:
            stored = asyncio.ensure_future(self._emit(records, waits=False))
        except Refused as refused:
            self._fail(records, failed or str(refused) or type(refused).__name__)
        else:
            stored.add_done_callback(partial(self._stored, records, failed))

    def _stored(self, records: Sequence[Record], failed: str, stored: "asyncio.Future[None]") -> None:
        if not stored.cancelled() and stored.exception() is None:
            self._emit.accepted(len(records))
        if failed:
            self._fail(records, failed)

    def _fail(self, records: Sequence[Record], reason: str) -> None:
        for device in {record.device for record in records}:
            self._emit.device_failed(device, reason)

    def _record(self, device: str, message: Message) -> Record:
        time_ms = self._context.clock.wall_ms()
        channel = "/".join(filter(None, ("serial", device, message.kind)))
        if message.reading is None:
            return Record(channel, device, message.content, time_ms, "application/octet-stream")
        body = reading(device, time_ms, *message.reading)
        return Record(channel, device, body, time_ms, "application/json")
