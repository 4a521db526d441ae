"""The driver on a pseudo-terminal, with a device at its other end."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from drivers.serial import Config
from drivers.serial.driver import SerialDriver
from gateway.clock import SystemClock
from gateway.driver import Context
from gateway.record import Record
from gateway.testing.emit import FakeEmit
from gateway.testing.tty import Device


class Bench:
    def __init__(self, device: Device) -> None:
        self.device = device
        self.emit = FakeEmit()

    async def records(self, count: int) -> list[Record]:
        return await self.emit.stored(count)

    async def values(self, count: int) -> list[dict[str, Any]]:
        return [json.loads(record.body)["values"] for record in await self.records(count)]

    async def counted(self, event: str, at_least: int = 1) -> None:
        await self.emit.until(lambda: self.emit.events[event] >= at_least)

    async def says(self, data: bytes) -> None:
        """The device sends this again and again until the driver listens; it must within 5 s."""
        before = len(self.emit.records)
        async with asyncio.timeout(5):
            while len(self.emit.records) == before:
                self.device.send(data)
                await asyncio.sleep(0.05)


@asynccontextmanager
async def bench(
    folder: Path,
    answers: Callable[[bytes], bytes] = lambda asked: b"",
    plugged: bool = True,
    **settings: Any,
) -> AsyncIterator[Bench]:
    """A driver that listens by the time this begins, if its port is plugged in."""
    device = Device(folder / "port", answers)
    if not plugged:
        device.unplug()
    made = Bench(device)
    config = Config(**{**settings, "port": str(device.path)})
    task = asyncio.create_task(SerialDriver(config, Context("scale", SystemClock())).run(made.emit))
    # It opens its port in its first step.
    await asyncio.sleep(0)
    try:
        yield made
    finally:
        task.cancel()
        await asyncio.wait([task])
        device.unplug()
    if not task.cancelled():
        task.result()
