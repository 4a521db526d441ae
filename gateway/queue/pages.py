"""Rows of table segment as they lie on the pages of a database and its log, whether a way leads to them or not.

Where a page is lost SQLite finds nothing of what that one leads to. Pages that it keeps free have rows that were deleted.
The format is https://sqlite.org/fileformat2.html, sections 1.6 and 2.1.
"""

import struct
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import apsw

from gateway.queue.log import newest_pages
from gateway.queue.store import PAGE_BYTES

LEAF = 0x0D
LEAF_HEADER_BYTES = 8
LOCAL_BYTES_MAX = PAGE_BYTES - 35
LOCAL_BYTES_MIN = (PAGE_BYTES - 12) * 32 // 255 - 23
OVERFLOW_BYTES = PAGE_BYTES - 4
FREE_BLOCK_BYTES_MIN = 4
CELLS_MAX = (PAGE_BYTES - LEAF_HEADER_BYTES) // 2

COLUMNS = 9
FIXED_BYTES = (0, 1, 2, 3, 4, 6, 8, 8, 0, 0, 0, 0)
"""By serial type: NULL, six integers, a float, the numbers 0 and 1, two that there are none of. From 12 on, text and blobs."""


class Row(NamedTuple):
    """`head` are the columns HEAD, as bytes where they are no integers; `cell` is where in the database the row begins. Its payload, of so
    many bytes, begins on that page at `at`, and in the payload the body at `body`."""

    head: tuple[Any, ...]
    cell: int
    at: int
    payload_bytes: int
    body: int


class Pages:
    def __init__(self, database: Path, vfs: str | None) -> None:
        """Raises apsw.CantOpenError."""
        log = Path(f"{database}-wal")
        self._newest = newest_pages(log, PAGE_BYTES)
        flags = [apsw.SQLITE_OPEN_MAIN_DB | apsw.SQLITE_OPEN_READONLY, 0]
        self._file = apsw.VFSFile(vfs or "", str(database), flags)
        self._log = log.open("rb") if self._newest else None

    @cached_property
    def _count(self) -> int:
        """Of pages. SQLite reads the last one also if not all of it is there."""
        try:
            of_file = -(-self._file.xFileSize() // PAGE_BYTES)
        except apsw.IOError:
            of_file = 0
        return max(of_file, max(self._newest, default=0))

    def rows(self) -> Iterator[Row]:
        for number in range(2, self._count + 1):
            page = self._page(number)
            if page and (page[0] ^ LEAF).bit_count() <= 1:
                for at in _cells(page):
                    row = self._row(number, at, page)
                    if row is not None:
                        yield row

    def row(self, cell: int) -> Row | None:
        """None if it can't be read any more."""
        before, at = divmod(cell, PAGE_BYTES)
        return self._row(before + 1, at, self._page(before + 1))

    def body(self, row: Row) -> bytes:
        """Of fewer bytes than it should have if not all of its pages are there."""
        local = _local_bytes(row.payload_bytes)
        page = self._page(row.cell // PAGE_BYTES + 1)
        content = bytearray(page[row.at : row.at + local])
        following = page[row.at + local : row.at + local + 4]
        while len(content) < row.payload_bytes:
            page = self._page(int.from_bytes(following, "big"))
            if not page:
                break
            following = page[:4]
            content += page[4 : 4 + row.payload_bytes - len(content)]
        return bytes(content[row.body :])

    def _row(self, number: int, at: int, page: bytes) -> Row | None:
        row = _parsed((number - 1) * PAGE_BYTES, at, page)
        return None if row is None or row.payload_bytes > self._count * PAGE_BYTES else row

    def _page(self, number: int) -> bytes:
        """Empty if there is none, or it can't be read."""
        if number < 1:
            return b""
        try:
            if number in self._newest and self._log is not None:
                self._log.seek(self._newest[number])
                return self._log.read(PAGE_BYTES)
            page = self._file.xRead(PAGE_BYTES, (number - 1) * PAGE_BYTES)
        except (OSError, apsw.IOError):
            return b""
        return page and page.ljust(PAGE_BYTES, b"\0")

    def close(self) -> None:
        self._file.xClose()
        if self._log is not None:
            self._log.close()


def _cells(page: bytes) -> Sequence[int]:
    """Where on the page its rows begin. If one bit of their number was flipped, the page tells: with the right number it is full. Behind
    the places of those rows lie old ones, which lead into the middle of what is there now, such as what a device sent."""
    counted = int.from_bytes(page[3:5], "big")
    for count in (counted, *(counted ^ 1 << bit for bit in range(CELLS_MAX.bit_length()))):
        cells = _places(page, count)
        if _is_full(page, cells):
            return cells
    return _places(page, counted)


def _places(page: bytes, count: int) -> Sequence[int]:
    count = min(count, CELLS_MAX)
    return struct.unpack_from(f">{count}H", page, LEAF_HEADER_BYTES)


def _is_full(page: bytes, cells: Iterable[int]) -> bool:
    """Whether these rows, the free blocks between them and the fragments are all that lies behind the page's gap."""
    try:
        parts = sorted([*((at, _cell_bytes(page, at)) for at in cells), *_free_blocks(page)])
    except IndexError:
        return False
    begin = int.from_bytes(page[5:7], "big")
    fragments = page[7]
    for at, size in parts:
        fragments -= at - begin
        if at < begin:
            return False
        begin = at + size
    return fragments == PAGE_BYTES - begin


def _free_blocks(page: bytes) -> Iterator[tuple[int, int]]:
    """(where, bytes) of each, in order. Raises IndexError."""
    last, at = 0, int.from_bytes(page[1:3], "big")
    while last < at <= PAGE_BYTES - FREE_BLOCK_BYTES_MIN:
        yield at, int.from_bytes(page[at + 2 : at + 4], "big")
        last, at = at, int.from_bytes(page[at : at + 2], "big")


def _cell_bytes(page: bytes, at: int) -> int:
    """Raises IndexError."""
    payload_bytes, end = _varint(page, at)
    _, end = _varint(page, end)
    local = _local_bytes(payload_bytes)
    return end - at + local + (4 if local < payload_bytes else 0)


def _parsed(begin: int, at: int, page: bytes) -> Row | None:
    """Of the page that begins there. None for what is no row of table segment."""
    cell = begin + at
    try:
        _, at = _varint(page, at)  # the size of its payload, which the types of its columns say, too
        row_id, at = _varint(page, at)
        header_bytes, next_type = _varint(page, at)
        types: list[int] = []
        while next_type < at + header_bytes and len(types) < COLUMNS:
            kind, next_type = _varint(page, next_type)
            types.append(kind)
    except IndexError:
        return None
    if (
        len(types) < COLUMNS
        or next_type != at + header_bytes
        or _bytes(types[0])
        or types[-1] < 12
        or types[-1] % 2
    ):
        return None
    head: list[int | bytes] = [row_id if row_id < 1 << 63 else row_id - (1 << 64)]
    column = next_type
    for kind in types[1:-1]:
        size = _bytes(kind)
        head.append(_value(kind, page[column : column + size]))
        column += size
    payload_bytes = column - at + _bytes(types[-1])
    return Row(tuple(head), cell, at, payload_bytes, column - at)


def _value(kind: int, column: bytes) -> int | bytes:
    if kind in (8, 9):
        return kind - 8
    return int.from_bytes(column, "big", signed=True) if 1 <= kind <= 6 else column


def _bytes(kind: int) -> int:
    return FIXED_BYTES[kind] if kind < 12 else (kind - 12) // 2


def _local_bytes(payload_bytes: int) -> int:
    """So much of it lies on the leaf, the rest on pages of its own."""
    if payload_bytes <= LOCAL_BYTES_MAX:
        return payload_bytes
    kept = LOCAL_BYTES_MIN + (payload_bytes - LOCAL_BYTES_MIN) % OVERFLOW_BYTES
    return kept if kept <= LOCAL_BYTES_MAX else LOCAL_BYTES_MIN


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """(value, where the next one begins). Raises IndexError."""
    value = 0
    for place in range(at, at + 8):
        value = value << 7 | data[place] & 0x7F
        if data[place] < 0x80:
            return value, place + 1
    return value << 8 | data[at + 8], at + 9
