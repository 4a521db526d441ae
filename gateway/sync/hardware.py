"""The board's own identity, by which a card that moved to another board is noticed."""

import os
import re
from pathlib import Path

_SERIAL_NUMBER = Path("/proc/device-tree/serial-number")
_CPUINFO = Path("/proc/cpuinfo")


def hardware_id() -> str | None:
    """The SoC's serial number or balena's device uuid; None on boards that have neither: then no move is noticed."""
    uuid = os.environ.get("BALENA_DEVICE_UUID")
    if uuid:
        return f"balena:{uuid}"
    try:
        serial = _SERIAL_NUMBER.read_text().strip("\0\n ")
    except OSError:
        found = re.search(r"^Serial\s*:\s*([0-9a-f]+)$", _CPUINFO.read_text(), re.MULTILINE)
        serial = found[1] if found else ""
    return f"soc:{serial}" if serial.strip("0") else None
