"""Frames out of any bytes: nothing false, nothing lost that a frame can be told from, nothing without end."""

import binascii
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from drivers.serial import Check, Frame, octets
from drivers.serial.checksum import Checksum
from drivers.serial.framing import CUT_SHORT, HALF, WRONG_LENGTH, Framer

CRC = Check(kind="crc", width=32, polynomial=0x04C11DB7, init=0xFFFFFFFF, byte_order="little", at=-4)
"""With 16 bits chance would find a false frame in noise within a few hundred runs of these tests."""

LENGTH = Frame(start="hex:aa 55", length_at=2, length_adds=7, bytes_max=64)
FIXED = Frame(length=10)
LINES = Frame(end="\n", bytes_max=64)
STX = Frame(start="hex:02", end="hex:03", trailer_bytes=4, bytes_max=64)
DLE = Frame(start="hex:10 02", end="hex:10 03", escape="hex:10", bytes_max=128)
HDLC = Frame(end="hex:7e", escape="hex:7d", escape_xor=0x20, bytes_max=128)
IN_FRAME = replace(CRC, at=-6, covers_from=2)
BEFORE_FLAG = replace(CRC, at=-5)
FRAMES = {
    "length": (LENGTH, CRC),
    "fixed": (FIXED, CRC),
    "stx": (STX, CRC),
    "dle": (DLE, IN_FRAME),
    "hdlc": (HDLC, BEFORE_FLAG),
}


def with_crc(data: bytes) -> bytes:
    return data + Checksum(CRC).of(data).to_bytes(4, "little")


def length_frame(payload: bytes) -> bytes:
    return with_crc(b"\xaa\x55" + bytes([len(payload)]) + payload)


def fixed_frame(payload: bytes) -> bytes:
    return with_crc(payload[:6].ljust(6, b"."))


def stx_frame(payload: bytes) -> bytes:
    return with_crc(b"\x02" + payload.replace(b"\x03", b"\x04") + b"\x03")


def dle_frame(payload: bytes) -> bytes:
    return b"\x10\x02" + with_crc(b"d" + payload).replace(b"\x10", b"\x10\x10") + b"\x10\x03"


def hdlc_frame(payload: bytes) -> bytes:
    stuffed = with_crc(b"h" + payload).replace(b"\x7d", b"\x7d\x5d").replace(b"\x7e", b"\x7d\x5e")
    return stuffed + b"\x7e"


BUILD = {"length": length_frame, "fixed": fixed_frame, "stx": stx_frame, "dle": dle_frame, "hdlc": hdlc_frame}


def plain(kind: str, frame: bytes) -> bytes:
    """What a frame is without its escapes."""
    if kind == "dle":
        return frame[:2] + frame[2:-2].replace(b"\x10\x10", b"\x10") + frame[-2:]
    if kind == "hdlc":
        return frame.replace(b"\x7d\x5e", b"\x7e").replace(b"\x7d\x5d", b"\x7d")
    return frame


FEW = settings(max_examples=30)
"""test_fuzz.py has the many."""

payloads = st.lists(st.binary(max_size=30), min_size=1, max_size=5)


def pieces(data: bytes, sizes: list[int]) -> list[bytes]:
    cut, at = [], 0
    for size in sizes:
        cut.append(data[at : at + size])
        at += size
    return [*cut, data[at:]]


def fed(framer: Framer, data: bytes, sizes: list[int]) -> list[bytes]:
    return [frame for piece in pieces(data, sizes) for frame in framer.feed(piece)]


@pytest.mark.parametrize("kind", FRAMES)
@FEW
@given(contents=payloads, sizes=st.lists(st.integers(1, 20), max_size=20))
def test_frames_come_whole_however_they_are_cut(kind: str, contents: list[bytes], sizes: list[int]) -> None:
    framer = Framer(*FRAMES[kind])
    sent = [BUILD[kind](content) for content in contents]
    assert fed(framer, b"".join(sent), sizes) == [plain(kind, frame) for frame in sent]
    assert not framer.events


def swallowed(kind: str, noise: bytes) -> bool:
    """A flag that marks both ends leaves nothing to tell noise from the frame behind it but the next flag."""
    return kind == "hdlc" and (not noise.endswith(b"\x7e") or noise.endswith(b"\x7d\x7e"))


@pytest.mark.fault("line", "noise before a frame", "35")
@pytest.mark.parametrize("kind", FRAMES)
@FEW
@given(
    noise=st.binary(max_size=200),
    content=st.binary(max_size=30),
    sizes=st.lists(st.integers(1, 20), max_size=20),
)
@example(noise=b"\xaa\x55\x3f", content=b"ok", sizes=[])
@example(noise=b"\x02\x02\x02", content=b"ok", sizes=[])
def test_behind_noise_the_next_frame_is_found(
    kind: str, noise: bytes, content: bytes, sizes: list[int]
) -> None:
    framer = Framer(*FRAMES[kind])
    good = BUILD[kind](content)
    found = [*fed(framer, noise + good + good, sizes), *framer.pause()]
    wanted = [plain(kind, good)] * 2
    assert found[-2:] == wanted or (swallowed(kind, noise) and found[-1:] == wanted[:1])
    assert sum(map(len, found)) + framer.events["bytes skipped"] <= len(noise + good + good)


@pytest.mark.fault("input", "random bytes for every way of framing")
@pytest.mark.parametrize("kind", FRAMES)
@FEW
@given(data=st.binary(max_size=400), sizes=st.lists(st.integers(1, 50), max_size=20))
def test_nothing_passes_without_its_check(kind: str, data: bytes, sizes: list[int]) -> None:
    frame, check = FRAMES[kind]
    framer = Framer(frame, check)
    for found in [*fed(framer, data, sizes), *framer.pause()]:
        assert Checksum(check).holds(found)
        assert found.startswith(octets(frame.start))
        assert kind in ("dle", "hdlc") or found in data


@pytest.mark.fault("input", "every bit of a frame, flipped")
@pytest.mark.parametrize("kind", FRAMES)
def test_a_flipped_bit_is_never_a_frame(kind: str) -> None:
    good = BUILD[kind](b"21.5")
    for bit in range(len(good) * 8):
        broken = bytearray(good)
        broken[bit // 8] ^= 1 << bit % 8
        framer = Framer(*FRAMES[kind])
        found = [*framer.feed(bytes(broken) + good + good), *framer.pause()]
        wanted = [plain(kind, good)] * 2
        assert found == wanted or (swallowed(kind, bytes(broken)) and found == wanted[:1])


@FEW
@given(lines=st.lists(st.binary(max_size=40), max_size=20), sizes=st.lists(st.integers(1, 20), max_size=20))
def test_lines_are_what_stands_between_ends(lines: list[bytes], sizes: list[int]) -> None:
    lines = [line.replace(b"\n", b"") for line in lines]
    framer = Framer(LINES, None)
    found = fed(framer, b"".join(line + b"\n" for line in lines), sizes)
    assert found == [line + b"\n" for line in lines[1:]]
    assert framer.events[HALF] == bool(lines)


WITHOUT_LINE_ENDS = st.characters(codec="latin-1", exclude_characters="\r\n")


@pytest.mark.parametrize(("frame", "check"), [(LENGTH, None), (FIXED, CRC), (LINES, None), (STX, None)])
@FEW
@given(data=st.lists(st.text(WITHOUT_LINE_ENDS, max_size=300), max_size=10))
def test_what_waits_is_bounded(frame: Frame, check: Check | None, data: list[str]) -> None:
    framer = Framer(frame, check)
    sent = found = 0
    for text in data:
        piece = text.encode("latin-1")
        sent += len(piece)
        found += sum(map(len, framer.feed(piece)))
        assert 0 <= sent - found - framer.events["bytes skipped"] <= frame.bytes_max + 1


def test_a_search_that_costs_too_much_is_cut_short_and_counted() -> None:
    """Every second byte of a long frame begins one."""
    framer = Framer(replace(STX, bytes_max=4000), CRC)
    assert fed(framer, b"\x02x" * 1000 + b"\x03....", []) == []
    assert framer.events[CUT_SHORT] > 0
    good = stx_frame(b"12 g")
    assert fed(framer, good, []) == [good]


CATALOGUE: list[tuple[int, dict[str, object]]] = [
    (0xF4, {"width": 8, "polynomial": 0x07}),
    (0xA1, {"width": 8, "polynomial": 0x31, "reflect": True}),
    (0xBB3D, {"width": 16, "polynomial": 0x8005, "reflect": True}),
    (0x4B37, {"width": 16, "polynomial": 0x8005, "init": 0xFFFF, "reflect": True}),
    (0x29B1, {"width": 16, "polynomial": 0x1021, "init": 0xFFFF}),
    (0x906E, {"width": 16, "polynomial": 0x1021, "init": 0xFFFF, "reflect": True, "xor_out": 0xFFFF}),
    (0xBF05, {"width": 16, "polynomial": 0x1021, "init": 0xC6C6, "reflect": True}),
    (0x21CF02, {"width": 24, "polynomial": 0x864CFB, "init": 0xB704CE}),
    (0xCBF43926, {"width": 32, "polynomial": 0x04C11DB7, "init": 0xFFFFFFFF, "reflect": True, "xor_out": 0xFFFFFFFF}),
    (0x0376E6E7, {"width": 32, "polynomial": 0x04C11DB7, "init": 0xFFFFFFFF}),
]  # fmt: skip
"""What each algorithm of the public CRC catalogue gives for "123456789"."""


@pytest.mark.parametrize(("value", "parameters"), CATALOGUE)
def test_crcs_of_the_catalogue(value: int, parameters: dict[str, object]) -> None:
    check = Check(kind="crc", at=-1, **parameters)  # type: ignore[arg-type]
    assert Checksum(check).of(b"123456789") == value


@FEW
@given(st.binary())
def test_crcs_agree_with_other_programs(data: bytes) -> None:
    crc32 = Check(kind="crc", at=-4, **CATALOGUE[8][1])  # type: ignore[arg-type]
    xmodem = Check(kind="crc", at=-2, width=16, polynomial=0x1021)
    assert Checksum(crc32).of(data) == binascii.crc32(data)
    assert Checksum(xmodem).of(data) == binascii.crc_hqx(data, 0)


CHECKS: list[tuple[str, Check, bool]] = [
    ("01 02 03 06", Check(kind="sum", at=-1), True),
    ("01 02 03 07", Check(kind="sum", at=-1), False),
    ("ff ff 01 fe", Check(kind="sum", width=16, at=-2), True),
    ("ff ff fe 01", Check(kind="sum", width=16, at=-2, byte_order="little"), True),
    ("10 20 d0", Check(kind="sum", at=-1, init=0xFF, xor_out=0xFF), True),
    ("24 41 42 2a 30 33", Check(kind="xor", encoding="hex", at=-2, covers_from=1, covers_to=-3), True),
    ("24 41 42 2a 30 67", Check(kind="xor", encoding="hex", at=-2, covers_from=1, covers_to=-3), False),
    ("03 01 02", Check(kind="xor", at=0, covers_from=1, covers_to=3), True),
    ("06", Check(kind="sum", at=-1), False),
    ("", Check(kind="sum", at=-1), False),
    ("01", Check(kind="sum", width=16, at=-2), False),
    ("00 00", Check(kind="sum", at=5), False),
]


@pytest.mark.parametrize(("frame", "check", "holds"), CHECKS)
def test_where_a_check_stands_and_what_it_covers(frame: str, check: Check, holds: bool) -> None:
    assert Checksum(check).holds(bytes.fromhex(frame)) == holds


def test_without_a_check_a_second_start_begins_a_new_frame() -> None:
    framer = Framer(Frame(start="hex:02", end="hex:03"), None)
    assert list(framer.feed(b"\x02hal\x02one\x03\x02two\x03")) == [b"\x02one\x03", b"\x02two\x03"]
    assert framer.events == {HALF: 1, "bytes skipped": 4}


def test_an_escaped_start_is_content() -> None:
    framer = Framer(DLE, None)
    assert list(framer.feed(b"\x10\x02a\x10\x10\x02b\x10\x03")) == [b"\x10\x02a\x10\x02b\x10\x03"]
    assert not framer.events


@pytest.mark.parametrize("frame", [Frame(length=4), Frame(length_at=0, length_adds=1, bytes_max=4)])
def test_where_only_a_request_tells_a_frame_it_is_what_comes_first_behind_it(frame: Frame) -> None:
    """A piece of an answer looks like an answer: what is out of step stays so until the next request."""
    framer = Framer(frame, None)
    answer = b"\x03\x01\x01\x01"
    assert list(framer.feed(answer)) == [], "before any request"
    framer.reset()
    assert list(framer.pause()) == []
    assert list(framer.feed(answer + answer)) == [answer]
    framer.reset()
    assert [*framer.feed(b"\x03\x01\x01"), *framer.pause(), *framer.feed(b"\x01" + answer)] == []
    assert framer.events == {HALF: 1, "bytes skipped": 16}
    framer.reset()
    assert [frame for byte in answer for frame in framer.feed(bytes([byte]))] == [answer]


def test_an_answer_that_tells_an_impossible_length_hides_no_other() -> None:
    framer = Framer(Frame(length_at=0, length_adds=1, bytes_max=4), None)
    framer.reset()
    assert list(framer.feed(b"\xff\x01\x01\x01\x01")) == []
    assert framer.events == {WRONG_LENGTH: 1, "bytes skipped": 5}
