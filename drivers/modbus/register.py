"""One value of a device: where it stands, how its bytes are read, and how it is written."""

import math
import re
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, NamedTuple

from drivers.modbus.protocol import (
    ADDRESSES,
    BIT_TABLES,
    READ_REGISTERS_MAX,
    Request,
    Table,
    mask_register,
    write_coil,
    write_coils,
    write_register,
    write_registers,
)
from gateway.record import Value
from gateway.settings import Form, Numbers, setting

Order = Literal["big", "little"]
Type = Literal[
    "bool",
    "uint16",
    "int16",
    "uint32",
    "int32",
    "uint64",
    "int64",
    "float32",
    "float64",
    "bcd",
    "string",
]

STRUCTS = {
    "uint16": "H",
    "int16": "h",
    "uint32": "I",
    "int32": "i",
    "uint64": "Q",
    "int64": "q",
    "float32": "f",
    "float64": "d",
}
WHOLE = frozenset(("uint16", "int16", "uint32", "int32", "uint64", "int64", "bcd"))
UNSIGNED = frozenset(("uint16", "uint32", "uint64"))
ANY_LENGTH = frozenset(("bcd", "string"))
BCD_REGISTERS_MAX = 4
SCALE_MAX = 1e30
SINGLE_MAX = 3.4e38
"""What is larger may not fit into 32 bits once it is rounded."""

NOTHING = "the device has no value"


@dataclass(frozen=True, kw_only=True)
class Register:
    at: int = setting(
        doc="Address in the protocol, from 0: what manuals call 40001 or 30001 is 0.",
        minimum=0,
        maximum=ADDRESSES - 1,
        example="0",
    )
    table: Table = setting("holding", doc="Which of the unit's four tables; read with function 3, 4, 1 or 2.")
    type: Type | None = setting(
        None,
        doc='What it holds. Without it: "bool" in coil and discrete, else "uint16".',
        example='"float32"',
    )
    length: int | None = setting(
        None, doc="Registers of a bcd (1 without it) or string.", minimum=1, maximum=READ_REGISTERS_MAX
    )
    word_order: Order | None = setting(
        None, doc="Which register comes first, the high one or the low one. Without it: the unit's."
    )
    byte_order: Order | None = setting(
        None, doc="Which byte of a register comes first. Without it: the unit's."
    )
    bits: str | None = setting(
        None,
        doc='Only these bits, 0 the lowest: "3" is a boolean, "4-7" a number; of a signed type with a sign, the highest of them.',
        form=Form("[0-9]+(-[0-9]+)?", 'the number of a bit, or of the lowest and the highest, such as "4-7"'),
    )
    scale: float = setting(1.0, doc="What is read is multiplied by this.")
    offset: float = setting(0.0, doc="Then this is added.")
    unit: str = setting("", doc="Unit of measure, shown by the command line.")
    names: dict[str, str] = setting(
        factory=dict,
        doc="Words for numbers; another number is not taken for a value.",
        example='{ 0 = "off" }',
    )
    invalid: Numbers | None = setting(
        None,
        doc="The number, unscaled, by which the device says that it has no value; or an array of such numbers.",
        example="-32768",
    )

    @property
    def holds(self) -> Type:
        return self.type or ("bool" if self.table in BIT_TABLES else "uint16")

    @property
    def count(self) -> int:
        """Registers, or bits in the tables of bits."""
        if self.holds in STRUCTS:
            return struct.calcsize(">" + STRUCTS[self.holds]) // 2
        return self.length or 1

    @property
    def bit_range(self) -> tuple[int, int] | None:
        """Lowest and highest bit."""
        if self.bits is None:
            return None
        low, _, high = self.bits.partition("-")
        return int(low), int(high or low)

    @property
    def sentinels(self) -> list[float]:
        """What `invalid` names."""
        if self.invalid is None:
            return []
        return self.invalid if isinstance(self.invalid, list) else [self.invalid]

    @property
    def whole(self) -> "Whole":
        """The numbers of a whole type, before `bits` are taken."""
        if self.holds == "bcd":
            return Whole(0, 10 ** (4 * self.count) - 1)
        return Whole.binary(16 * self.count, signed=self.holds not in UNSIGNED)

    @property
    def named(self) -> "Whole":
        """The numbers that `names` may stand for."""
        if self.holds == "bool":
            return Whole(0, 1)
        bits = self.bit_range
        if bits is None:
            return self.whole
        width = bits[1] - bits[0] + 1
        return Whole.binary(width, signed=width > 1 and self.holds not in UNSIGNED)


class Whole(NamedTuple):
    """The whole numbers that something holds. Binary ones have two spellings: in 16 bits -1 is also 0xFFFF."""

    low: int
    high: int
    is_binary: bool = False

    @classmethod
    def binary(cls, bits: int, *, signed: bool) -> "Whole":
        low = -(1 << bits - 1) if signed else 0
        return cls(low, low + (1 << bits) - 1, True)

    def own(self, number: float) -> int | None:
        """As it is read, whichever way it is spelled; None for what is never read."""
        if isinstance(number, float) and not number.is_integer():
            return None
        number = int(number)
        size = self.high - self.low + 1
        if self.is_binary and -(size // 2) <= number < size:
            return (number - self.low) % size + self.low
        return number if self.low <= number <= self.high else None

    def __str__(self) -> str:
        second = f", the negative ones also written as {self.high + 1} to {self.high - self.low}"
        return f"{self.low} to {self.high}{second if self.low < 0 else ''}"


def problems(register: Register) -> Iterator[tuple[str, str]]:
    """(field, what is wrong with it)"""
    found = list(_wrong_shape(register))
    yield from found or (*_wrong_names(register), *_wrong_sentinels(register))


def _wrong_shape(register: Register) -> Iterator[tuple[str, str]]:
    holds, in_bits = register.holds, register.table in BIT_TABLES
    if in_bits != (holds == "bool"):
        right = '"bool"' if in_bits else 'not "bool"; take `bits` for a single bit of a register'
        yield "type", f"in table {register.table} must be {right}"
    if register.length is not None and holds not in ANY_LENGTH:
        yield "length", f"is for bcd and string; {holds} has its own"
    if holds == "string" and register.length is None:
        yield "length", "missing; how many registers the string has"
    if holds == "bcd" and register.count > BCD_REGISTERS_MAX:
        yield "length", f"of a bcd is at most {BCD_REGISTERS_MAX}"
    if not 0 <= register.at <= ADDRESSES - register.count:
        yield "at", f"the addresses are 0 to {ADDRESSES - 1}, and it takes {register.count}"
    bits = register.bit_range
    if bits is not None:
        if holds not in WHOLE or holds == "bcd":
            yield "bits", f"is for binary whole numbers, not {holds}"
        elif not bits[0] <= bits[1] < 16 * register.count:
            yield (
                "bits",
                f"{register.bits} are not bits of {holds}: 0 to {16 * register.count - 1}, low first",
            )
    if (register.scale, register.offset) != (1, 0) and (holds in ("bool", "string") or register.names):
        yield "scale", "and offset are for numbers without names"
    elif register.scale != 1 and bits is not None and bits[0] == bits[1]:
        yield "scale", "is for numbers, and a single bit is a boolean"
    for field, number in (("scale", register.scale), ("offset", register.offset)):
        if not abs(number) < SCALE_MAX:
            yield field, f"must be between {-SCALE_MAX:g} and {SCALE_MAX:g}"
    if register.scale == 0:
        yield "scale", "must not be 0"
    if register.names and holds not in WHOLE and holds != "bool":
        yield "names", f"are for whole numbers, coils and discrete inputs, not {holds}"
    if register.sentinels and holds in ("bool", "string"):
        yield "invalid", f"is for numbers, not {holds}"


def _wrong_names(register: Register) -> Iterator[tuple[str, str]]:
    seen: dict[int | None, str] = {}
    for code in register.names:
        if not re.fullmatch(r"-?(0|[1-9][0-9]{0,19})", code):
            yield "names", f"{code} must be a whole number"
            continue
        number = register.named.own(int(code))
        if number is None:
            yield "names", f"{code} is never read from {_source(register)}; possible are {register.named}"
        elif number in seen:
            yield "names", f"{seen[number]} and {code} are the same number in {_source(register)}"
        seen[number] = code


def _wrong_sentinels(register: Register) -> Iterator[tuple[str, str]]:
    right = register.whole if register.holds in WHOLE else "finite numbers"
    for number in register.sentinels:
        if _sentinel(register, number) is None:
            yield (
                "invalid",
                f"{number} is never read from {register.holds}; possible are {right}; scale and offset don't count here",
            )


def _sentinel(register: Register, number: float) -> float | None:
    """As it is read; None if it never is."""
    if register.holds in WHOLE:
        return register.whole.own(number)
    form = struct.Struct(">" + STRUCTS[register.holds])
    try:
        kept: float = form.unpack(form.pack(number))[0]
    except (struct.error, OverflowError):
        return None
    return kept if math.isfinite(kept) else None


def _sentinels(register: Register) -> frozenset[float | None]:
    return frozenset(_sentinel(register, number) for number in register.sentinels)


def _names(register: Register) -> dict[int, str]:
    """By the numbers as they are read."""
    spelled = ((register.named.own(int(code)), name) for code, name in register.names.items())
    return {number: name for number, name in spelled if number is not None}


def _source(register: Register) -> str:
    return register.holds if register.bits is None else f"bits {register.bits}"


class NoValue(ValueError):
    """The bytes came, but they are no value; says why."""


Decode = Callable[[bytes, int], Value]
"""A value from a block's data and the offset in it, in bytes; of bits, in bits. Raises NoValue."""


class Plain(NamedTuple):
    """A number that needs no more than a division: `code` is struct's, `divisor` a power of ten."""

    code: str
    divisor: int


def plain(register: Register, word_order: Order, byte_order: Order) -> Plain | None:
    """Most values are: a block's are then unpacked at once, in a tenth of the time of one decoder each."""
    divisor = _divisor(register)
    order = _permutation(register.count, register.word_order or word_order, register.byte_order or byte_order)
    if divisor is None or order is not None or register.holds not in STRUCTS:
        return None
    return Plain(STRUCTS[register.holds], divisor)


def _divisor(register: Register) -> int | None:
    """Of a whole number of which nothing but a power of ten is to be made; None for the others."""
    exponent = _decimals(register.scale)
    if (
        register.holds not in WHOLE
        or register.scale != 10**-exponent
        or register.offset
        or register.bits is not None
        or register.names
        or register.sentinels
    ):
        return None
    divisor: int = 10**exponent
    return divisor


def decoder(register: Register, word_order: Order, byte_order: Order) -> Decode:
    """The orders are the unit's, for a register without its own."""
    if register.holds == "bool":
        return _bit(register)
    order = _permutation(register.count, register.word_order or word_order, register.byte_order or byte_order)
    if register.holds == "string":
        return _string(register.count, order)
    raw = _bcd(register.count, order) if register.holds == "bcd" else _number(register.holds, order)
    return _refined(register, raw)


def _bit(register: Register) -> Decode:
    names = _names(register)

    def decode(data: bytes, offset: int) -> Value:
        bit = data[offset >> 3] >> (offset & 7) & 1
        return _named(names, bit) if names else bool(bit)

    return decode


def _permutation(count: int, word_order: Order, byte_order: Order) -> tuple[int, ...] | None:
    """Where each byte of the big-endian value is found; None if it is where it belongs."""
    words = range(count) if word_order == "big" else range(count - 1, -1, -1)
    pair = (0, 1) if byte_order == "big" else (1, 0)
    order = tuple(2 * word + byte for word in words for byte in pair)
    return None if order == tuple(range(2 * count)) else order


def _number(holds: str, order: tuple[int, ...] | None) -> Callable[[bytes, int], float]:
    unpack_from = struct.Struct(">" + STRUCTS[holds]).unpack_from
    if order is None:
        return lambda data, offset: unpack_from(data, offset)[0]
    return lambda data, offset: unpack_from(bytes([data[offset + place] for place in order]))[0]


def _bcd(count: int, order: tuple[int, ...] | None) -> Callable[[bytes, int], int]:
    places = order or tuple(range(2 * count))

    def decode(data: bytes, offset: int) -> int:
        digits = bytes([data[offset + place] for place in places]).hex()
        if not digits.isdecimal():
            raise NoValue(f"{digits} is not BCD")
        return int(digits)

    return decode


def _string(count: int, order: tuple[int, ...] | None) -> Decode:
    # The order of words is that of numbers; a string's first register is its first.
    swapped = order is not None and order[0] % 2 == 1
    places = [place ^ swapped for place in range(2 * count)]

    def decode(data: bytes, offset: int) -> Value:
        text = bytes([data[offset + place] for place in places]).partition(b"\0")[0]
        try:
            return text.decode().rstrip()
        except UnicodeDecodeError:
            raise NoValue(f"0x{text.hex()} is not UTF-8") from None

    return decode


def _refined(register: Register, raw: Callable[[bytes, int], float]) -> Decode:
    """The raw number with bits, names, scale and offset; the plain ones, which are most, cost nothing more."""
    scale, offset, bits = register.scale, register.offset, register.bit_range
    is_float = register.holds in ("float32", "float64")
    if is_float:
        return _float(raw, register)
    digits = max(_decimals(scale), _decimals(offset))
    scaled = (scale, offset) != (1, 0)
    divisor = _divisor(register)
    if divisor is not None:  # exact, and faster
        return raw if divisor == 1 else lambda data, at: raw(data, at) / divisor
    if bits is None and not register.names and not register.sentinels:
        return lambda data, at: round(raw(data, at) * scale + offset, digits)
    low, width = (0, 0) if bits is None else (bits[0], bits[1] - bits[0] + 1)
    names, sentinels, lowest = _names(register), _sentinels(register), register.named.low

    def decode(data: bytes, at: int) -> Value:
        number = raw(data, at)
        if number in sentinels:
            raise NoValue(NOTHING)
        if width:
            number = ((int(number) >> low) - lowest & (1 << width) - 1) + lowest
        if names:
            return _named(names, number)
        if width == 1:
            return bool(number)
        return round(number * scale + offset, digits) if scaled else number

    return decode


def _named(names: Mapping[int, str], number: float) -> str:
    name = names.get(int(number))
    if name is None:
        raise NoValue(f"{number} has no name")
    return name


def _float(raw: Callable[[bytes, int], float], register: Register) -> Decode:
    scale, offset, single = register.scale, register.offset, register.holds == "float32"
    scaled = (scale, offset) != (1, 0)
    sentinels = _sentinels(register)

    def decode(data: bytes, at: int) -> Value:
        number = raw(data, at)
        if number in sentinels:
            raise NoValue(NOTHING)
        if scaled:
            number = number * scale + offset
        if not math.isfinite(number):
            raise NoValue("not a number")
        if not single:
            return number
        return float(f"{number:.9g}") if scaled else _shortest(number)

    return decode


_SINGLE = struct.Struct(">f")


def _shortest(number: float) -> float:
    """The number with the fewest digits that is the same in 32 bits: 50.02, and not 50.02000045776367."""
    for digits in (7, 8):
        short = float(f"{number:.{digits}g}")
        if abs(short) < SINGLE_MAX and _SINGLE.unpack(_SINGLE.pack(short))[0] == number:
            return short
    return float(f"{number:.9g}")


def _decimals(number: float) -> int:
    exponent = Decimal(repr(number)).normalize().as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 0


def writing(
    register: Register, text: str, word_order: Order, byte_order: Order
) -> tuple[list[Request], Value]:
    """Requests that write a value given as text, and what is read then. Raises ValueError.

    Each does it alone; the next is for units that don't know the function of the one before.
    """
    if register.table in ("input", "discrete"):
        raise ValueError(f"{register.table} can only be read")
    if register.holds == "bool":
        on = bool(_unscaled(register, text)) if register.names else _switch(text)
        value = _names(register).get(int(on), on)
        return [write_coil(register.at, on), write_coils(register.at, [on])], value
    if register.bit_range is not None:
        if register.count > 1 or (register.byte_order or byte_order) == "little":
            raise ValueError("bits can only be written in a single register in the usual order")
        return _writing_bits(register, text, register.bit_range)
    words = encode(register, text, word_order, byte_order)
    expected = decoder(register, word_order, byte_order)(struct.pack(f">{len(words)}H", *words), 0)
    single = [write_register(register.at, words[0])] if len(words) == 1 else []
    return [*single, write_registers(register.at, words)], expected


def _switch(text: str) -> bool:
    words = {"on": True, "true": True, "1": True, "off": False, "false": False, "0": False}
    if text.lower() not in words:
        raise ValueError(f"{text!r} is neither on nor off")
    return words[text.lower()]


def _writing_bits(register: Register, text: str, bits: tuple[int, int]) -> tuple[list[Request], Value]:
    """The unit itself leaves the other bits as they are (function 22)."""
    low, high = bits
    width = high - low + 1
    is_switch = width == 1 and not register.names
    number = int(_switch(text)) if is_switch else int(_unscaled(register, text))
    if not register.named.low <= number <= register.named.high:
        raise ValueError(f"{number} does not fit into {width} bits")
    mask = (1 << width) - 1 << low
    expected = decoder(register, "big", "big")(struct.pack(">H", number << low & mask), 0)
    return [mask_register(register.at, 0xFFFF ^ mask, number << low & mask)], expected


def encode(register: Register, text: str, word_order: Order, byte_order: Order) -> tuple[int, ...]:
    """Registers that hold a value given as text: a number, one of `names`, or a string. Raises ValueError.

    Not for tables of bits, nor for `bits` of a register.
    """
    order = _permutation(register.count, register.word_order or word_order, register.byte_order or byte_order)
    if register.holds == "string":
        packed = text.encode()
        if len(packed) > 2 * register.count:
            raise ValueError(f"{text!r} is longer than {2 * register.count} bytes")
        packed = packed.ljust(2 * register.count, b"\0")
        if order is not None and order[0] % 2 == 1:
            packed = bytes(packed[place ^ 1] for place in range(len(packed)))
    else:
        packed = _packed(register, _unscaled(register, text))
        if order is not None:
            placed = dict(zip(order, packed, strict=True))
            packed = bytes(placed[place] for place in range(len(packed)))
    return struct.unpack(f">{register.count}H", packed)


def _unscaled(register: Register, text: str) -> float:
    for named, name in _names(register).items():
        if text == name:
            return named
    if register.names:
        raise ValueError(f"{text!r} is none of its names: {', '.join(register.names.values())}")
    try:
        # Decimal, because a 64-bit counter has more digits than a float.
        wanted = Decimal(text)
        number = (wanted - Decimal(repr(register.offset))) / Decimal(repr(register.scale))
    except ArithmeticError:
        raise ValueError(f"{text!r} is not a number") from None
    if not number.is_finite():
        raise ValueError(f"{text!r} is not a number that can be written")
    if register.holds not in WHOLE:
        return float(number)
    if number != number.to_integral_value():
        raise ValueError(f"{text} is between two values that it can hold; they are {register.scale:g} apart")
    return int(number)


def _packed(register: Register, number: float) -> bytes:
    if register.holds == "bcd":
        digits = f"{number:0{4 * register.count}d}"
        if number < 0 or len(digits) > 4 * register.count:
            raise ValueError(f"{number} does not fit into {4 * register.count} digits")
        return bytes.fromhex(digits)
    try:
        return struct.pack(">" + STRUCTS[register.holds], number)
    except (struct.error, OverflowError):
        raise ValueError(f"{number} does not fit into {register.holds}") from None
