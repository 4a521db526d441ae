"""What SQLite's write-ahead log holds behind the last commit that SQLite takes from it.

SQLite stops at the first frame whose checksum is wrong and says nothing: after a power cut that is the commit that was
being written. Only one can be: it is flushed before the next one begins. The format is
https://sqlite.org/fileformat2.html#walformat.
"""

import struct
from contextlib import suppress
from pathlib import Path

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
        order = _order(header)
        frame_bytes = FRAME_HEADER_BYTES + page_bytes
        sound: bytes | None = header[24:]
        if frames:
            file.seek(HEADER_BYTES + (frames - 1) * frame_bytes)
            sound = file.read(FRAME_HEADER_BYTES)[16:]
        file.seek(HEADER_BYTES + frames * frame_bytes)
        commit: set[bytes] = set()
        while len(frame := file.read(frame_bytes)) == frame_bytes:
            content, told = frame[:8] + frame[FRAME_HEADER_BYTES:], frame[16:24]
            if any(_checksum(content, order, before) == told for before in commit):
                return True
            should = told if sound is None else _checksum(content, order, sound)
            sound = told if sound is not None and should == told else None
            is_ours = sound is not None or frame[8:16] == header[16:24]
            commit = {told, should} if is_ours and frame[4:8] != bytes(4) else set()
    return False


def newest_pages(log: Path, page_bytes: int) -> dict[int, int]:
    """{page: offset of its content in the log}, of what SQLite takes from it; nothing behind what can't be read."""
    newest: dict[int, int] = {}
    with suppress(OSError):
        if not has_header(log):
            return newest
        with log.open("rb") as file:
            header = file.read(HEADER_BYTES)
            before, uncommitted = header[24:], {}
            while len(frame := file.read(FRAME_HEADER_BYTES + page_bytes)) == FRAME_HEADER_BYTES + page_bytes:
                before = _checksum(frame[:8] + frame[FRAME_HEADER_BYTES:], _order(header), before)
                if frame[8:24] != header[16:24] + before:
                    break
                uncommitted[int.from_bytes(frame[:4], "big")] = file.tell() - page_bytes
                if frame[4:8] != bytes(4):
                    newest |= uncommitted
                    uncommitted = {}
    return newest


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
