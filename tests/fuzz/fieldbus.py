"""What comes over lines: Modbus answers, frames of serial devices, NMEA sentences, P1 telegrams."""

import json
import random
import struct
from collections.abc import Sequence
from pathlib import Path

from drivers.modbus import protocol as modbus
from drivers.modbus import register
from drivers.modbus.protocol import ExceptionAnswer
from drivers.modbus.register import NoValue, Order, Register
from drivers.serial import checksum, fields, framing
from drivers.serial import protocol as serial
from drivers.serial.profiles import nmea0183, p1
from drivers.serial.protocol import PROFILES, Decoder
from gateway.record import reading
from tests.fuzz.target import Target, pieces
from tests.modbus.test_protocol import REQUESTS
from tests.serial.test_cases import CASES, wire
from tests.serial.test_protocol import configured_once

UNIT = 17
ANSWERS = [(request, bytes.fromhex(answer)) for request, _, answer in REQUESTS]


def modbus_seeds() -> list[bytes]:
    rtu = [modbus.rtu_frame(UNIT, pdu) for _, pdu in ANSWERS]
    refusals = [modbus.rtu_frame(UNIT, bytes((pdu[0] | 0x80, 2))) for _, pdu in ANSWERS]
    tcp = [modbus.tcp_frame(number, UNIT, pdu) for number, (_, pdu) in enumerate(ANSWERS)]
    return [*rtu, *refusals, *tcp, b"\0" + rtu[0], b"\xff\0" + rtu[2], tcp[0] + tcp[1]]


def run_modbus(data: bytes, chance: random.Random) -> bool:
    accepted = False
    for request, _ in ANSWERS:
        found = modbus.rtu_answer(data, UNIT, request)
        if found is not None:
            accepted = True
            pdu, end = found
            assert modbus.rtu_answer(data[:end], UNIT, request) == found
            assert data[:end].endswith(modbus.rtu_frame(UNIT, pdu))
            assert end <= modbus.NOISE_BYTES_MAX + modbus.rtu_answer_bytes(request)
        try:
            values = modbus.data(request, data)
            assert request.head + values == data
        except (ValueError, ExceptionAnswer):
            pass
    return _frames(data, [data]) == _frames(data, pieces(data, chance)) and accepted


def _frames(data: bytes, parts: list[bytes]) -> list[bytes] | None:
    received, frames = bytearray(), []
    for part in parts:
        received += part
        try:
            while (frame := modbus.tcp_answer(received)) is not None:
                frames.append(modbus.tcp_frame(*frame[:3]))
                assert frames[-1] == bytes(received[: frame.size])
                del received[: frame.size]
        except ValueError:
            return None
    assert b"".join(frames) + received == data
    return frames


ORDERS: list[tuple[Order, Order]] = [
    ("big", "big"),
    ("big", "little"),
    ("little", "big"),
    ("little", "little"),
]
WRITABLE = [
    *(Register(at=0, type=holds) for holds in ("uint16", "int16", "uint32", "int32", "uint64", "int64")),
    *(Register(at=0, type="bcd", length=length) for length in range(1, 5)),
    *(Register(at=0, type="string", length=length) for length in (1, 2, 5)),
    Register(at=0, type="float32"),
    Register(at=0, type="float64"),
    Register(at=0, type="int16", scale=0.1),
    Register(at=0, type="uint16", scale=0.001, offset=-40.0),
    Register(at=0, type="int32", invalid=-(1 << 31)),
    Register(at=0, type="uint16", names={"0": "off", "1": "on", "65535": "unknown"}),
]
"""What reads as a value reads as the same once that was written."""

READABLE = [
    Register(at=0, type="uint32", bits="31"),
    Register(at=0, type="uint64", bits="3-40"),
    Register(at=0, type="uint16", bits="0-1", names={"0": "off", "3": "on"}),
    Register(at=0, type="int64", scale=0.01, offset=1e9),
    Register(at=0, type="float32", scale=1e29, offset=-1e29),
    Register(at=0, type="float64", scale=1e29),
]
VALUES = [
    (one, orders, register.decoder(one, *orders), register.plain(one, *orders))
    for one in (*WRITABLE, *READABLE)
    for orders in ORDERS
]


def run_values(data: bytes, _: random.Random) -> bool:
    accepted = False
    for one, orders, decode, plain in VALUES:
        if len(data) < 2 * one.count:
            continue
        try:
            value = decode(data, 0)
        except NoValue:
            continue
        accepted = True
        json.dumps(value, allow_nan=False)
        if plain is not None:
            [number] = struct.unpack_from(f">{plain.code}", data)
            assert value == (number / plain.divisor if plain.divisor > 1 else number)
        if one in WRITABLE:
            words = register.encode(one, str(value), *orders)
            assert decode(struct.pack(f">{len(words)}H", *words), 0) == value, (one, orders)
    return accepted


def serial_target(case: Path) -> Target:
    config, sound = configured_once(case), wire(case)
    frame = PROFILES[config.profile].frame if config.profile else config.frame

    def run(data: bytes, chance: random.Random) -> bool:
        whole, cut = Decoder(config), Decoder(config)
        frames, of_pieces = _frames_of(whole, [data]), _frames_of(cut, pieces(data, chance))
        # What came by then decides where a search is cut short, or where a line without a start that is too long.
        too_long = not frame.start and len(data) >= frame.bytes_max
        assert of_pieces == frames or too_long or framing.CUT_SHORT in whole.events | cut.events
        return bool(frames)

    modules = {"nmea0183": nmea0183, "p1": p1}
    name = config.profile or case.name
    tokens = [bytes((byte,)) for byte in {*sound}] + [b"\r\n", b"\xff" * 9, b"9" * 20, b"e99", b"\xc3\xa4"]
    lines = sound.splitlines(keepends=True)
    seeds = [sound, *(lines if len(lines) < 40 else ())]
    profile = [modules[name]] if name in modules else [fields]
    return Target(f"serial-{name}", [serial, framing, checksum, *profile], seeds, tokens, run, 4000)


def _frames_of(decoder: Decoder, parts: Sequence[bytes]) -> list[bytes]:
    messages = [message for part in parts for message in decoder.feed(part)]
    messages += decoder.pause()
    for message in messages:
        if message.reading is not None:
            json.loads(reading(message.device, 0, *message.reading))
    return [message.frame for message in messages]


TARGETS = [
    Target(
        "modbus",
        [modbus],
        modbus_seeds(),
        [bytes((UNIT,)), bytes((0x83,)), b"\0\0", *(request.head for request, _ in ANSWERS)],
        run_modbus,
        4000,
    ),
    Target(
        "modbus-values",
        [register],
        [
            b"\x12\x34\x56\x78\x90\x12\x34\x56",
            b"Kessel 1  ",
            b"\x42\x48\x00\x00",
            b"\x7f\xf0\0\0\0\0\0\0",
            b"\xff" * 8,
        ],
        [b"\x7f\x80", b"\x80\0", b"\0\x01", b"\xc3\xa4", b"\x99\x99"],
        run_values,
        4000,
    ),
    *map(serial_target, CASES),
]
