"""How a command says what a serial line is: 9600-8N1."""

import os
import re
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from gateway.errors import CommandError

if TYPE_CHECKING:
    from gateway.port import PortSettings

USUAL = "9600-8N1"
Mode = Annotated[
    str | None, typer.Option("--mode", metavar="BAUD-8E1", help="Of a serial port.", show_default=USUAL)
]
PARITIES: dict[str, Literal["none", "even", "odd"]] = {"N": "none", "E": "even", "O": "odd"}


def port_settings(port: str, mode: str | None) -> "PortSettings":
    """Raises CommandError."""
    from gateway.port import PortSettings

    parts = re.fullmatch(r"([1-9][0-9]{1,6})-([78])([NEO])([12])", mode or USUAL)
    if parts is None:
        raise CommandError(f"--mode {mode!r} is not like 19200-8E1", os.EX_USAGE)
    return PortSettings(
        port=port,
        baud_rate=int(parts[1]),
        data_bits=8 if parts[2] == "8" else 7,
        parity=PARITIES[parts[3]],
        stop_bits=1 if parts[4] == "1" else 2,
    )
