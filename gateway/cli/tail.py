"""`tail`: records as they are accepted."""

import json
import os
import sys
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from gateway.cli import words
from gateway.cli.options import Configuration, Json, live
from gateway.control.wire import bytes_from_json
from gateway.errors import CommandError
from gateway.printable import printable


def tail(
    driver: Annotated[
        str | None, typer.Argument(metavar="[DRIVER]", help="Only this driver's records.")
    ] = None,
    device: Annotated[str | None, typer.Option("--device", help="Only this device's records.")] = None,
    config: Configuration = None,
    as_json: Json = False,
) -> None:
    """Show records as devices are told that they are accepted, until Ctrl-C."""
    gateway = live(config)
    if driver is not None and driver not in (drivers := gateway.status().drivers):
        known = ", ".join(drivers) or "none"
        raise CommandError(f"the gateway that runs has no driver {driver!r}; there are: {known}", os.EX_USAGE)
    for line in gateway.tail(driver, device, _begun):
        lost = line.get("lost")
        if lost:
            print(f"({words.count(lost)} records not shown: this reader was too slow)", file=sys.stderr)
        print(json.dumps(line) if as_json else shown(line), flush=True)


def _begun() -> None:
    print("waiting for records", file=sys.stderr, flush=True)


def shown(line: Mapping[str, Any]) -> str:
    origin = " ".join(printable(str(line[name])) for name in ("driver", "device", "channel"))
    return f"{words.clock(line['time_ms'])} {origin} {words.content(bytes_from_json('body', line))}"


def add_to(app: typer.Typer) -> None:
    app.command()(tail)
