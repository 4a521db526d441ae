"""What SQLite's write-ahead log holds behind the last commit that SQLite takes from it.

SQLite stops at the first frame whose checksum is wrong and says nothing: after a power cut that is the commit that was
being written. Only one can be: it is flushed before the next one begins. Two or more commits that lie behind were
acknowledged, and what stands before them was damaged later. The format is https://sqlite.org/fileformat2.html#walformat.
"""

import os
import struct
from pathlib import Path

HEADER_BYTES = 32
FRAME_HEADER_BYTES = 24
MAGIC = (b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83")
"""The last bit says in which byte order the checksums are counted."""


def has_header(log: Path) -> bool:
    """It is overwritten in place, within one sector, so no power cut leaves half of it."""
    return log.exists() and _is_sound(_header(log))


def commits_behind(log: Path, frames: int, page_bytes: int) -> int:
    """In the frames after the first `frames`, of the log's present generation."""
    if not log.exists():
        return 0
    header = _header(log)
    salt = header[16:24] if _is_sound(header) else None
    commits = 0
    with log.open("rb") as file:
        file.seek(HEADER_BYTES + frames * (FRAME_HEADER_BYTES + page_bytes))
        while len(frame := file.read(FRAME_HEADER_BYTES)) == FRAME_HEADER_BYTES:
            salt = salt or frame[8:16]
            commits += frame[8:16] == salt and frame[4:8] != bytes(4)
            file.seek(page_bytes, os.SEEK_CUR)
    return commits


def _header(log: Path) -> bytes:
    with log.open("rb") as file:
        return file.read(HEADER_BYTES)


def _is_sound(header: bytes) -> bool:
    if len(header) < HEADER_BYTES or header[:4] not in MAGIC:
        return False
    order = ">" if header[3] & 1 else "<"
    words = struct.unpack(f"{order}6I", header[:24])
    one = other = 0
    for first, second in zip(words[::2], words[1::2], strict=True):
        one = (one + first + other) & 0xFFFFFFFF
        other = (other + second + one) & 0xFFFFFFFF
    return (one, other) == struct.unpack(">2I", header[24:])
