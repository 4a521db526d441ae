"""`try`: one driver runs here, without a queue, and its records are printed."""

import asyncio
import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated

import typer

from gateway.cli.location import configured
from gateway.cli.options import Configuration, Json, driver_of
from gateway.cli.tail import shown
from gateway.clock import SystemClock
from gateway.config import DriverConfig, LogSettings
from gateway.control.tail import seen_to_json
from gateway.driver import Context, Mark, MarkKey
from gateway.errors import CommandError, DeviceError, Refused
from gateway.printable import printable
from gateway.record import Record
from gateway.runtime.logs import configure
from gateway.runtime.tap import Seen


class TrialEmit:
    """gateway.driver.Emit that prints. A device that waits is refused: nothing here is stored."""

    def __init__(self, driver: str, as_json: bool, enough: int | None) -> None:
        self._driver = driver
        self._as_json = as_json
        self._left = enough
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def __call__(
        self,
        records: Sequence[Record],
        *,
        remember: Sequence[Mark] = (),
        forget: Sequence[MarkKey] = (),
        waits: bool = True,
    ) -> asyncio.Future[None]:
        for record in records[: self._left]:
            line = seen_to_json(Seen(self._driver, record, 0))
            print(json.dumps(line) if self._as_json else shown(line), flush=True)
        if self._left is not None:
            self._left -= min(self._left, len(records))
            if not self._left and not self.done.done():
                self.done.set_result(None)
        if records and waits:
            raise Refused("only tried, not stored")
        stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        stored.set_result(None)
        return stored

    def recall(self, scope: str) -> Mapping[bytes, bytes]:
        return {}

    def accepted(self, count: int) -> None:
        pass

    def device_failed(self, device: str, reason: str) -> None:
        if reason != "only tried, not stored":
            print(printable(f"{device} failed: {reason}"), file=sys.stderr, flush=True)

    def count(self, event: str, amount: int = 1) -> None:
        print(f"counted: {event}" + (f" {amount}" if amount > 1 else ""), file=sys.stderr, flush=True)


def trial(
    driver: Annotated[str, typer.Argument(metavar="DRIVER", help="Its name in the configuration.")],
    config: Configuration = None,
    as_json: Json = False,
    count: Annotated[
        int | None, typer.Option("--count", "-n", min=1, help="End after so many records.")
    ] = None,
) -> None:
    """Run one driver and print its records, stored nowhere. Devices that wait for an acknowledgement get none."""
    found = driver_of(configured(config), driver)
    configure(LogSettings(level="warning"))
    asyncio.run(_try(found, as_json, count))


async def _try(found: DriverConfig, as_json: bool, count: int | None) -> None:
    emit = TrialEmit(found.name, as_json, count)
    driver = found.manifest.load()(found.settings, Context(found.name, SystemClock()))
    task = asyncio.create_task(driver.run(emit))
    await asyncio.wait([task, emit.done], return_when=asyncio.FIRST_COMPLETED)
    if not task.done():
        task.cancel()
        await asyncio.wait([task])
    elif emit.done.cancel():
        try:
            task.result()
        except DeviceError as error:
            raise CommandError(f"{found.name}: {error}", os.EX_UNAVAILABLE) from error


def add_to(app: typer.Typer) -> None:
    app.command("try")(trial)
