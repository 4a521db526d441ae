"""The telegram of a smart meter's P1 port.

Source: P1 Companion Standard, Dutch Smart Meter Requirements 5.0.2 (2016). Belgian and Luxembourgish meters speak it too. Telegrams
before DSMR 4 have no check and are not taken.
"""

import re

from drivers.serial import Check, Frame
from drivers.serial.fields import EMPTY, Reading, Undescribed, Unreadable, number
from drivers.serial.profiles import Profile
from gateway.record import Value

NAMES = {
    "1-3:0.2.8": "version",
    "0-0:96.1.4": "version",
    "0-0:1.0.0": "meter_time",
    "0-0:96.1.1": "equipment",
    "0-0:96.14.0": "tariff",
    "1-0:1.8.1": "energy_taken_tariff1",
    "1-0:1.8.2": "energy_taken_tariff2",
    "1-0:2.8.1": "energy_given_tariff1",
    "1-0:2.8.2": "energy_given_tariff2",
    "1-0:1.7.0": "power_taken",
    "1-0:2.7.0": "power_given",
    "1-0:21.7.0": "power_taken_l1",
    "1-0:41.7.0": "power_taken_l2",
    "1-0:61.7.0": "power_taken_l3",
    "1-0:22.7.0": "power_given_l1",
    "1-0:42.7.0": "power_given_l2",
    "1-0:62.7.0": "power_given_l3",
    "1-0:32.7.0": "voltage_l1",
    "1-0:52.7.0": "voltage_l2",
    "1-0:72.7.0": "voltage_l3",
    "1-0:31.7.0": "current_l1",
    "1-0:51.7.0": "current_l2",
    "1-0:71.7.0": "current_l3",
    "0-0:96.7.21": "power_failures",
    "0-0:96.7.9": "long_power_failures",
    "1-0:32.32.0": "voltage_sags_l1",
    "1-0:52.32.0": "voltage_sags_l2",
    "1-0:72.32.0": "voltage_sags_l3",
    "1-0:32.36.0": "voltage_swells_l1",
    "1-0:52.36.0": "voltage_swells_l2",
    "1-0:72.36.0": "voltage_swells_l3",
    "0-0:96.13.0": "message",
}
"""What a code means; any other one keeps its code as its name."""

CHANNEL = re.compile(r"0-([1-4]):(24\.1\.0|96\.1\.0|96\.1\.1|24\.2\.1|24\.2\.3)")
CHANNEL_NAMES = {
    "24.1.0": "type",
    "96.1.0": "equipment",
    "96.1.1": "equipment",
    "24.2.1": "reading",
    "24.2.3": "reading",
}
"""Of the meters behind this one (gas, water, heat), by M-Bus channel: mbus1_reading_m3."""

COUNTS = ("tariff", "power_failures", "long_power_failures", "voltage_sags", "voltage_swells", "type")
OCTETS = ("equipment", "message")
LINE = re.compile(r"(\d{1,3}-\d{1,3}:\d{1,3}\.\d{1,3}\.\d{1,3})((?:\([^()]*\))+)", re.ASCII)
TIME = re.compile(r"(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)([SW])", re.ASCII)
ZONES = {"S": "+02:00", "W": "+01:00"}


def read(content: str) -> tuple[str, Reading]:
    identification, _, rest = content.partition("\r\n")
    found = Reading({"identification": identification}, {})
    for line in rest.split("\r\n"):
        if not line:
            continue
        match = LINE.fullmatch(line)
        if match is None:
            raise Undescribed("telegrams with a line that is no OBIS code and value")
        code, groups = match[1], match[2][1:-1].split(")(")
        channel = CHANNEL.fullmatch(code)
        if channel is not None:
            _take(found, f"mbus{channel[1]}_{CHANNEL_NAMES[channel[2]]}", groups)
        else:
            _take(found, NAMES.get(code, code), groups)
    return "", found


def _take(found: Reading, name: str, groups: list[str]) -> None:
    """One line into the reading. A group that is a time before a value is when the value was taken."""
    if len(groups) == 2 and TIME.fullmatch(groups[0]):
        found.values[f"{name}_time"] = _time(groups.pop(0))
    if len(groups) > 1:
        found.values[name] = f"({')('.join(groups)})"
        return
    written, star, unit = groups[0].partition("*")
    if star:
        name = f"{name}_{unit}"
    try:
        found.values[name] = number(written) if star else _plain(name, written)
    except Unreadable as reason:
        found.quality[name] = str(reason)


def _plain(name: str, written: str) -> Value:
    """Raises Unreadable."""
    if not written:
        raise Unreadable(EMPTY)
    if name.endswith("_time"):
        return _time(written)
    if any(word in name for word in COUNTS):
        return number(written)
    if any(word in name for word in OCTETS):
        try:
            return bytes.fromhex(written).decode("ascii")
        except ValueError as error:
            raise Unreadable("not text in hexadecimal") from error
    return written


def _time(written: str) -> str:
    """YYMMDDhhmmss and S (summer) or W (winter) as ISO 8601. Raises Unreadable."""
    match = TIME.fullmatch(written)
    if match is None:
        raise Unreadable("not a time")
    year, month, day, hour, minute, second, season = match.groups()
    return f"20{year}-{month}-{day}T{hour}:{minute}:{second}{ZONES[season]}"


PROFILE = Profile(
    Frame(start="/", end="!", trailer_bytes=4, bytes_max=8192),
    Check(
        kind="crc",
        width=16,
        polynomial=0x8005,
        reflect=True,
        encoding="hex",
        at=-4,
    ),
    read,
)
