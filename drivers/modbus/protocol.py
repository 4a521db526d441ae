"""Requests and answers of the Modbus Application Protocol V1.1b3, and their frames: RTU (Modbus over Serial Line V1.02)
and TCP (Modbus Messaging on TCP/IP V1.0b). Bytes in, values out.
"""

import struct
from collections.abc import Sequence
from typing import Literal, NamedTuple

Table = Literal["holding", "input", "coil", "discrete"]

READ_FUNCTIONS: dict[Table, int] = {"coil": 1, "discrete": 2, "holding": 3, "input": 4}
BIT_TABLES = frozenset[Table](("coil", "discrete"))
WRITE_COIL, WRITE_REGISTER, WRITE_COILS, WRITE_REGISTERS = 5, 6, 15, 16
MASK_REGISTER, EXCHANGE_REGISTERS = 22, 23
EXCEPTION = 0x80

READ_REGISTERS_MAX = 125
READ_BITS_MAX = 2000
WRITE_REGISTERS_MAX = 123
WRITE_BITS_MAX = 1968
EXCHANGE_WRITE_REGISTERS_MAX = 121
ADDRESSES = 65_536
UNIT_MAX = 247
"""Highest address of a unit on a serial line; 0 is all of them."""

EXCEPTIONS = {
    1: "illegal function",
    2: "illegal data address",
    3: "illegal data value",
    4: "device failure",
    5: "acknowledged, still working",
    6: "device busy",
    8: "memory parity error",
    10: "gateway path unavailable",
    11: "gateway target does not answer",
}
ILLEGAL_FUNCTION, ILLEGAL_ADDRESS, ILLEGAL_VALUE, DEVICE_FAILURE = 1, 2, 3, 4
UNREACHED = frozenset((10, 11))
"""A gateway's word that it is not the unit that answers."""

RTU_EXCEPTION_BYTES = 5
RTU_OVERHEAD_BYTES = 3
"""The unit's address and the checksum."""

NOISE_BYTES_MAX = 2
"""Bytes before an answer that are taken for noise of the line's turn-around. Inside a frame, data begins with the fourth."""

TCP_HEADER_BYTES = 7
TCP_PDU_BYTES_MAX = 253


class Request(NamedTuple):
    """`head` is what a good answer's PDU begins with: function and number of bytes of an answer with data, else all of it."""

    pdu: bytes
    head: bytes

    @property
    def answer_bytes(self) -> int:
        """How long the PDU of a good answer is."""
        return 2 + self.head[1] if len(self.head) == 2 else len(self.head)

    @property
    def repeats(self) -> bool:
        """Whether the good answer is the request again, so that an echo can't be told from it."""
        return self.head == self.pdu


class ExceptionAnswer(Exception):
    """The unit understood the request and refuses it."""

    def __init__(self, code: int) -> None:
        super().__init__(EXCEPTIONS.get(code, f"exception {code}"))
        self.code = code


def read(table: Table, at: int, count: int) -> Request:
    """`count` registers or bits from address `at` on: functions 1 to 4. Raises ValueError."""
    bits = table in BIT_TABLES
    _check(at, count, READ_BITS_MAX if bits else READ_REGISTERS_MAX)
    function = READ_FUNCTIONS[table]
    size = (count + 7) // 8 if bits else 2 * count
    return Request(struct.pack(">BHH", function, at, count), bytes((function, size)))


def write_coil(at: int, on: bool) -> Request:
    _check(at, 1, 1)
    return _repeated(struct.pack(">BHH", WRITE_COIL, at, 0xFF00 if on else 0))


def write_register(at: int, value: int) -> Request:
    """Raises ValueError for a value that is no unsigned 16-bit number."""
    _check(at, 1, 1)
    return _repeated(struct.pack(">BHH", WRITE_REGISTER, at, *_words((value,))))


def write_coils(at: int, bits: Sequence[bool]) -> Request:
    _check(at, len(bits), WRITE_BITS_MAX)
    data = bytearray((len(bits) + 7) // 8)
    for number, bit in enumerate(bits):
        data[number // 8] |= bit << number % 8
    head = struct.pack(">BHH", WRITE_COILS, at, len(bits))
    return Request(head + bytes((len(data),)) + data, head)


def write_registers(at: int, values: Sequence[int]) -> Request:
    _check(at, len(values), WRITE_REGISTERS_MAX)
    head = struct.pack(">BHH", WRITE_REGISTERS, at, len(values))
    return Request(head + _counted(values), head)


def mask_register(at: int, and_mask: int, or_mask: int) -> Request:
    """The register becomes (itself AND and_mask) OR (or_mask AND NOT and_mask); section 6.16."""
    _check(at, 1, 1)
    return _repeated(struct.pack(">BHHH", MASK_REGISTER, at, *_words((and_mask, or_mask))))


def exchange_registers(at: int, count: int, write_at: int, values: Sequence[int]) -> Request:
    """The unit writes first, then reads; section 6.17."""
    _check(at, count, READ_REGISTERS_MAX)
    _check(write_at, len(values), EXCHANGE_WRITE_REGISTERS_MAX)
    pdu = struct.pack(">BHHHH", EXCHANGE_REGISTERS, at, count, write_at, len(values)) + _counted(values)
    return Request(pdu, bytes((EXCHANGE_REGISTERS, 2 * count)))


def _check(at: int, count: int, most: int) -> None:
    if not 0 <= at < ADDRESSES:
        raise ValueError(f"address {at} is not one of 0 to {ADDRESSES - 1}")
    if not 1 <= count <= most:
        raise ValueError(f"{count} at a time is not possible; 1 to {most} are")
    if at + count > ADDRESSES:
        raise ValueError(f"{count} from address {at} on end behind the last address, {ADDRESSES - 1}")


def _repeated(pdu: bytes) -> Request:
    return Request(pdu, pdu)


def _words(values: Sequence[int]) -> Sequence[int]:
    for value in values:
        if not 0 <= value <= 0xFFFF:
            raise ValueError(f"{value} is no unsigned 16-bit number")
    return values


def _counted(values: Sequence[int]) -> bytes:
    return struct.pack(f">B{len(values)}H", 2 * len(values), *_words(values))


def data(request: Request, pdu: bytes) -> bytes:
    """What a PDU holds behind its head. Raises ExceptionAnswer, or ValueError if it is no answer to the request."""
    if len(pdu) == 2 and pdu[0] == request.pdu[0] | EXCEPTION:
        raise ExceptionAnswer(pdu[1])
    if len(pdu) != request.answer_bytes or not pdu.startswith(request.head):
        raise ValueError("not an answer to the request")
    return pdu[len(request.head) :]


def _crc_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xA001 if crc & 1 else 0)
        table.append(crc)
    return tuple(table)


_CRC = _crc_table()


def checksum(frame: bytes | bytearray) -> bytes:
    """CRC-16 with the polynomial A001 (reflected), low byte first; over a frame with its checksum it is zero."""
    crc = 0xFFFF
    table = _CRC
    for byte in frame:
        crc = crc >> 8 ^ table[(crc ^ byte) & 0xFF]
    return bytes((crc & 0xFF, crc >> 8))


def rtu_frame(unit: int, pdu: bytes) -> bytes:
    frame = bytes((unit,)) + pdu
    return frame + checksum(frame)


def rtu_answer_bytes(request: Request) -> int:
    return request.answer_bytes + RTU_OVERHEAD_BYTES


def rtu_answer(received: bytes | bytearray, unit: int, request: Request) -> tuple[bytes, int] | None:
    """The PDU of an answer to the request, and where it ends in what was received; None as long as there is none.

    Before the answer there may be a little noise; an answer inside another unit's frame is none.
    """
    for start in range(min(NOISE_BYTES_MAX, len(received) - RTU_EXCEPTION_BYTES) + 1):
        if received[start] != unit:
            continue
        function = received[start + 1]
        if function == request.pdu[0] | EXCEPTION:
            end = start + RTU_EXCEPTION_BYTES
        elif received.startswith(request.head, start + 1):
            end = start + rtu_answer_bytes(request)
        else:
            continue
        if end <= len(received) and checksum(received[start:end]) == b"\0\0":
            return bytes(received[start + 1 : end - 2]), end
    return None


def tcp_frame(transaction: int, unit: int, pdu: bytes) -> bytes:
    return struct.pack(">HHHB", transaction, 0, len(pdu) + 1, unit) + pdu


class TcpFrame(NamedTuple):
    transaction: int
    unit: int
    pdu: bytes
    size: int


def tcp_answer(received: bytes | bytearray) -> TcpFrame | None:
    """The first frame of what was received; None as long as it is not whole. Raises ValueError if it can't be one."""
    if len(received) < TCP_HEADER_BYTES:
        return None
    transaction, protocol, length, unit = struct.unpack_from(">HHHB", received)
    if protocol != 0 or not 2 <= length - 1 <= TCP_PDU_BYTES_MAX:
        raise ValueError("not a Modbus TCP frame")
    end = TCP_HEADER_BYTES + length - 1
    if len(received) < end:
        return None
    return TcpFrame(transaction, unit, bytes(received[TCP_HEADER_BYTES:end]), end)
