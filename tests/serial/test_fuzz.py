"""A megabyte of damage for each case: nothing but errors that are counted, and every frame that arrived whole."""

import json
import random
from pathlib import Path

import pytest

from drivers.serial import Check, Config, Field, Frame
from drivers.serial.checksum import Checksum
from drivers.serial.protocol import Decoder
from gateway.record import reading
from tests.serial.test_cases import CASES, wire
from tests.serial.test_protocol import configured_once

pytestmark = pytest.mark.slow
BYTES = 1_000_000


@pytest.mark.fault("input", "a megabyte of damaged frames for each case")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_megabyte_of_damage(case: Path) -> None:
    chance = random.Random(case.name)
    decoder, sound = Decoder(configured_once(case)), wire(case)
    sent = found = 0
    while sent < BYTES:
        piece = bytearray(sound)
        for _ in range(chance.randrange(20)):
            at = chance.randrange(len(piece))
            piece[at : at + chance.randrange(3)] = chance.randbytes(chance.randrange(3))
        sent += len(piece)
        messages = decoder.feed(bytes(piece))
        found += len(messages)
        for message in messages:
            if message.reading is not None:
                json.loads(reading(message.device, 0, *message.reading))
    assert found > 0
    assert all(count > 0 for count in decoder.events.values())


def test_every_frame_that_arrives_whole_is_found() -> None:
    """Between noise that looks like its beginning; the counter in it tells that none is missing, none false."""
    check = Check(kind="crc", width=32, polynomial=0x04C11DB7, at=-4)
    config = Config(
        port="/dev/x",
        frame=Frame(start="hex:aa 55", length_at=2, length_adds=7, bytes_max=64),
        check=check,
        fields={"count": Field(type="u32", at=3)},
    )
    chance, decoder, crc = random.Random(35), Decoder(config), Checksum(check)
    counted: list[object] = []
    for count in range(20_000):
        body = b"\xaa\x55\x04" + count.to_bytes(4, "big")
        noise = bytes(chance.choice(b"\xaa\x55\x04\x00\x20") for _ in range(chance.randrange(12)))
        for message in decoder.feed(noise + body + crc.of(body).to_bytes(4, "big")):
            assert message.reading is not None
            counted.append(message.reading.values["count"])
    for message in decoder.pause():
        assert message.reading is not None
        counted.append(message.reading.values["count"])
    assert counted == list(range(20_000))
