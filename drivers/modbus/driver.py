"""Reads the values of each unit at their intervals, one request after the other on the line.

A unit that doesn't answer goes to the penalty box: it is probed when nothing else is due for as long as that may take, soon
after the first failure, which may have been noise, and then more and more rarely.

A line that can't be opened or was lost doesn't end the driver: the supervisor would wait up to a minute between its attempts,
and a device that has its power again must be read within seconds.
"""

import asyncio
import logging
from collections.abc import Mapping
from functools import partial
from heapq import heapify, heappop, heappush
from itertools import count
from math import inf
from typing import NoReturn

from drivers.modbus import Config, rate_of
from drivers.modbus.line import Channel, Count, Line, Lost, Open, Received, Timing
from drivers.modbus.polled import PollClass, Polled
from drivers.modbus.rtu import RtuLine
from drivers.modbus.tcp import Connection, TcpLine
from gateway.driver import Context, Emit, Mark
from gateway.errors import DeviceError, Refused
from gateway.port import Port, PortSettings
from gateway.record import Record, Value, reading
from gateway.settings import Address

LEARNED_LIFETIME_S = 30 * 86400
"""A device may be replaced by one that refuses less."""

REOPEN_S, REOPEN_S_MAX = 1.0, 4.0
"""Between attempts to open a line, each time twice as long."""

LOST_RECORDS_S = 30.0
"""So often every unit has records that say why there is nothing, while its line is lost."""

PENDING_MAX = 4096
"""Records that are not stored yet; more are left out."""

_log = logging.getLogger(__name__)


class ModbusDriver:
    def __init__(self, config: Config, context: Context) -> None:
        self._config = config
        self._context = context
        self._scope = f"modbus/{context.name}"
        self._order = count()
        self._units: list[Polled] = []
        self._failure: str | None = None
        self._told = -inf
        self._reopen_s = REOPEN_S
        self._waiting: list[tuple[float, int, PollClass]] = []
        self._boxed: list[Polled] = []
        self._pending: set[asyncio.Future[None]] = set()

    async def run(self, emit: Emit) -> None:
        line = line_for(self._config, emit.count)
        hole_max = rate_of(self._config).hole_max
        known = _known(emit.recall(self._scope))
        self._units = [Polled(unit, hole_max, known.get(unit.address, ())) for unit in self._config.units]
        now = asyncio.get_running_loop().time()
        for each in (each for unit in self._units for each in unit.classes):
            each.due = now
        try:
            while True:
                self._waiting.clear()
                for each in (
                    each for unit in self._units if unit not in self._boxed for each in unit.classes
                ):
                    self._wait(each)
                try:
                    await self._serve(line, emit)
                except DeviceError as error:
                    self._lost(str(error), emit)
                await asyncio.sleep(self._reopen_s)
                self._reopen_s = min(2 * self._reopen_s, REOPEN_S_MAX)
        finally:
            line.close()

    def _lost(self, reason: str, emit: Emit) -> None:
        """The line can't be opened, or is no more."""
        now = asyncio.get_running_loop().time()
        if self._failure is None:
            _log.warning("driver %s: %s; trying again every few seconds", self._context.name, reason)
        if self._failure == reason and now - self._told < LOST_RECORDS_S:
            return
        self._failure, self._told = reason, now
        time_ms = self._context.clock.wall_ms()
        for unit in self._units:
            for each in unit.classes:
                self._emit(unit, time_ms, {}, each.nothing(reason), reason, emit)

    def _works(self) -> None:
        self._reopen_s = REOPEN_S
        if self._failure is not None:
            _log.info("driver %s: the line works again", self._context.name)
            self._failure = None

    async def _serve(self, line: Line, emit: Emit) -> NoReturn:
        """Raises DeviceError."""
        loop = asyncio.get_running_loop()
        silence_s = self._config.answer_timeout + 40 * rate_of(self._config).character_s
        while True:
            now = loop.time()
            due = self._waiting[0][0] if self._waiting else inf
            probe = min(self._boxed, key=lambda unit: unit.penalty.probe_at, default=None)
            if probe is not None and probe.penalty.may_probe(now, due, silence_s):
                await self._probe(line, probe, emit)
                self._works()
            elif due <= now:
                await self._poll(line, heappop(self._waiting)[2], emit)
                self._works()
            else:
                await asyncio.sleep(due - now if probe is None else probe.penalty.pause_s(now, due))

    def _wait(self, each: PollClass) -> None:
        heappush(self._waiting, (each.due, next(self._order), each))

    async def _poll(self, line: Line, each: PollClass, emit: Emit) -> None:
        time_ms = self._context.clock.wall_ms()
        values, quality, failure = await each.read(line, emit.count)
        self._emit(each.unit, time_ms, values, quality, failure or each.unit.muted, emit)
        self._advance(each, emit)
        if failure is not None:
            each.unit.penalty.failed(asyncio.get_running_loop().time())
            self._boxed.append(each.unit)
            self._waiting = [entry for entry in self._waiting if entry[2].unit is not each.unit]
            heapify(self._waiting)
        else:
            self._wait(each)

    def _advance(self, each: PollClass, emit: Emit) -> None:
        """To the next tick; of several that are past only the last is made up for."""
        each.due += each.interval
        missed = int((asyncio.get_running_loop().time() - each.due) / each.interval)
        if missed > 0:
            each.due += missed * each.interval
            emit.count("polls skipped", missed)

    async def _probe(self, line: Line, unit: Polled, emit: Emit) -> None:
        failure = await unit.probe(line)
        device = unit.unit.device
        if failure is None:
            if unit.penalty.failures > 1:
                _log.info("driver %s: %s answers again", self._context.name, device)
            unit.penalty.answered()
            self._boxed.remove(unit)
            for each in unit.classes:
                self._wait(each)
            return
        unit.penalty.failed(asyncio.get_running_loop().time())
        if unit.penalty.failures == 2:
            _log.warning("driver %s: %s failed: %s", self._context.name, device, failure)
        time_ms = self._context.clock.wall_ms()
        for each in unit.classes:
            self._emit(unit, time_ms, {}, each.nothing(failure), failure, emit)

    def _emit(
        self,
        unit: Polled,
        time_ms: int,
        values: Mapping[str, Value],
        quality: Mapping[str, str],
        failure: str | None,
        emit: Emit,
    ) -> None:
        device = unit.unit.device
        if len(self._pending) >= PENDING_MAX:
            emit.count("records left out")
            if failure is not None:
                emit.device_failed(device, failure)
            return
        body = reading(device, time_ms, values, quality)
        marks = [
            Mark(self._scope, f"{unit.unit.address} {line}".encode(), b"", LEARNED_LIFETIME_S)
            for each in unit.classes
            for line in each.learned
        ]
        record = Record(unit.channel, device, body, time_ms, "application/json")
        try:
            stored = asyncio.ensure_future(emit([record], remember=marks, waits=False))
        except Refused as refused:
            emit.count("records left out")
            emit.device_failed(device, str(refused) or type(refused).__name__)
            return
        for each in unit.classes:
            each.learned.clear()
        self._pending.add(stored)
        stored.add_done_callback(partial(self._stored, device, failure, emit))

    def _stored(self, device: str, failure: str | None, emit: Emit, stored: "asyncio.Future[None]") -> None:
        """A record clears what `status` says of its device, so the failure that it tells of is shown when it is stored."""
        self._pending.discard(stored)
        if stored.cancelled():
            return
        if stored.exception() is None:
            emit.accepted(1)
        if failure is not None:
            emit.device_failed(device, failure)


def line_for(config: Config, tell: Count) -> Line:
    """The line of a configuration, not open yet."""
    rate = rate_of(config)
    timing = Timing(config.answer_timeout, rate.rest_s, rate.character_s)
    if config.tcp is not None:
        return TcpLine(_connection(config.tcp), timing, tell)
    if config.rtu_over_tcp is not None:
        return RtuLine(_connection(config.rtu_over_tcp), timing, tell, reopen=True)
    if config.serial is None:
        raise ValueError("a bus without a line")
    return RtuLine(_port(config.serial), timing, tell, reopen=False)


def _connection(address: Address) -> Open:
    async def connect(received: Received, lost: Lost) -> Channel:
        return await Connection.open(address, received, lost)

    return connect


def _port(settings: PortSettings) -> Open:
    async def open_port(received: Received, lost: Lost) -> Channel:
        return Port.open(settings, received, lost)

    return open_port


def _known(marks: Mapping[bytes, bytes]) -> dict[int, list[str]]:
    """What was learned, by address of the unit; as its marks are keyed."""
    found: dict[int, list[str]] = {}
    for key in marks:
        address, _, line = key.decode().partition(" ")
        found.setdefault(int(address), []).append(line)
    return found
