"""Devices on a serial port that talk by themselves or when asked; frames and fields are described, not programmed."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from gateway.driver import Manifest
from gateway.port import PortSettings
from gateway.settings import Duration, Form, setting

DEVICE = Form(r"[\w.:-]{1,64}", "a name of up to 64 letters, digits, dots, underscores, colons and hyphens")
"""Of a device: what fits between two slashes of a channel and matches no wildcard."""

BCD_BYTES_MAX = 8
HEX_BITS = 64
WRITTEN = ("number", "hex", "text")
"""Types of fields that are written out; the others are binary."""

LINE = "\n"
HEX = "hex:"

ByteOrder = Literal["big", "little"]


@dataclass(frozen=True, kw_only=True)
class Frame:
    start: str = setting("", doc='What a frame begins with, as text or "hex:..".', example='"hex:aa 55"')
    end: str = setting("", doc='What a frame ends with, as text or "hex:..".', example='"hex:03"')
    trailer_bytes: int = setting(
        0, minimum=0, maximum=64, doc="Bytes that follow `end` and belong to the frame, such as a check."
    )
    escape: str = setting(
        "",
        doc="Byte that makes the one behind it content, also where it looks like an end.",
        example='"hex:10"',
    )
    escape_xor: int = setting(
        0, minimum=0, maximum=255, doc="What the byte behind an escape is combined with; 0x20 in HDLC."
    )
    length: int | None = setting(
        None, minimum=1, maximum=8192, doc="Bytes of every frame, where all are equally long."
    )
    length_at: int | None = setting(
        None, minimum=0, maximum=255, doc="Where a frame tells its length: bytes before that field."
    )
    length_type: Literal["u8", "u16", "u32"] = setting("u8", doc="What that field is.")
    length_byte_order: ByteOrder = setting("big", doc="Its byte order.")
    length_adds: int = setting(
        0, minimum=-8192, maximum=8192, doc="Bytes of the whole frame that its length does not count."
    )
    bytes_max: int = setting(
        1024, minimum=1, maximum=8192, doc="Longest frame; more without an end is skipped and counted."
    )


@dataclass(frozen=True, kw_only=True)
class Check:
    kind: Literal["sum", "xor", "crc"] = setting(doc="How it is computed.", example='"crc"')
    width: Literal[8, 16, 24, 32] = setting(8, doc="Bits of it.")
    polynomial: int = setting(0, minimum=0, maximum=0xFFFFFFFF, doc="Of a crc, without its highest term.")
    init: int = setting(0, minimum=0, maximum=0xFFFFFFFF, doc="What it starts from.")
    reflect: bool = setting(False, doc="A crc that takes the lowest bit of each byte first.")
    xor_out: int = setting(
        0, minimum=0, maximum=0xFFFFFFFF, doc="What the result is combined with at the end."
    )
    byte_order: ByteOrder = setting("big", doc="How it stands in the frame.")
    encoding: Literal["binary", "hex"] = setting("binary", doc="hex: as digits, two a byte.")
    at: int = setting(
        minimum=-8192,
        maximum=8192,
        doc="Where it stands; below 0 counts from the end of the frame.",
        example="-2",
    )
    covers_from: int = setting(0, minimum=-8192, maximum=8192, doc="First byte that it covers.")
    covers_to: int | None = setting(
        None,
        minimum=-8192,
        maximum=8192,
        doc="First byte behind those that it covers; its own place by default.",
    )


@dataclass(frozen=True, kw_only=True)
class Field:
    type: Literal[
        "number", "hex", "text", "bcd",
        "u8", "u16", "u24", "u32", "u64", "i8", "i16", "i24", "i32", "i64", "f32", "f64",
    ] = setting("number", doc="number, hex (digits) and text are written out, the others are binary.")  # fmt: skip
    at: int | None = setting(
        None,
        minimum=-8192,
        maximum=8192,
        doc="First byte in the frame, whose first is 0; below 0 counts from the end.",
    )
    length: int | None = setting(None, minimum=1, maximum=8192, doc="Bytes of a text, number, hex or bcd.")
    column: int | None = setting(None, minimum=1, maximum=8192, doc="Which column, the first is 1.")
    byte_order: ByteOrder = setting("big", doc="Of binary types.")
    mask: int | None = setting(
        None, minimum=1, doc="Bits of a whole number that are meant, moved to the right."
    )
    missing: int | None = setting(
        None,
        doc="Raw number, behind the mask, that says there is no value; of a signed number also its bits.",
        example="0x8000",
    )
    scale: float = setting(1.0, doc="Factor of a number.")
    offset: float = setting(0.0, doc="Added to a number after the factor.")
    decimal: Literal[".", ","] = setting(".", doc="Decimal mark of a number that is written out.")
    names: dict[str, str] = setting(
        factory=dict,
        doc="Words for numbers; another number is not taken for a value.",
        example='{ 0 = "off" }',
    )

    @property
    def size(self) -> int:
        """Bytes of a field that stands at a place."""
        return int(self.type[1:]) // 8 if self.length is None else self.length

    @property
    def bits(self) -> int:
        """Of a whole number, before the mask."""
        if self.type == "bcd":
            return int("99" * min(self.length or 1, BCD_BYTES_MAX)).bit_length()
        return min(4 * (self.length or HEX_BITS), HEX_BITS) if self.type == "hex" else int(self.type[1:])

    @property
    def mask_shift(self) -> int:
        return ((self.mask or 1) & -(self.mask or 1)).bit_length() - 1

    @property
    def holds(self) -> range:
        """The whole numbers that can be read, behind the mask."""
        if self.mask is not None:
            return range((self.mask >> self.mask_shift) + 1)
        if self.type == "bcd":
            return range(int("99" * min(self.length or 1, BCD_BYTES_MAX)) + 1)
        half = 1 << self.bits - 1
        return range(-half, half) if self.type.startswith("i") else range(2 * half)

    @property
    def missing_as_read(self) -> int | None:
        """Manuals write a number of fixed size with its sign or as its bits: 0x8000 is -32768 in an i16."""
        if self.missing is None or self.type[0] not in "ui" or self.mask is not None:
            return self.missing
        numbers, lowest = 1 << self.bits, self.holds[0]
        if self.missing not in range(-numbers // 2, numbers):
            return self.missing
        return (self.missing - lowest) % numbers + lowest


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a frame is read. Without fields it is a record as it stands."""

    pattern: str | None = setting(
        None,
        doc="Regular expression that the whole text of a frame matches; its named groups are fields.",
        example="'(?P<weight>[-+ 0-9.]+)kg'",
    )
    separator: str | None = setting(
        None, doc='What stands between columns; " " is any number of blanks.', example='","'
    )
    fields: dict[str, Field] = setting(
        factory=dict, doc="Values by name; without any, the text of a frame is the record.", maximum=256
    )


@dataclass(frozen=True, kw_only=True)
class Kind(Layout):
    code: str = setting(doc='What tells this kind of frame, as text or "hex:..".', example='"hex:31"')
    code_at: int = setting(
        0, minimum=-8192, maximum=8192, doc="Where it stands in the frame; below 0 counts from the end."
    )


@dataclass(frozen=True, kw_only=True)
class Request:
    device: str | None = setting(
        None, form=DEVICE, doc="Name of the device; the request's own by default.", example='"scale-1"'
    )
    send: str = setting(doc='What asks this device, as text or "hex:..".', example='"hex:02 31 03"')
    interval: Duration = setting(1.0, minimum=0.01, doc="Asked once in this time.", example='"1 s"')
    timeout: Duration = setting(1.0, minimum=0.01, doc="Wait so long for the answer.", example='"500 ms"')
    expect: str = setting("", doc='What its answer begins with, as text or "hex:..".', example='"hex:02 31"')


@dataclass(frozen=True, kw_only=True)
class Config(PortSettings, Layout):
    device: str | None = setting(
        None, form=DEVICE, doc="Name of the device; the driver's own by default.", example='"scale-1"'
    )
    device_field: str | None = setting(None, doc="Value that names the device instead.", example='"address"')
    profile: Literal["nmea0183", "p1"] | None = setting(
        None, doc="A protocol that needs no description.", example='"nmea0183"'
    )
    frame: Frame = setting(
        factory=lambda: Frame(end=LINE), doc="How frames are told apart; lines by default."
    )
    check: Check | None = setting(None, doc="What tells a good frame from a broken one.")
    encoding: Literal["ascii", "utf-8", "latin-1"] = setting("utf-8", doc="Of text.")
    kinds: dict[str, Kind] = setting(
        factory=dict, doc="Kinds of frames by name, each read in its own way.", maximum=64
    )
    requests: dict[str, Request] = setting(
        factory=dict, doc="What is asked, by name: that of the device, if there is no other.", maximum=256
    )
    pause_max: Duration = setting(
        1.0,
        minimum=0.01,
        doc="A longer silence inside a frame ends it: it is half a frame. What comes next is whole.",
        example='"1 s"',
    )

    def asked_device(self, request: str) -> str:
        return self.requests[request].device or request


def octets(text: str) -> bytes:
    """The bytes of a setting. Raises ValueError where "hex:" isn't followed by pairs of digits."""
    return bytes.fromhex(text[len(HEX) :]) if text.startswith(HEX) else text.encode()


def channels(config: Config) -> Sequence[str] | None:
    if config.profile == "nmea0183" or config.device_field is not None or config.kinds:
        return None
    if config.requests:
        return list(dict.fromkeys(f"serial/{config.asked_device(name)}" for name in config.requests))
    return None if config.device is None else [f"serial/{config.device}"]


def problems(config: Config) -> Sequence[tuple[str, str]]:
    return [
        *_unreadable(config),
        *(_beside_profile(config) if config.profile else _frame(config)),
        *_check(config.check),
        *_layout("", config, config.frame),
        *_kinds(config),
        *_devices(config),
    ]


def _unreadable(config: Config) -> Iterator[tuple[str, str]]:
    frame = config.frame
    written = {"frame.start": frame.start, "frame.end": frame.end, "frame.escape": frame.escape}
    for name, kind in config.kinds.items():
        written[f"kinds.{name}.code"] = kind.code
    for name, request in config.requests.items():
        written[f"requests.{name}.send"] = request.send
        written[f"requests.{name}.expect"] = request.expect
    for path, text in written.items():
        try:
            length = len(octets(text))
        except ValueError:
            yield path, 'after "hex:" come pairs of hexadecimal digits: "hex:02 41"'
        else:
            if path == "frame.escape" and length > 1:
                yield path, "is one byte"


def _beside_profile(config: Config) -> Iterator[tuple[str, str]]:
    for name, empty in (("frame", Frame(end=LINE)), ("check", None), ("pattern", None), ("separator", None)):
        if getattr(config, name) != empty:
            yield name, f'profile = "{config.profile}" brings its own'
    for name in ("fields", "kinds"):
        if getattr(config, name):
            yield name, f'profile = "{config.profile}" brings its own'


def _frame(config: Config) -> Iterator[tuple[str, str]]:
    frame = config.frame
    ends = [name for name in ("end", "length", "length_at") if getattr(frame, name) not in ("", None)]
    if len(ends) != 1:
        found = " and ".join(ends) or "none"
        yield "frame", f"one of end, length, length_at tells where a frame ends; there is {found}"
    elif not (frame.end or frame.start or config.check or config.requests):
        yield "frame", "without start, a check or requests nothing tells where a frame begins"
    if frame.trailer_bytes and not frame.end:
        yield "frame.trailer_bytes", "counts what follows `end`, and there is none"
    if frame.escape and not frame.end:
        yield "frame.escape", "is for frames with an `end`, and there is none"
    if frame.length is not None and frame.length > frame.bytes_max:
        yield "frame.length", f"is more than bytes_max = {frame.bytes_max}"


def _check(check: Check | None) -> Iterator[tuple[str, str]]:
    if check is None:
        return
    if (check.kind == "crc") != bool(check.polynomial):
        yield "check.polynomial", "a crc has one, and only a crc"
    if check.kind == "xor" and check.width != 8:
        yield "check.width", "an xor of bytes has 8 bits"
    for name in ("polynomial", "init", "xor_out"):
        if getattr(check, name) >> check.width:
            yield f"check.{name}", f"has more than {check.width} bits"


def _kinds(config: Config) -> Iterator[tuple[str, str]]:
    for name, kind in config.kinds.items():
        yield from _layout(f"kinds.{name}.", kind, config.frame)
        if not DEVICE.fits(name):
            yield f"kinds.{name}", "a kind's name has letters, digits and _ . : -"
        if not kind.code:
            yield f"kinds.{name}.code", "is empty: every frame would be of this kind"
    if config.kinds and (config.fields or config.pattern is not None or config.separator is not None):
        yield "kinds", "each kind has its own fields, pattern and separator; there are others beside them"


def _layout(path: str, layout: Layout, frame: Frame) -> Iterator[tuple[str, str]]:
    if layout.separator is not None:
        if layout.pattern is not None:
            yield f"{path}separator", "a frame is read by pattern or by columns, not by both"
        if len(layout.separator) != 1 or layout.separator in '"\r\n':
            yield f"{path}separator", "is one character, and neither a quote nor the end of a line"
    groups: set[str] = set()
    if layout.pattern is not None:
        try:
            groups = set(re.compile(layout.pattern).groupindex)
        except (re.error, OverflowError, RecursionError) as error:
            yield f"{path}pattern", f"is no regular expression: {error}"
            return
    for name in sorted(groups - layout.fields.keys()):
        yield f"{path}fields.{name}", "the pattern has this group, but no field says what it is"
    for name, field in layout.fields.items():
        if layout.pattern is not None and name not in groups:
            yield f"{path}fields.{name}", f"the pattern has no group (?P<{name}>...)"
        in_text = layout.pattern is not None or layout.separator is not None
        for where, message in _in_text(layout, field) if in_text else _in_bytes(field, frame):
            yield f"{path}fields.{name}{where}", message
        for where, message in _raw(field):
            yield f"{path}fields.{name}{where}", message


def _in_text(layout: Layout, field: Field) -> Iterator[tuple[str, str]]:
    if layout.separator is not None and field.column is None:
        yield "", "which column is it?"
    if field.type not in WRITTEN:
        yield ".type", "a pattern or column has a number, hex or text"
    if field.at is not None or field.length is not None:
        yield "", "at and length are for fields in bytes, without pattern and separator"


def _in_bytes(field: Field, frame: Frame) -> Iterator[tuple[str, str]]:
    if field.at is None:
        yield "", "at which byte does it stand? (or set pattern or separator)"
    if (field.length is None) == (field.type in (*WRITTEN, "bcd")):
        yield ".length", "a number, hex, text or bcd in bytes needs a length, the other types have one"
    elif field.at is not None:
        longest = frame.length or frame.bytes_max
        first, behind = (field.at, longest) if field.at >= 0 else (field.at + longest, 0)
        if first < 0 or field.at + field.size > behind:
            size = f"{longest} bytes" if frame.length else f"at most {longest} bytes"
            yield ".at", f"{field.size} bytes from {field.at} on are not in a frame, which has {size}"
    if field.type == "bcd" and (field.length or 0) > BCD_BYTES_MAX:
        yield ".length", f"a bcd has at most {BCD_BYTES_MAX} bytes"


def _raw(field: Field) -> Iterator[tuple[str, str]]:
    """A `missing` that no number equals would let the one that means it pass as a value."""
    whole = field.type not in ("number", "text", "f32", "f64")
    if field.mask is not None and not whole:
        yield ".mask", f"a {field.type} has no bits to choose from"
    elif (field.mask or 0) >> (field.bits if whole else 0):
        yield ".mask", f"{field.mask:#x} has bits beyond the {field.bits} of the field"
    yield from _named(field, whole)
    if field.missing is None:
        return
    if field.type == "text":
        yield ".missing", "is for numbers, not text"
    elif whole and field.missing_as_read not in field.holds:
        masked = "" if field.mask is None else f" behind mask {field.mask:#x}"
        lowest, highest = field.holds[0], field.holds[-1]
        yield ".missing", f"{field.missing} never comes: a {field.type}{masked} is {lowest} to {highest}"
    elif field.type == "number" and field.length and len(str(field.missing).rstrip("0")) > field.length:
        yield ".missing", f"{field.missing} never comes: it has more than {field.length} characters"


def _named(field: Field, whole: bool) -> Iterator[tuple[str, str]]:
    if not field.names:
        return
    if not whole and field.type != "number":
        yield ".names", f"are for whole numbers, not {field.type}"
    if (field.scale, field.offset) != (1.0, 0.0):
        yield ".scale", "and offset are for numbers without names"
    for code in field.names:
        if not re.fullmatch(r"-?(0|[1-9][0-9]{0,19})", code):
            yield ".names", f"{code} must be a whole number"
        elif whole and int(code) not in field.holds:
            yield ".names", f"{code} never comes: a {field.type} is {field.holds[0]} to {field.holds[-1]}"


def _devices(config: Config) -> Iterator[tuple[str, str]]:
    if config.device is not None and config.requests:
        yield "device", "the names of requests are the devices, or their `device`"
    if config.device_field is not None:
        if config.device is not None or config.requests:
            yield "device_field", "the device has a name already, by device or requests"
        layouts: Sequence[Layout] = list(config.kinds.values()) or [config]
        if not config.profile and not all(config.device_field in layout.fields for layout in layouts):
            yield "device_field", f"not every frame has a field {config.device_field!r}"
    for name in config.requests:
        if not DEVICE.fits(name):
            yield f"requests.{name}", "a request's name has letters, digits and _ . : -"


USUAL_BAUD_RATE = {"nmea0183": (4800, 38_400), "p1": (115_200,)}


def notes(config: Config) -> Sequence[str]:
    usual = USUAL_BAUD_RATE.get(config.profile or "", ())
    if usual and config.baud_rate not in usual:
        rates = " or ".join(str(rate) for rate in usual)
        return [f"profile {config.profile}: most devices speak at {rates} baud, not {config.baud_rate}"]
    return []


DRIVER = Manifest(
    name="serial",
    summary="Devices on a serial port: lines, CSV, binary frames described in TOML, NMEA 0183, P1 meters",
    config=Config,
    factory="drivers.serial.driver:SerialDriver",
    channels=channels,
    problems=problems,
    notes=notes,
)
