"""What SQLite's write-ahead log holds behind the last commit that SQLite takes from it.

SQLite stops at the first frame whose checksum is wrong and says nothing: after a power cut that is the commit that was
being written. Only one can be: it is flushed before the next one begins. The format is
https://sqlite.org/fileformat2.html#walformat.
"""

import struct
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

HEADER_BYTES = 32
FRAME_HEADER_BYTES = 24
MAGIC = (b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83")
"""The last bit says in which byte order the checksums are counted."""


def has_header(log: Path) -> bool:
    """It is overwritten in place, within one sector, so no power cut leaves half of it."""
    return log.exists() and _is_sound(_header(log))


def lost_commits(log: Path, frames: int, page_bytes: int) -> bool:
    """Whether something was committed, and acknowledged, behind the first `frames`: what stands before it was damaged.

    Where a frame goes on from the checksums of a commit, that commit was flushed. What an earlier power cut left
    behind has the same salt, but its checksums don't go on from what was written over it. Of the first frame that is damaged
    the checksum may be what is wrong: the one that it should have counts, too.
    """
    if not log.exists():
        return False
    with log.open("rb") as file:
        header = file.read(HEADER_BYTES)
        if len(header) < HEADER_BYTES:
            return False
        if not _is_sound(header):
            return True
        before, frame_bytes = header[24:], FRAME_HEADER_BYTES + page_bytes
        if frames:
            file.seek(HEADER_BYTES + (frames - 1) * frame_bytes)
            before = file.read(FRAME_HEADER_BYTES)[16:]
        file.seek(HEADER_BYTES + frames * frame_bytes)
        behind_commit = False
        for frame in _frames(file, header, before, page_bytes):
            if behind_commit and frame.goes_on:
                return True
            behind_commit = frame.commits
    return False


def newest_pages(log: Path, page_bytes: int) -> Mapping[int, int]:
    """{page: offset of its newest content in the log}, of the commits that SQLite takes."""
    pages: dict[int, int] = {}
    with suppress(OSError), log.open("rb") as file:
        header = file.read(HEADER_BYTES)
        if not _is_sound(header):
            return pages
        uncommitted: dict[int, int] = {}
        for frame in _frames(file, header, header[24:], page_bytes):
            if not (frame.goes_on and frame.has_salt):
                break
            uncommitted[frame.page] = frame.at
            if frame.commits:
                pages |= uncommitted
                uncommitted = {}
    return pages


class _Frame(NamedTuple):
    """Of page `page`, whose content lies at `at`. Whether it says that it is of this log; whether its checksum, which doesn't count that in,
    goes on from that of the frame before; whether it ends a transaction of this log, and none that the log before left behind."""

    page: int
    at: int
    has_salt: bool
    goes_on: bool
    commits: bool


def _frames(file: BinaryIO, header: bytes, before: bytes, page_bytes: int) -> Iterator[_Frame]:
    """From where the file is read; `before` is the checksum of the frame before, or of the header."""
    order, frame_bytes = _order(header), FRAME_HEADER_BYTES + page_bytes
    sound: bytes | None = before
    possible = {before}
    while len(frame := file.read(frame_bytes)) == frame_bytes:
        content, told = frame[:8] + frame[FRAME_HEADER_BYTES:], frame[16:24]
        goes_on = any(_checksum(content, order, one) == told for one in possible)
        should = told if goes_on or sound is None else _checksum(content, order, sound)
        has_salt = frame[8:16] == header[16:24]
        is_ours = goes_on or has_salt
        sound, possible = (told, {told}) if goes_on else (None, {told, should} if is_ours else set())
        page = int.from_bytes(frame[:4], "big")
        yield _Frame(page, file.tell() - page_bytes, has_salt, goes_on, is_ours and frame[4:8] != bytes(4))


def _header(log: Path) -> bytes:
    with log.open("rb") as file:
        return file.read(HEADER_BYTES)


def _is_sound(header: bytes) -> bool:
    if len(header) < HEADER_BYTES or header[:4] not in MAGIC:
        return False
    return _checksum(header[:24], _order(header), bytes(8)) == header[24:]


def _order(header: bytes) -> str:
    return ">" if header[3] & 1 else "<"


def _checksum(content: bytes, order: str, before: bytes) -> bytes:
    one, other = struct.unpack(">2I", before)
    words = struct.unpack(f"{order}{len(content) // 4}I", content)
    for first, second in zip(words[::2], words[1::2], strict=True):
        one = (one + first + other) & 0xFFFFFFFF
        other = (other + second + one) & 0xFFFFFFFF
    return struct.pack(">2I", one, other)
