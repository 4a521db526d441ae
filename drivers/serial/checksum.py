"""Sums, xors and cyclic redundancy checks by their parameters.

A crc's parameters are those of the Rocksoft model (Williams, A Painless Guide to CRC Error Detection Algorithms),
with one `reflect` for input and output.
"""

from functools import reduce
from operator import xor

from drivers.serial import Check


class Checksum:
    def __init__(self, check: Check) -> None:
        self._check = check
        self._mask = (1 << check.width) - 1
        self._table = _table(check.polynomial, check.width, check.reflect) if check.kind == "crc" else []
        self._bytes = check.width // 8 * (2 if check.encoding == "hex" else 1)

    def of(self, data: bytes) -> int:
        check = self._check
        value = check.init
        if check.kind == "sum":
            value += sum(data)
        elif check.kind == "xor":
            value = reduce(xor, data, value)
        elif check.reflect:
            value = _mirrored(value, check.width)
            for byte in data:
                value = (value >> 8) ^ self._table[(value ^ byte) & 0xFF]
        else:
            for byte in data:
                value = (value << 8) & self._mask ^ self._table[(value >> check.width - 8 ^ byte) & 0xFF]
        return (value & self._mask) ^ check.xor_out

    def holds(self, frame: bytes) -> bool:
        """Whether the frame has the check that belongs to its bytes; one too short for a check has not."""
        check = self._check
        at = check.at if check.at >= 0 else len(frame) + check.at
        written = frame[at : at + self._bytes]
        covered = frame[check.covers_from : at if check.covers_to is None else check.covers_to]
        if at < 0 or len(written) != self._bytes or not covered:
            return False
        if check.encoding == "hex":
            try:
                written = bytes.fromhex(written.decode("ascii"))
            except ValueError:
                return False
        return int.from_bytes(written, check.byte_order) == self.of(covered)


def _table(polynomial: int, width: int, reflect: bool) -> list[int]:
    mask = (1 << width) - 1
    table = []
    for byte in range(256):
        if reflect:
            value = byte
            mirrored = _mirrored(polynomial, width)
            for _ in range(8):
                value = value >> 1 ^ (mirrored if value & 1 else 0)
        else:
            value = byte << width - 8
            for _ in range(8):
                value = (value << 1 ^ (polynomial if value >> width - 1 else 0)) & mask
        table.append(value)
    return table


def _mirrored(value: int, width: int) -> int:
    return int(f"{value:0{width}b}"[::-1], 2)
