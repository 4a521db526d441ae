"""Any bytes into any description: values that JSON has, or a reason; and the profiles on their own."""

import json
import re
import tempfile
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import drivers.serial
from drivers.serial import Config, Field, Frame, Kind, channels, notes, problems
from drivers.serial.expression import FRAMES_LEFT_OUT
from drivers.serial.fields import Unreadable, number
from drivers.serial.framing import WRONG_CHECK
from drivers.serial.protocol import Decoder, Message
from gateway.errors import ConfigError
from gateway.record import reading
from tests.serial.test_cases import CASES, configured, wire

LINES = Frame(end="\n")
BINARY = {
    "text": Field(type="text", at=0, length=3),
    "number": Field(type="number", at=-4, length=3, scale=1e300),
    "hex": Field(type="hex", at=1, length=2),
    "bcd": Field(type="bcd", at=-9, length=8),
    "u64": Field(type="u64", at=2),
    "i24": Field(type="i24", at=4, byte_order="little", mask=0xFF0),
    "f32": Field(type="f32", at=1, scale=1e38, offset=-1.0),
    "f64": Field(type="f64", at=1, byte_order="little", scale=1e300),
}
COLUMNS = {
    "a": Field(column=1, decimal=","),
    "b": Field(column=2, type="hex", missing=0),
    "c": Field(column=3, type="text"),
}


def sent(messages: list[Message]) -> list[dict[str, object]]:
    """As the driver writes them."""
    return [json.loads(reading("x", 0, *message.reading)) for message in messages if message.reading]


@pytest.mark.parametrize(
    "config",
    [
        Config(port="/dev/x", frame=LINES, fields=BINARY, encoding="ascii"),
        Config(port="/dev/x", frame=LINES, fields=COLUMNS, separator=","),
        Config(port="/dev/x", frame=LINES, fields=COLUMNS, separator=" ", encoding="latin-1"),
        Config(port="/dev/x", frame=LINES, kinds={"k": Kind(code="hex:00", code_at=-2, fields=BINARY)}),
        Config(
            port="/dev/x", frame=LINES, pattern="(?P<a>[^,]*),(?P<b>.)?", fields={"a": Field(), "b": Field()}
        ),
    ],
    ids=["places", "columns", "blanks", "kinds", "pattern"],
)
@settings(max_examples=30)
@given(content=st.lists(st.binary(max_size=30) | st.from_regex(rb"[-+0-9.,eE \"]{0,30}", fullmatch=True)))
def test_every_field_has_a_value_or_a_reason(config: Config, content: list[bytes]) -> None:
    layout = config.kinds.get("k", config)
    for body in sent(Decoder(config).feed(b"\n" + b"\n".join(content) + b"\n")):
        values, quality = body["values"], body["quality"]
        assert isinstance(values, dict)
        assert isinstance(quality, dict)
        assert values.keys() | quality.keys() == layout.fields.keys()
        assert not values.keys() & quality.keys()


@cache
def configured_once(case: Path) -> Config:
    with tempfile.TemporaryDirectory() as folder:
        return configured((case / "config.toml").read_text(), Path(folder))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@settings(derandomize=True, max_examples=30)
@given(data=st.data())
def test_damage_makes_no_record_that_was_not_sent(case: Path, data: st.DataObject) -> None:
    config = configured_once(case)
    stream = bytearray(wire(case))
    sound = {message.content for message in Decoder(config).feed(bytes(stream))}
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(stream) - 1))
        how = data.draw(st.sampled_from(["drop", "insert", "change"]))
        byte = data.draw(st.integers(0, 255))
        stream[at : at + (how != "insert")] = b"" if how == "drop" else bytes([byte])
    decoder = Decoder(config)
    found = [*decoder.feed(bytes(stream)), *decoder.pause()]
    sent(found)
    # A check of 8 bits lets one of 256 pass, whatever a program does.
    if case.name in ("p1", "length-crc"):
        assert {message.content for message in found} <= sound


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("12", 12),
        ("+ 0012.50 ", 12.5),
        ("-  .5", -0.5),
        ("1e3", 1000.0),
        ("000000000000012", 12),
        ("12345678901234567890", 1.2345678901234567e19),
    ],
)
def test_a_number_as_devices_write_it(written: str, value: float) -> None:
    assert number(written) == value
    assert type(number(written)) is type(value)


@pytest.mark.parametrize(
    "written",
    [
        "",
        " ",
        "-",
        "1 2",
        "1_0",
        "nan",
        "inf",
        "1e999",
        "0x10",
        "12.5.0",
        "7.",
        "7.e1",
        "7\0",
        "\u0661",
        "1" * 40,
    ],
)
def test_what_is_no_number(written: str) -> None:
    with pytest.raises(Unreadable):
        number(written)


@pytest.mark.parametrize(
    ("field", "sent_as"),
    [
        (Field(type="i16", at=0, missing=0x8000, scale=0.1), "8000"),
        (Field(type="i16", at=0, missing=-32768, scale=0.1), "8000"),
        (Field(type="i32", at=0, missing=0xFFFFFFFF), "ffffffff"),
        (Field(type="i16", at=0, missing=0x7FFF), "7fff"),
        (Field(type="u64", at=0, missing=-1), "ff" * 8),
        (Field(type="i16", at=0, mask=0xFFF, missing=0xFFF), "ffff"),
        (Field(type="f32", at=0, missing=16_777_217), "4b800000"),
        (Field(type="f64", at=0, missing=-9999, scale=0.1), "c0c3878000000000"),
        (Field(type="number", at=0, length=20, missing=9_999_999_999_999_999), b"9999999999999999.000".hex()),
    ],
)
def test_the_number_that_means_no_value_is_none(field: Field, sent_as: str) -> None:
    config = Config(port="/dev/x", frame=LINES, fields={"level": field})
    assert problems(config) == []
    [body] = sent(Decoder(config).feed(b"\n" + bytes.fromhex(sent_as) + b"\n"))
    assert (body["values"], body["quality"]) == ({}, {"level": "missing"})


def test_numbers_that_have_names(tmp_path: Path) -> None:
    lines = """
separator = ","
fields.state = { column = 1, names = { 0 = "off", 1 = "heating" } }
fields.level = { column = 2, type = "hex", mask = 0xf0, names = { 2 = "high", 15 = "unknown" } }
"""
    decoder = Decoder(configured(BASE + lines, tmp_path))
    first, second, third = sent(decoder.feed(b"\n1,2f\n0,f0\n7.5,10\n"))
    assert first["values"] == {"state": "heating", "level": "high"}
    assert second["values"] == {"state": "off", "level": "unknown"}
    assert third["values"] == {}
    assert third["quality"] == {"state": "7.5 has no name", "level": "1 has no name"}


@pytest.mark.parametrize(
    ("decimal", "written", "value"),
    [
        (",", "1,5", 1.5),
        (",", "-1234", -1234),
        (",", "1.234", None),
        (",", "1.234,5", None),
        (".", "1,234", None),
        (".", "1,234.5", None),
    ],
)
def test_the_other_decimal_mark_makes_no_number(decimal: str, written: str, value: float | None) -> None:
    fields = {"weight": Field(decimal=decimal)}  # type: ignore[arg-type]
    config = Config(port="/dev/x", frame=LINES, pattern="W(?P<weight>.+)", fields=fields)
    [body] = sent(Decoder(config).feed(f"\nW{written}\n".encode()))
    assert body["values"] == ({} if value is None else {"weight": value})
    assert body["quality"] == ({"weight": "not a number"} if value is None else {})


def test_a_digit_whose_parity_was_wrong_makes_no_smaller_number() -> None:
    fields = {
        "weight": Field(at=0, length=4),
        "code": Field(type="hex", at=4, length=2),
        "unit": Field(type="text", at=6, length=4),
    }
    decoder = Decoder(Config(port="/dev/x", frame=LINES, fields=fields))
    whole, broken = sent(decoder.feed(b"\n12571fkg\0\0\n125\x001\0kg\0\0\n"))
    assert whole["values"] == {"weight": 1257, "code": 0x1F, "unit": "kg"}
    assert broken["values"] == {"unit": "kg"}
    assert broken["quality"] == {"weight": "not a number", "code": "not hexadecimal"}


def nmea(body: str) -> bytes:
    check = 0
    for byte in body.encode():
        check ^= byte
    return f"${body}*{check:02x}\r\n".encode()


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("GPGLL,5230.5,N,01322.2,,101530,A", {"longitude": "without a direction"}),
        ("GPGLL,5260.0,N,01322.2,E,101530,A", {"latitude": "not an angle"}),
        ("GPGLL,9130.0,N,01322.2,E,101530,A", {"latitude": "not an angle"}),
        ("GPGLL,5230.5,N,01322.2,E,1015,A", {"time": "not a time"}),
        ("GPGLL,5230.5,N,01322.2,E,251530,A", {"time": "not a time"}),
        ("GPGLL,5230.5,N,01322.2,E,101530,V", {"latitude": "not valid", "longitude": "not valid"}),
        ("GPGLL,5230.5,N", {"longitude": "empty", "time": "empty", "status": "empty"}),
    ],
)
def test_a_sentence_with_a_field_that_is_none(body: str, reason: dict[str, str]) -> None:
    (message,) = Decoder(Config(port="/dev/x", profile="nmea0183")).feed(nmea(body))
    assert message.reading is not None
    assert message.reading.quality == reason
    assert not message.reading.values.keys() & reason.keys()


def test_a_sentence_without_its_check_is_none() -> None:
    decoder = Decoder(Config(port="/dev/x", profile="nmea0183"))
    assert decoder.feed(b"$GPHDT,1.0,T\r\n" + nmea("GPHDT,271.4,T"))[0].content == b"GPHDT,271.4,T"
    assert decoder.events[WRONG_CHECK] == 1
    assert decoder.feed(nmea("?,1")) == []
    assert decoder.events["sentences without an address"] == 1


@pytest.mark.fault("input", "a frame for which a pattern backtracks without end")
@pytest.mark.parametrize("pattern", ["(?P<a>(x+x+)+y|ok)", "(?P<a>(x|x)*y|ok)", "(?P<a>x*x*x*x*x*x*y|ok)"])
def test_a_pattern_that_backtracks_without_end_costs_a_frame(pattern: str) -> None:
    decoder = Decoder(Config(port="/dev/x", frame=LINES, pattern=pattern, fields={"a": Field(type="text")}))
    assert len(decoder.feed(b"\nok\n")) == 1
    assert decoder.feed(b"x" * 500 + b"\n") == []
    assert decoder.events["frames that the pattern takes too long for"] == 1
    for _ in range(FRAMES_LEFT_OUT):
        assert decoder.feed(b"ok\n") == []
    assert len(decoder.feed(b"ok\n")) == 1


BASE = """
[drivers.bench]
type = "serial"
port = "/dev/ttyUSB0"
"""
MISTAKES = [
    ('port = "ttyUSB0"', "port"),
    ('frame.start = "hex:0"', 'frame.start: after "hex:" come pairs'),
    ('frame.start = "$"', "frame: one of end, length, length_at"),
    ('frame = { end = "x", length = 3 }', "there is end and length"),
    ("frame.length = 3", "nothing tells where a frame begins"),
    ('frame = { length = 3, start = "a", trailer_bytes = 1 }', "frame.trailer_bytes"),
    ('frame = { length = 3, start = "a", bytes_max = 2 }', "frame.length"),
    ('frame = { length = 3, start = "a", escape = "x" }', "frame.escape"),
    ('frame = { end = "b", escape = "hex:10 10" }', "frame.escape: is one byte"),
    ('check = { kind = "crc", at = -1 }', "check.polynomial"),
    ('check = { kind = "sum", at = -1, polynomial = 7 }', "check.polynomial"),
    ('check = { kind = "xor", width = 16, at = -1 }', "check.width"),
    ('check = { kind = "crc", at = -1, polynomial = 0x1021 }', "has more than 8 bits"),
    ("pattern = '(?P<a>x'", "pattern: is no regular expression"),
    ("pattern = 'x{99999999999}'", "pattern: is no regular expression"),
    ("pattern = '" + "(" * 5000 + "'", "pattern: is no regular expression"),
    ("pattern = '(?P<a>x)'", "fields.a: the pattern has this group"),
    ("pattern = 'x'\nfields.a = {}", r"fields.a: the pattern has no group (?P<a>...)"),
    ("pattern = 'x'\nseparator = ','", "not by both"),
    ('separator = ", "', "is one character"),
    ("separator = '\"'", "neither a quote"),
    ('separator = ","\nfields.a = {}', "which column"),
    ('separator = ","\nfields.a = { column = 1, at = 1 }', "fields.a: at and length"),
    ('separator = ","\nfields.a = { column = 1, type = "u8" }', "fields.a.type"),
    ("fields.a = {}", "at which byte"),
    ("fields.a = { at = 1 }", "fields.a.length"),
    ('fields.a = { at = 1, type = "u16", length = 2 }', "fields.a.length"),
    ('fields.a = { at = 1, type = "bcd", length = 9 }', "at most 8 bytes"),
    ('fields.a = { at = 1, type = "f32", mask = 1 }', "fields.a.mask"),
    ('fields.a = { at = 1, type = "u8", mask = 0x100 }', "fields.a.mask: 0x100 has bits beyond the 8"),
    ('fields.a = { at = 1, type = "bcd", length = 1, mask = 0x80 }', "fields.a.mask: 0x80 has bits beyond"),
    (
        'fields.a = { at = 1, type = "u16", missing = 0x10000 }',
        "fields.a.missing: 65536 never comes: a u16 is 0 to 65535",
    ),
    ('fields.a = { at = 1, type = "u16", missing = -32769 }', "-32769 never comes: a u16 is 0 to 65535"),
    ('fields.a = { at = 1, type = "i16", missing = 0x10000 }', "never comes: a i16 is -32768 to 32767"),
    (
        'fields.a = { at = 1, type = "u16", mask = 0xff0, missing = 0x100 }',
        "a u16 behind mask 0xff0 is 0 to 255",
    ),
    ('fields.a = { at = 1, type = "bcd", length = 1, missing = 0xff }', "never comes: a bcd is 0 to 99"),
    ('fields.a = { at = 1, type = "hex", length = 2, missing = 256 }', "never comes: a hex is 0 to 255"),
    ("fields.a = { at = 1, length = 4, missing = 99999 }", "never comes: it has more than 4 characters"),
    ('fields.a = { at = 1, type = "text", length = 4, missing = 0 }', "fields.a.missing: is for numbers"),
    ('fields.a = { at = 1, type = "f32", names = { 0 = "off" } }', "fields.a.names: are for whole numbers"),
    ('fields.a = { at = 1, type = "u8", names = { on = "1" } }', "fields.a.names: on must be a whole number"),
    (
        'fields.a = { at = 1, type = "u8", names = { 256 = "on" } }',
        "names: 256 never comes: a u8 is 0 to 255",
    ),
    (
        'fields.a = { at = 1, type = "u8", scale = 2.0, names = { 0 = "off" } }',
        "fields.a.scale: and offset are",
    ),
    (
        'frame.length = 4\ncheck = { kind = "sum", at = -1 }\nfields.a = { at = 3, type = "u16" }',
        "fields.a.at: 2 bytes from 3 on are not in a frame, which has 4 bytes",
    ),
    (
        'frame = { end = "x", bytes_max = 8 }\nfields.a = { at = 7, type = "u16" }',
        "which has at most 8 bytes",
    ),
    ('fields.a = { at = -1, type = "u16" }', "fields.a.at: 2 bytes from -1 on are not in a frame"),
    ('frame = { start = "x", length = 4 }\nfields.a = { at = -5, type = "u32" }', "4 bytes from -5 on"),
    ('device_field = "a"', "not every frame has a field 'a'"),
    ('device_field = "a"\ndevice = "b"\nfields.a = { at = 1, type = "u8" }', "has a name already"),
    ('device = "a/b"', "device"),
    ('device = "a"\nrequests.b.send = "?"', "the names of requests are the devices"),
    ('requests."a b".send = "?"', "a request's name has letters"),
    ('requests.a = { send = "?", device = "b/c" }', "requests.a.device"),
    ('requests.a.send = "hex:xy"', "requests.a.send"),
    ('profile = "p1"\nseparator = ","', 'profile = "p1" brings its own'),
    ('profile = "p1"\nfields.a = { at = 1, type = "u8" }', 'fields: profile = "p1" brings its own'),
    ('kinds.a = { code = "" }', "kinds.a.code: is empty"),
    ('kinds.a = { code = "x", fields = { b = {} } }', "kinds.a.fields.b: at which byte"),
    ('kinds.a = { code = "x" }\nseparator = ","', "there are others beside them"),
]


@pytest.mark.parametrize("frame", ["length = 4", "length_at = 0, length_adds = 1", "length = 4, start = 'x'"])
def test_the_request_tells_where_an_answer_begins(frame: str, tmp_path: Path) -> None:
    text = f"{BASE}frame = {{ {frame} }}\n"
    if "start" not in frame:
        with pytest.raises(ConfigError, match="without start, a check or requests nothing tells"):
            configured(text, tmp_path)
    assert configured(text + 'requests.tank.send = "R"', tmp_path).requests.keys() == {"tank"}


@pytest.mark.parametrize(("lines", "message"), MISTAKES)
def test_a_mistake_is_named_with_its_place(lines: str, message: str, tmp_path: Path) -> None:
    text = BASE.replace('port = "/dev/ttyUSB0"\n', "") if lines.startswith("port") else BASE
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        configured(text + lines, tmp_path)
    assert all("drivers.bench" in problem for problem in caught.value.problems)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("", None),
        ('device = "a"', ["serial/a"]),
        ('requests.b.send = "?"\nrequests.c.send = "!"', ["serial/b", "serial/c"]),
        (
            'requests.b = { send = "?", device = "a" }\nrequests.c = { send = "!", device = "a" }\nrequests.d.send = "."',
            ["serial/a", "serial/d"],
        ),
        ('device = "a"\nprofile = "nmea0183"', None),
        ('device = "a"\nkinds.k.code = "x"', None),
    ],
)
def test_channels_that_are_known_before(lines: str, expected: list[str] | None, tmp_path: Path) -> None:
    assert channels(configured(BASE + lines, tmp_path)) == expected


def test_an_unusual_speed_is_noted(tmp_path: Path) -> None:
    (note,) = notes(configured(BASE + 'profile = "p1"', tmp_path))
    assert note == "profile p1: most devices speak at 115200 baud, not 9600"
    assert notes(configured(BASE + 'profile = "p1"\nbaud_rate = 115200', tmp_path)) == []


README = (Path(drivers.serial.__file__).parent / "README.md").read_text()


def test_the_way_from_bytes_to_kafka_is_as_the_readme_says(tmp_path: Path) -> None:
    text = README[README.index("## From bytes to Kafka") :]
    [wire_text] = re.findall(r"^    (AA 55 .*)$", text, re.MULTILINE)
    toml = text[text.index("```toml\n") + 8 : text.index("```\n\nIn the topic")]
    config = configured(toml.replace("climate", "bench"), tmp_path)
    (message,) = Decoder(config).feed(bytes.fromhex(wire_text))
    [body] = re.findall(r"^    (\{.*\})$", text, re.MULTILINE)[:1]
    assert message.reading is not None
    assert json.loads(body)["values"] == message.reading.values
    assert json.loads(body)["device"] == message.device


def test_every_event_is_in_the_readme() -> None:
    """An operator looks up what status counts."""
    folder = Path(drivers.serial.__file__).parent
    sources = "".join(path.read_text() for path in folder.rglob("*.py"))
    events = set(re.findall(r"Undescribed\(\s*\"([^\"]+)\"", sources))
    events |= set(re.findall(r'^[A-Z_]+ = "((?:[a-z]+ )+[a-z]+)"$', sources, re.MULTILINE))
    assert len(events) >= 12
    words = re.sub(r"\s+", " ", README)
    for event in events - {"not a number", "not valid"}:
        assert f"`{event}`" in words, f"{event} is not explained"
