"""`serial`: which ports there are, and what comes on one."""

import asyncio
import json
import os
from typing import Annotated, Any

import typer

from gateway.cli.line import Mode, port_settings
from gateway.cli.options import Json
from gateway.cli.terminal import output, table
from gateway.errors import CommandError, DeviceError
from gateway.port import Port, PortSettings, ports

PAUSE_S = 0.03
"""A longer silence begins a new piece. USB adapters hand over what they have every 16 ms."""

ROW_BYTES = 16
PIECE_BYTES_MAX = 4096

serial = typer.Typer(no_args_is_help=True, help="Serial ports: which there are, and what comes on one.")


@serial.command("ports")
def list_ports(as_json: Json = False) -> None:
    """List serial ports with the names that stay: by-id paths, and what `port` takes for USB adapters."""
    found = ports()
    if as_json:
        print(json.dumps([port._asdict() for port in found]))
        return
    listed = table("port", "by id", "usb", "")
    for port in found:
        listed.add_row(*port)
    output().print(listed if found else "no serial ports")


@serial.command()
def sniff(
    port: Annotated[
        str, typer.Argument(metavar="PORT", help="Device file, or usb:VID:PID or usb:VID:PID:SERIAL.")
    ],
    mode: Mode = None,
    count: Annotated[
        int | None, typer.Option("--count", "-n", min=1, help="End after so many pieces.")
    ] = None,
) -> None:
    """Print what comes, until Ctrl-C: seconds since the start and since the piece before, hex, text.

    A piece is what comes without a pause of 30 ms. Nothing is sent, and no gateway may use the port meanwhile.
    """
    asyncio.run(_sniff(port_settings(port, mode), count))


async def _sniff(settings: PortSettings, count: int | None) -> None:
    pieces: asyncio.Queue[tuple[float, bytes] | DeviceError] = asyncio.Queue()
    gathered = Gathered(pieces)
    try:
        port = Port.open(settings, gathered.received, pieces.put_nowait)
        began = before = asyncio.get_running_loop().time()
        while count is None or count > 0:
            piece = await pieces.get()
            if isinstance(piece, DeviceError):
                raise piece
            at, data = piece
            _show(at - began, at - before, data)
            before = at
            count = None if count is None else count - 1
        port.close()
    except DeviceError as error:
        raise CommandError(str(error), os.EX_UNAVAILABLE) from error


class Gathered:
    """Bytes into pieces, each with the time of its first byte."""

    def __init__(self, pieces: "asyncio.Queue[Any]") -> None:
        self._pieces = pieces
        self._data = bytearray()
        self._began = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def received(self, data: bytes) -> None:
        loop = asyncio.get_running_loop()
        if self._timer is not None:
            self._timer.cancel()
        if not self._data:
            self._began = loop.time()
        self._data += data
        self._timer = loop.call_later(0 if len(self._data) >= PIECE_BYTES_MAX else PAUSE_S, self._end)

    def _end(self) -> None:
        self._pieces.put_nowait((self._began, bytes(self._data)))
        self._data.clear()


def _show(at: float, since: float, data: bytes) -> None:
    for start in range(0, len(data), ROW_BYTES):
        row = data[start : start + ROW_BYTES]
        when = f"{at:10.3f} {f'+{since:.3f}':>9}" if start == 0 else " " * 20
        text = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in row)
        print(f"{when}  {row.hex(' '):{ROW_BYTES * 3}} {text}", flush=True)


def add_to(app: typer.Typer) -> None:
    app.add_typer(serial, name="serial")
