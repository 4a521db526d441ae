"""Reads its devices at every tick. `count` numbers a device's readings: 1, 2, 3 ... without a gap, over restarts too."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from functools import partial

from drivers.simulated import Config, channels
from drivers.simulated.protocol import Device
from gateway.driver import Context, Emit, Mark
from gateway.errors import Refused
from gateway.record import Record, reading

COUNTED = b"count"
MARK_LIFETIME_S = 3650 * 86400
STOP_S = 1.0


class SimulatedDriver:
    def __init__(self, config: Config, context: Context) -> None:
        self._config = config
        self._context = context
        self._channels = channels(config)
        self._devices = [
            Device(f"{context.name}-{number}", config.signals, config.seed, config.dropouts)
            for number in range(1, config.devices + 1)
        ]

    async def run(self, emit: Emit) -> None:
        """The number of the last stored tick is a mark that goes along with the records of the tick."""
        scope = f"simulated/{self._context.name}"
        count = int(emit.recall(scope).get(COUNTED, b"0"))
        pending: set[asyncio.Future[None]] = set()
        monotonic = self._context.clock.monotonic
        due = monotonic()
        try:
            while True:
                records = self._read(count + 1)
                mark = Mark(scope, COUNTED, b"%d" % (count + 1), MARK_LIFETIME_S)
                try:
                    stored = asyncio.ensure_future(emit(records, remember=(mark,), waits=False))
                except Refused as refused:
                    for device in self._devices:
                        emit.device_failed(device.name, str(refused) or type(refused).__name__)
                else:
                    pending.add(stored)
                    stored.add_done_callback(pending.discard)
                    stored.add_done_callback(partial(self._stored, emit, records))
                    count += 1
                due = max(due + self._config.interval, monotonic())
                await asyncio.sleep(due - monotonic())
        finally:
            if pending:
                await _settle(emit)

    def _stored(self, emit: Emit, records: Sequence[Record], stored: asyncio.Future[None]) -> None:
        if stored.cancelled() or stored.exception():
            return
        emit.accepted(len(records))
        if self._config.journal:
            try:
                with self._config.journal.open("ab") as journal:
                    journal.write(b"".join(record.body + b"\n" for record in records))
            except OSError as error:
                emit.device_failed(self._context.name, f"journal: {error}")

    def _read(self, count: int) -> list[Record]:
        clock = self._context.clock
        time_ms = clock.wall_ms()
        records = []
        for device, channel in zip(self._devices, self._channels, strict=True):
            values, quality = device.read(count, time_ms / 1000)
            body = reading(device.name, time_ms, values, quality)
            records.append(Record(channel, device.name, body, time_ms, "application/json"))
        return records


async def _settle(emit: Emit) -> None:
    """Ask for the commit that nobody waited for so far, so that the next run counts on from what is stored."""
    with suppress(Refused, TimeoutError):
        async with asyncio.timeout(STOP_S):
            await asyncio.shield(emit(()))
