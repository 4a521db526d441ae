"""The driver on a line of ours, with an Emit in memory."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from drivers.modbus import Config
from drivers.modbus.driver import ModbusDriver
from drivers.modbus.register import Register
from drivers.modbus.unit import Unit
from gateway.clock import SystemClock
from gateway.driver import Context
from gateway.port import PortSettings
from gateway.record import Record
from gateway.testing.emit import FakeEmit

WITHIN_S = 10.0


def unit(address: int, registers: dict[str, Register], interval: float = 0.05, **more: Any) -> Unit:
    return Unit(address=address, device=f"unit-{address}", registers=registers, interval=interval, **more)


def serial(path: Path, *units: Unit, answer_timeout: float = 0.1, baud_rate: int = 115_200) -> Config:
    port = PortSettings(port=str(path), baud_rate=baud_rate)
    return Config(serial=port, units=list(units), answer_timeout=answer_timeout)


def bodies(records: list[Record], device: str = "") -> Iterator[dict[str, Any]]:
    for record in records:
        if not device or record.device == device:
            yield json.loads(record.body)


@asynccontextmanager
async def running(config: Config, emit: FakeEmit) -> AsyncIterator["asyncio.Task[None]"]:
    driver = ModbusDriver(config, Context("bus", SystemClock()))
    task = asyncio.create_task(driver.run(emit))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()
