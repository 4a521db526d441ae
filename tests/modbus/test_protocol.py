"""Frames and PDUs: what is built can be read, what is not an answer never passes for one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.modbus.protocol import (
    EXCEPTIONS,
    ExceptionAnswer,
    Request,
    checksum,
    data,
    exchange_registers,
    mask_register,
    read,
    rtu_answer,
    rtu_answer_bytes,
    rtu_frame,
    tcp_answer,
    tcp_frame,
    write_coil,
    write_coils,
    write_register,
    write_registers,
)

REQUESTS = [
    (read("coil", 19, 19), "01 0013 0013", "01 03 cd6b05"),
    (read("discrete", 196, 22), "02 00c4 0016", "02 03 acdb35"),
    (read("holding", 107, 3), "03 006b 0003", "03 06 022b 0000 0064"),
    (read("input", 8, 1), "04 0008 0001", "04 02 000a"),
    (write_coil(172, True), "05 00ac ff00", "05 00ac ff00"),
    (write_coil(172, False), "05 00ac 0000", "05 00ac 0000"),
    (write_register(1, 3), "06 0001 0003", "06 0001 0003"),
    (
        write_coils(19, [True, False, True, True, False, False, True, True, True, False]),
        "0f 0013 000a 02 cd01",
        "0f 0013 000a",
    ),
    (write_registers(1, (10, 258)), "10 0001 0002 04 000a 0102", "10 0001 0002"),
    (mask_register(4, 0xF2, 0x25), "16 0004 00f2 0025", "16 0004 00f2 0025"),
    (
        exchange_registers(3, 6, 14, (255, 255, 255)),
        "17 0003 0006 000e 0003 06 00ff 00ff 00ff",
        "17 0c 00fe 0acd 0001 0003 000d 00ff",
    ),
]
"""Requests and answers as in the examples of the Application Protocol, section 6."""


@pytest.mark.parametrize(("request_", "pdu", "answer"), REQUESTS)
def test_requests_and_answers(request_: Request, pdu: str, answer: str) -> None:
    assert request_.pdu == bytes.fromhex(pdu)
    whole = bytes.fromhex(answer)
    assert len(whole) == request_.answer_bytes
    assert data(request_, whole) == whole[len(request_.head) :]
    for code in EXCEPTIONS:
        with pytest.raises(ExceptionAnswer, match=EXCEPTIONS[code]):
            data(request_, bytes((whole[0] | 0x80, code)))
    for other in (whole[:-1], whole + b"\0", b"\x2b" + whole[1:], b""):
        with pytest.raises(ValueError, match="not an answer"):
            data(request_, other)


@pytest.mark.parametrize(
    "make",
    [
        lambda: read("holding", 0, 126),
        lambda: read("coil", 0, 2001),
        lambda: read("holding", 0, 0),
        lambda: read("input", 65535, 2),
        lambda: read("input", -1, 1),
        lambda: write_register(0, 65536),
        lambda: write_registers(0, [0] * 124),
        lambda: write_coils(0, []),
        lambda: exchange_registers(0, 1, 0, [0] * 122),
    ],
)
def test_what_no_request_can_say(make: object) -> None:
    assert callable(make)
    with pytest.raises(ValueError, match=r"possible|not one of|end behind|unsigned"):
        make()


def test_a_known_frame() -> None:
    """A frame that anybody can check: reading register 107 to 109 of unit 17."""
    assert rtu_frame(0x11, read("holding", 0x6B, 3).pdu) == bytes.fromhex("11 03 006b 0003 7687")
    assert tcp_frame(1, 0xFF, b"\x03\0\x6b\0\3") == bytes.fromhex("0001 0000 0006 ff 03 006b 0003")


units = st.integers(1, 247)
counts = st.integers(1, 125)


def answered(request: Request, payload: bytes) -> bytes:
    return request.head + (payload * 256)[: request.answer_bytes - len(request.head)]


@given(units, counts, st.binary(min_size=1, max_size=250), st.binary(max_size=2), st.binary(max_size=8))
def test_an_answer_is_found_behind_noise(
    unit: int, count: int, payload: bytes, noise: bytes, rest: bytes
) -> None:
    request = read("holding", 0, count)
    pdu = answered(request, payload)
    frame = rtu_frame(unit, pdu)
    found = rtu_answer(noise + frame + rest, unit, request)
    assert found is not None
    assert found[0] == pdu or found[0][0] == pdu[0] | 0x80
    assert rtu_answer(frame, unit, request) == (pdu, len(frame))
    assert rtu_answer(frame[:-1], unit, request) is None
    assert len(frame) == rtu_answer_bytes(request)


@pytest.mark.fault("input", "bursts of wrong bits in a frame")
@given(units, counts, st.binary(min_size=1, max_size=250), st.data())
def test_no_burst_of_16_bits_or_less_passes(
    unit: int, count: int, payload: bytes, draw: st.DataObject
) -> None:
    request = read("holding", 0, count)
    frame = rtu_frame(unit, answered(request, payload))
    burst = draw.draw(st.integers(1, 0xFFFF))
    shift = draw.draw(st.integers(0, 8 * len(frame) - 16))
    broken = (int.from_bytes(frame, "little") ^ burst << shift).to_bytes(len(frame), "little")
    assert checksum(broken) != b"\0\0"
    assert rtu_answer(broken, unit, request) is None


@pytest.mark.fault("input", "random bytes for every reader")
@given(st.binary(max_size=400), units, counts)
def test_no_bytes_break_the_readers(received: bytes, unit: int, count: int) -> None:
    for request in (read("input", 0, count), write_register(1, 2), write_coils(0, [True] * count)):
        found = rtu_answer(received, unit, request)
        if found is not None:
            assert checksum(received[found[1] - len(found[0]) - 3 : found[1]]) == b"\0\0"
    try:
        frame = tcp_answer(received)
    except ValueError:
        return
    if frame is not None:
        assert tcp_frame(frame.transaction, frame.unit, frame.pdu) == received[: frame.size]


@given(st.integers(0, 65535), st.integers(0, 255), st.binary(min_size=2, max_size=253), st.binary(max_size=9))
def test_tcp_frames(transaction: int, unit: int, pdu: bytes, rest: bytes) -> None:
    frame = tcp_frame(transaction, unit, pdu)
    assert tcp_answer(frame + rest) == (transaction, unit, pdu, len(frame))
    assert tcp_answer(frame[:-1]) is None
