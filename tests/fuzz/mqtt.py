"""MQTT packets, and the laws of their reader."""

import random
from pathlib import Path

from drivers.mqtt import protocol as mqtt
from drivers.mqtt.batch import headers_of
from drivers.mqtt.protocol import V5, V311, Malformed
from tests.fuzz.target import Target, pieces
from tests.mqtt.rig import connect, publish
from tests.mqtt.test_protocol import LIMIT, SEEDS, parse, short_way

CASES = Path(mqtt.__file__).parent / "cases"
EVERY_PROPERTY = b"".join(
    [
        *(bytes((number, 1)) for number in (0x01, 0x17, 0x19, 0x24, 0x25, 0x28, 0x29, 0x2A)),
        *(bytes((number, 0, 1)) for number in (0x13, 0x21, 0x22)),
        *(bytes((number, 0, 0, 0, 1)) for number in (0x02, 0x11, 0x18, 0x27)),
        *(bytes((number, 0, 1, 97)) for number in (0x03, 0x08, 0x09, 0x12, 0x15, 0x16, 0x1A, 0x1C, 0x1F)),
        b"\x0b\x80\x01\x0b\x07",
        b"\x26\0\1n\0\1v\x26\0\1n\0\1w",
    ]
)
PROPERTIES = bytes((len(EVERY_PROPERTY) & 0x7F | 0x80, len(EVERY_PROPERTY) >> 7)) + EVERY_PROPERTY
TOKENS = [
    *(bytes((kind << 4 | flags,)) for kind in range(16) for flags in (0, 2, 4, 15)),
    *(bytes((number,)) for number in sorted(mqtt.Property)),
    b"\0\4MQTT\4",
    b"\0\4MQTT\5",
    b"\0\6MQIsdp\3",
    b"\xff\xff\xff\x7f",
    b"\xff\xff\xff\xff",
    b"\x80\0",
    b"\0\0",
    b"\xc3\x28",
    b"\xed\xa0\x80",
    b"\0\1#",
    EVERY_PROPERTY,
]


def seeds() -> list[bytes]:
    wires = [line for case in sorted(CASES.iterdir()) for line in (case / "wire.hex").read_text().split()]
    cases = [wire for line in wires if len(wire := bytes.fromhex(line)) < LIMIT]
    about_will = b"\1\x18\0\0\0\1"[1:]
    return [
        *SEEDS,
        *cases,
        connect("", version=V5),
        connect("c", clean=False),
        mqtt.packet(0x10, mqtt.text("MQIsdp") + bytes((3, 2, 0, 60)) + mqtt.text("old")),
        mqtt.packet(0x10, mqtt.text("MQTT") + bytes((5, 2, 0, 60)) + PROPERTIES + mqtt.text("c")),
        mqtt.packet(
            0x10,
            mqtt.text("MQTT")
            + bytes((5, 0xEE, 0, 60, 0))
            + mqtt.text("c")
            + bytes((len(about_will),))
            + about_will
            + mqtt.text("will")
            + mqtt.text("gone")
            + mqtt.text("user")
            + mqtt.text("secret"),
        ),
        publish("a", b"1", 0),
        publish("a", b"", 0, retain=True) * 3,
        publish("a/b", b"1", 1, 1, dup=True),
        publish("a/b", b"1", 1, 7, v5=True) * 5,
        mqtt.packet(0x32, mqtt.text("a") + b"\0\1" + PROPERTIES + b"x"),
        mqtt.packet(0x82, b"\0\1\0" + mqtt.text("a/+") + b"\1" + mqtt.text("#") + b"\2"),
        mqtt.packet(0xA2, b"\0\1\0" + mqtt.text("a/+")),
        b"\x40\x02\0\1\x50\x03\0\1\x10\x70\x04\0\1\x10\0",
        b"\xe0\x01\x04",
        b"\xe0\x07\0\x05\x11\0\0\0\x3c",
    ]


def run(data: bytes, chance: random.Random) -> bool:
    packets, rest = _split([data])
    assert _split(pieces(data, chance)) == (packets, rest) or rest is None
    accepted = False
    for version in (V311, V5):
        values = parse(data, version)
        accepted = accepted or not isinstance(values[-1], mqtt.Reason)
        for value in values:
            _written_again(value, version)
        if rest is not None:
            short_way(data, mqtt.split(data, LIMIT)[0], version)
    return accepted


def _split(parts: list[bytes]) -> tuple[list[bytes], bytes | None]:
    """Packets and what is left; None behind a malformed length."""
    packets: list[bytes] = []
    rest = b""
    for part in parts:
        rest += part
        try:
            while (found := mqtt.split(rest, LIMIT))[0]:
                packets += [rest[start:end] for _, start, end in found[0]]
                rest = rest[found[1] :]
        except Malformed:
            return packets, None
    return packets, rest


def _written_again(value: object, version: int) -> None:
    """What was read, as a sender would write it, reads as the same."""
    blank = b"\0" if version == V5 else b""
    same: object = value
    match value:
        case mqtt.Publish(topic, payload, qos, retain, dup, number, properties):
            first = 0x30 | qos << 1 | dup << 3 | retain
            head = len(topic).to_bytes(2, "big") + topic + (number.to_bytes(2, "big") if qos else b"")
            same = value._replace(properties={})
            again = mqtt.packet(first, head + blank + payload)
            headers_of(properties)
        case mqtt.Subscribe(number, filters):
            body = b"".join(mqtt.text(name) + bytes((qos,)) for name, qos in filters)
            again = mqtt.packet(0x82, number.to_bytes(2, "big") + blank + body)
        case mqtt.Unsubscribe(number, names):
            body = b"".join(map(mqtt.text, names))
            again = mqtt.packet(0xA2, number.to_bytes(2, "big") + blank + body)
        case _:
            return
    if len(again) < LIMIT:
        assert parse(again, version) == [same, b""]


TARGETS = [Target("mqtt", [mqtt], seeds(), TOKENS, run, 400)]
