"""CBOR, as much of it as SenML needs (RFC 8949): no tags but decimal fractions and bigfloats, no bignums, nothing shared."""

import struct
from typing import Any

DEPTH_MAX = 16
EXPONENT_MAX = 1100
"""More than any double has, of 2 or of 10."""

_INDEFINITE = -1
_BREAK = object()


def decode(data: bytes) -> Any:
    """Exactly one item. Raises ValueError."""
    reader = _Reader(data)
    item = reader.item(0)
    if reader.left():
        raise ValueError("something follows the item")
    return item


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def left(self) -> int:
        return len(self._data) - self._at

    def item(self, depth: int) -> Any:
        found = self._item(depth)
        if found is _BREAK:
            raise ValueError("a break where nothing is open")
        return found

    def _item(self, depth: int) -> Any:
        if depth > DEPTH_MAX:
            raise ValueError(f"nested deeper than {DEPTH_MAX}")
        head = self._take(1)[0]
        kind, info = head >> 5, head & 0x1F
        if kind == 7:
            return self._simple(info)
        argument = self._argument(info, indefinite=kind in (2, 3, 4, 5))
        match kind:
            case 0:
                return argument
            case 1:
                return -1 - argument
            case 2:
                return self._string(kind, argument)
            case 3:
                return self._string(kind, argument).decode()
            case 4:
                return list(self._items(argument, depth))
            case 5:
                return self._map(argument, depth)
        return self._tagged(argument, depth)

    def _take(self, count: int) -> bytes:
        if count > self.left():
            raise ValueError("cut off")
        self._at += count
        return self._data[self._at - count : self._at]

    def _argument(self, info: int, indefinite: bool) -> int:
        if info < 24:
            return info
        if info < 28:
            return int.from_bytes(self._take(1 << info - 24), "big")
        if info == 31 and indefinite:
            return _INDEFINITE
        raise ValueError("a reserved length")

    def _simple(self, info: int) -> Any:
        match info:
            case 20 | 21:
                return info == 21
            case 22 | 23:
                return None
            case 25:
                return struct.unpack(">e", self._take(2))[0]
            case 26:
                return struct.unpack(">f", self._take(4))[0]
            case 27:
                return struct.unpack(">d", self._take(8))[0]
            case 31:
                return _BREAK
        raise ValueError("a simple value without meaning here")

    def _string(self, kind: int, length: int) -> bytes:
        if length != _INDEFINITE:
            return self._take(length)
        parts = []
        while (head := self._take(1)[0]) != 0xFF:
            if head >> 5 != kind:
                raise ValueError("a chunk of another kind")
            parts.append(self._take(self._argument(head & 0x1F, indefinite=False)))
        return b"".join(parts)

    def _items(self, count: int, depth: int) -> Any:
        if count == _INDEFINITE:
            while (item := self._item(depth + 1)) is not _BREAK:
                yield item
            return
        if count > self.left():
            raise ValueError("cut off")
        for _ in range(count):
            yield self.item(depth + 1)

    def _map(self, count: int, depth: int) -> dict[Any, Any]:
        items = list(self._items(count if count == _INDEFINITE else 2 * count, depth))
        keys = items[::2]
        if len(items) % 2 or not all(isinstance(key, str | int) for key in keys):
            raise ValueError("a map whose keys are not text or integers, or lack a value")
        found = dict(zip(keys, items[1::2], strict=True))
        if len(found) < len(keys):
            raise ValueError("a key comes twice in a map")
        return found

    def _tagged(self, tag: int, depth: int) -> float:
        """4 is [exponent of 10, mantissa], 5 [exponent of 2, mantissa]."""
        content = self.item(depth + 1)
        if (
            tag not in (4, 5)
            or not isinstance(content, list)
            or [type(part) for part in content] != [int, int]
        ):
            raise ValueError(f"tag {tag} is not understood, or not of its form")
        exponent, mantissa = content
        if abs(exponent) > EXPONENT_MAX:
            raise ValueError("an exponent beyond a double's")
        try:
            if tag == 4:
                return float(f"{mantissa}e{exponent}")
            return float(mantissa * 2.0**exponent)
        except OverflowError as error:
            raise ValueError("a number beyond a double's") from error
