"""NMEA 0183 sentences: $, talker and formatter, fields between commas, * and the xor of what stands between.

Source: NMEA 0183, as gpsd's "NMEA Revealed" describes it. A sentence without a check is not taken. What the sender says is not valid (status V,
fix 0) is named in `quality`.
"""

from collections.abc import Sequence

from drivers.serial import Check, Frame
from drivers.serial.fields import EMPTY, Reading, Undescribed, Unreadable, number
from drivers.serial.profiles import Profile
from gateway.record import Value

NUMBER, TEXT, TIME, LATITUDE, LONGITUDE, SIGNED = "number", "text", "time", "latitude", "longitude", "signed"
"""How a field is read. Latitude, longitude and signed numbers take two: the letter after them is their sign."""

SENTENCES: dict[str, Sequence[tuple[str, str] | None]] = {
    "DBT": (None, None, ("depth_m", NUMBER)),
    "DPT": (("depth_m", NUMBER), ("transducer_offset_m", NUMBER)),
    "GGA": (
        ("time", TIME),
        ("latitude", LATITUDE),
        ("longitude", LONGITUDE),
        ("fix", NUMBER),
        ("satellites", NUMBER),
        ("hdop", NUMBER),
        ("altitude_m", NUMBER),
        None,
        ("geoid_separation_m", NUMBER),
    ),
    "GLL": (("latitude", LATITUDE), ("longitude", LONGITUDE), ("time", TIME), ("status", TEXT)),
    "HDT": (("heading_true", NUMBER),),
    "MTW": (("water_temperature_c", NUMBER),),
    "MWV": (
        ("wind_angle", NUMBER),
        ("wind_reference", TEXT),
        ("wind_speed", NUMBER),
        ("wind_unit", TEXT),
        ("status", TEXT),
    ),
    "RMC": (
        ("time", TIME),
        ("status", TEXT),
        ("latitude", LATITUDE),
        ("longitude", LONGITUDE),
        ("speed_knots", NUMBER),
        ("course_true", NUMBER),
        ("date", TEXT),
        ("variation", SIGNED),
    ),
    "ROT": (("turn_rate", NUMBER), ("status", TEXT)),
    "VHW": (
        ("heading_true", NUMBER),
        None,
        ("heading_magnetic", NUMBER),
        None,
        ("water_speed_knots", NUMBER),
    ),
    "VTG": (("course_true", NUMBER), None, ("course_magnetic", NUMBER), None, ("speed_knots", NUMBER)),
    "ZDA": (("time", TIME), ("day", NUMBER), ("month", NUMBER), ("year", NUMBER)),
}
"""Fields by formatter, in order; None is a unit or a value that another one repeats."""

NOT_VALID = "not valid"
ALWAYS_VALID = ("talker", "time", "date", "status", "fix", "satellites")
PAIRS = (LATITUDE, LONGITUDE, SIGNED)
ADDRESS_MAX = 16


def read(content: str) -> tuple[str, Reading]:
    address, *fields = content.split(",")
    if not (address.isalnum() and 3 <= len(address) <= ADDRESS_MAX):
        raise Undescribed("sentences without an address")
    if address.startswith("P"):
        return address, Reading({"fields": ",".join(fields)}, {})
    talker, formatter = address[:-3], address[-3:]
    found = Reading({"talker": talker}, {})
    described = SENTENCES.get(formatter)
    if described is None:
        found.values["fields"] = ",".join(fields)
        return formatter, found
    rest = iter(fields)
    for field in described:
        if field is None:
            next(rest, "")
            continue
        name, kind = field
        written = next(rest, "")
        sign = next(rest, "") if kind in PAIRS else ""
        try:
            found.values[name] = _value(kind, written, sign)
        except Unreadable as reason:
            found.quality[name] = str(reason)
    if found.values.get("status") == "V" or found.values.get("fix") == 0:
        for name in found.values.keys() - ALWAYS_VALID:
            del found.values[name]
            found.quality[name] = NOT_VALID
    return formatter, found


def _value(kind: str, written: str, sign: str) -> Value:
    """Raises Unreadable."""
    match kind:
        case "text":
            if not written:
                raise Unreadable(EMPTY)
            return written
        case "time":
            return _time(written)
        case "latitude":
            return _degrees(written, sign, 2, "NS", 90)
        case "longitude":
            return _degrees(written, sign, 3, "EW", 180)
        case "signed":
            return number(written) * _sign(sign, "EW")
    return number(written)


def _time(written: str) -> str:
    """hhmmss.ss as hh:mm:ss.ss, UTC."""
    if not written:
        raise Unreadable(EMPTY)
    if not (written[:6].isdecimal() and len(written) >= 6 and number(written) < 240_000):
        raise Unreadable("not a time")
    return f"{written[:2]}:{written[2:4]}:{written[4:]}"


def _degrees(written: str, sign: str, digits: int, letters: str, limit: int) -> float:
    """Degrees and minutes without a mark between them, ddmm.mmm, as degrees."""
    minutes = number(written[digits:])
    degrees = number(written[:digits]) + minutes / 60
    if not 0 <= minutes < 60 or degrees > limit:
        raise Unreadable("not an angle")
    return round(degrees * _sign(sign, letters), 8)


def _sign(letter: str, letters: str) -> int:
    if letter not in letters or not letter:
        raise Unreadable("without a direction")
    return -1 if letter == letters[1] else 1


PROFILE = Profile(
    # The line's end is not looked at: the check behind the star says all.
    Frame(start="$", end="*", trailer_bytes=2, bytes_max=256),
    Check(kind="xor", encoding="hex", at=-2, covers_from=1, covers_to=-3),
    read,
)
