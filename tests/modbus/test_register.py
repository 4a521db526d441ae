"""Values: what is written is what is read, in every type and order; and what makes no sense is said."""

import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.modbus.register import WHOLE, NoValue, Order, Register, Type, decoder, encode, problems, writing

orders = st.sampled_from(("big", "little"))
WIDTHS = {"uint16": 16, "uint32": 32, "uint64": 64, "int16": 16, "int32": 32, "int64": 64}


def data(words: tuple[int, ...]) -> bytes:
    return struct.pack(f">{len(words)}H", *words)


@given(st.sampled_from(sorted(WIDTHS)), orders, orders, st.data())
def test_whole_numbers(holds: Type, word_order: Order, byte_order: Order, draw: st.DataObject) -> None:
    bits = WIDTHS[holds]
    low, high = (0, 2**bits - 1) if holds.startswith("u") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    number = draw.draw(st.integers(low, high))
    register = Register(at=0, type=holds)
    words = encode(register, str(number), word_order, byte_order)
    assert decoder(register, word_order, byte_order)(b"\0\0" + data(words), 2) == number
    for outside in (low - 1, high + 1):
        with pytest.raises(ValueError, match="does not fit"):
            encode(register, str(outside), word_order, byte_order)


@given(st.floats(allow_nan=False, allow_infinity=False, width=32), orders, orders)
def test_floats(number: float, word_order: Order, byte_order: Order) -> None:
    single, double = Register(at=0, type="float32"), Register(at=0, type="float64")
    words = encode(single, repr(number), word_order, byte_order)
    read = decoder(single, word_order, byte_order)(data(words), 0)
    assert isinstance(read, float)
    assert struct.pack(">f", read) == struct.pack(">f", number)
    assert len(repr(read)) <= len(repr(number))
    words = encode(double, repr(number), word_order, byte_order)
    assert decoder(double, word_order, byte_order)(data(words), 0) == number


@given(st.integers(1, 4), orders, orders, st.data())
def test_bcd(length: int, word_order: Order, byte_order: Order, draw: st.DataObject) -> None:
    number = draw.draw(st.integers(0, 10 ** (4 * length) - 1))
    register = Register(at=0, type="bcd", length=length)
    words = encode(register, str(number), word_order, byte_order)
    assert decoder(register, word_order, byte_order)(data(words), 0) == number
    with pytest.raises(ValueError, match="does not fit"):
        encode(register, str(10 ** (4 * length)), word_order, byte_order)


@given(st.text(st.characters(exclude_categories=("Cs", "Cc", "Z")), max_size=10), orders, orders)
def test_strings(text: str, word_order: Order, byte_order: Order) -> None:
    register = Register(at=0, type="string", length=20)
    words = encode(register, text, word_order, byte_order)
    assert decoder(register, word_order, byte_order)(data(words), 0) == text


@given(
    st.integers(-32768, 32767),
    st.sampled_from((0.001, 0.01, 0.1, 0.5, 2.0, 10.0)),
    st.sampled_from((0.0, -40.0)),
)
def test_scaled_numbers_have_the_digits_of_their_scale(number: int, scale: float, offset: float) -> None:
    register = Register(at=0, type="int16", scale=scale, offset=offset)
    value = decoder(register, "big", "big")(struct.pack(">h", number), 0)
    assert len(str(value).partition(".")[2]) <= 3
    assert encode(register, str(value), "big", "big") == (number & 0xFFFF,)


def test_bits_are_scaled_and_large_numbers_stay_finite() -> None:
    assert decoder(Register(at=0, bits="4-7", scale=0.5), "big", "big")(b"\xff\x9f", 0) == 4.5
    huge = decoder(Register(at=0, type="float64", scale=10.0), "big", "big")
    with pytest.raises(NoValue, match="not a number"):
        huge(struct.pack(">d", 1e308), 0)


@given(st.binary(min_size=8, max_size=8), st.sampled_from((*sorted(WHOLE), "float32", "float64", "string")))
def test_any_bytes_are_a_value_or_none(raw: bytes, holds: Type) -> None:
    register = Register(at=0, type=holds, length=2 if holds in ("string", "bcd") else None)
    try:
        value = decoder(register, "little", "big")(raw, 0)
    except NoValue as reason:
        assert str(reason)
    else:
        assert value == value  # not NaN


@pytest.mark.parametrize(
    ("register", "field", "message"),
    [
        (Register(at=0, type="bool"), "type", 'in table holding must be not "bool"'),
        (Register(at=0, table="coil", type="uint16"), "type", 'in table coil must be "bool"'),
        (Register(at=0, type="string"), "length", "missing"),
        (Register(at=0, type="uint16", length=2), "length", "is for bcd and string"),
        (Register(at=0, type="bcd", length=5), "length", "at most 4"),
        (Register(at=65533, type="uint64"), "at", "it takes 4"),
        (Register(at=0, bits="16"), "bits", "0 to 15"),
        (Register(at=0, bits="7-4"), "bits", "low first"),
        (Register(at=0, type="float32", bits="3"), "bits", "is for binary whole numbers, not float32"),
        (
            Register(at=0, table="coil", names={"2": "on"}),
            "names",
            "2 is never read from bool; possible are 0 to 1",
        ),
        (Register(at=0, scale=0.0), "scale", "must not be 0"),
        (Register(at=0, scale=0.1, names={"0": "off"}), "scale", "without names"),
        (Register(at=0, scale=0.1, bits="3"), "scale", "a single bit is a boolean"),
        (Register(at=0, offset=math.inf), "offset", "must be between"),
        (Register(at=0, scale=math.nan), "scale", "must be between"),
        (Register(at=0, type="float32", names={"0": "off"}), "names", "whole numbers"),
        (Register(at=0, names={"0x1": "on"}), "names", "must be a whole number"),
        (
            Register(at=0, names={"65536": "on"}),
            "names",
            "65536 is never read from uint16; possible are 0 to 65535",
        ),
        (
            Register(at=0, bits="4-5", names={"4": "on"}),
            "names",
            "4 is never read from bits 4-5; possible are 0 to 3",
        ),
        (
            Register(at=0, type="int16", names={"-1": "a", "65535": "b"}),
            "names",
            "-1 and 65535 are the same number in int16",
        ),
        (Register(at=0, type="string", length=1, invalid=0), "invalid", "is for numbers, not string"),
        (Register(at=0, table="coil", invalid=0), "invalid", "is for numbers, not bool"),
        (
            Register(at=0, type="int16", invalid=65536),
            "invalid",
            "65536 is never read from int16; possible are -32768 to 32767, the negative ones also written as 32768 to 65535",
        ),
        (
            Register(at=0, type="int16", scale=0.1, invalid=-3276.8),
            "invalid",
            "scale and offset don't count",
        ),
        (Register(at=0, invalid=[7, -32769]), "invalid", "-32769 is never read from uint16"),
        (Register(at=0, type="bcd", invalid=0xFFFF), "invalid", "possible are 0 to 9999"),
        (Register(at=0, type="float32", invalid=1e39), "invalid", "1e+39 is never read from float32"),
        (Register(at=0, type="float64", invalid=math.nan), "invalid", "possible are finite numbers"),
    ],
)
def test_what_makes_no_sense_is_said(register: Register, field: str, message: str) -> None:
    [(where, text)] = problems(register)
    assert where == field
    assert message in text


def test_the_halves_of_a_signed_register_have_signs() -> None:
    for raw, high, low in ((b"\xfe\x05", -2, 5), (b"\x7f\x80", 127, -128), (b"\0\xff", 0, -1)):
        halves = [Register(at=0, type="int16", bits=bits) for bits in ("8-15", "0-7")]
        assert [list(problems(half)) for half in halves] == [[], []]
        assert [decoder(half, "big", "big")(raw, 0) for half in halves] == [high, low]
    assert decoder(Register(at=0, type="int16", bits="15"), "big", "big")(b"\x80\0", 0) is True
    assert decoder(Register(at=0, type="int16", bits="8-15", scale=0.5), "big", "big")(b"\xff\0", 0) == -0.5


@pytest.mark.parametrize(
    ("register", "raw"),
    [
        (Register(at=0, type="int16", scale=0.1, invalid=0x8000), "8000"),
        (Register(at=0, type="int16", invalid=-32768), "8000"),
        (Register(at=0, type="int32", invalid=0x80000000), "80000000"),
        (Register(at=0, type="int64", invalid=1 << 63), "8000000000000000"),
        (Register(at=0, invalid=-1), "ffff"),
        (Register(at=0, type="uint64", invalid=-1), "ffffffffffffffff"),
        (Register(at=0, bits="0-7", invalid=-1), "ffff"),
        (Register(at=0, invalid=[0x7FFF, 0x8000]), "7fff"),
        (Register(at=0, invalid=[0x7FFF, 0x8000]), "8000"),
        (Register(at=0, type="bcd", invalid=9999), "9999"),
        (Register(at=0, type="float32", scale=2.0, invalid=-999.9), "c479f99a"),
        (Register(at=0, type="float64", invalid=-999.9), "c08f3f3333333333"),
    ],
)
def test_a_sentinel_in_either_spelling_is_no_value(register: Register, raw: str) -> None:
    assert list(problems(register)) == []
    with pytest.raises(NoValue, match="the device has no value"):
        decoder(register, "big", "big")(bytes.fromhex(raw), 0)
    decoder(register, "big", "big")(bytes.fromhex("4000000000000000"), 0)


@pytest.mark.parametrize(
    ("register", "raw"),
    [
        (Register(at=0, type="int16", names={"65535": "lost"}), "ffff"),
        (Register(at=0, type="int16", names={"-1": "lost"}), "ffff"),
        (Register(at=0, names={"-1": "lost"}), "ffff"),
        (Register(at=0, type="int32", names={"2147483648": "lost"}), "80000000"),
        (Register(at=0, bits="4-6", names={"7": "lost"}), "0070"),
        (Register(at=0, bits="4-6", names={"-1": "lost"}), "0070"),
        (Register(at=0, type="int16", bits="4-6", names={"7": "lost"}), "0070"),
    ],
)
def test_a_name_in_either_spelling_is_read_and_written(register: Register, raw: str) -> None:
    assert list(problems(register)) == []
    assert decoder(register, "big", "big")(bytes.fromhex(raw), 0) == "lost"
    requests, value = writing(register, "lost", "big", "big")
    assert value == "lost"
    assert requests[-1].pdu.hex().endswith(raw)


@pytest.mark.parametrize(
    ("register", "text", "message"),
    [
        (Register(at=0, table="input"), "1", "can only be read"),
        (Register(at=0, table="coil"), "open", "neither on nor off"),
        (Register(at=0, type="uint32", bits="3"), "1", "single register"),
        (Register(at=0, bits="3", byte_order="little"), "1", "usual order"),
        (Register(at=0, bits="3"), "2", "neither on nor off"),
        (Register(at=0, bits="4-7"), "16", "does not fit into 4 bits"),
        (Register(at=0, type="int16", bits="4-7"), "8", "does not fit into 4 bits"),
        (
            Register(at=0, table="coil", names={"0": "shut", "1": "open"}),
            "on",
            "none of its names: shut, open",
        ),
        (Register(at=0), "many", "is not a number"),
        (Register(at=0, type="float32"), "inf", "not a number that can be written"),
        (Register(at=0, type="float32"), "1e39", "does not fit"),
        (Register(at=0, scale=0.1), "1.25", "0.1 apart"),
        (Register(at=0, type="string", length=1), "abc", "longer than 2 bytes"),
        (Register(at=0, invalid=5), "5", "no value"),
    ],
)
def test_what_can_not_be_written_is_said(register: Register, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        writing(register, text, "big", "big")


@pytest.mark.parametrize(
    ("register", "text", "functions", "expected"),
    [
        (Register(at=0), "7", [6, 16], 7),
        (Register(at=0, type="float32"), "0.5", [16], 0.5),
        (Register(at=0, table="coil"), "ON", [5, 15], True),
        (Register(at=0, bits="3"), "on", [22], True),
        (Register(at=0, bits="4-7"), "9", [22], 9),
        (Register(at=0, type="int16", bits="8-15"), "-2", [22], -2),
        (Register(at=0, table="coil", names={"0": "shut", "1": "open"}), "open", [5, 15], "open"),
        (Register(at=0, bits="4-7", scale=0.5), "4.5", [22], 4.5),
        (Register(at=0, bits="0-1", names={"2": "auto"}), "auto", [22], "auto"),
    ],
)
def test_how_values_are_written(
    register: Register, text: str, functions: list[int], expected: object
) -> None:
    requests, value = writing(register, text, "big", "big")
    assert [request.pdu[0] for request in requests] == functions
    assert value == expected
