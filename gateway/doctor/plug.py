"""Whether a disk keeps what it says it flushed, as only a power cut can show.

Step one writes numbered blocks; each is flushed before its number is told. Somebody at another machine sees the last
number and pulls the plug. Step two, after power-up, looks whether that number is on the disk.
"""

import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from gateway.clock import boot_id

FILE = "plug-check"
BLOCK_BYTES = 4096
BLOCKS = 256
_MARKER = struct.Struct(">16sQ36sI")
_MAGIC = b"tidegate plug 1\0"


class Kept(NamedTuple):
    """`last` is the largest number on the disk; `rebooted` whether the machine started anew since it was written."""

    last: int
    rebooted: bool


def pull(folder: Path) -> Iterator[int]:
    """Numbers that are on the disk, if the disk is honest; without end. Raises OSError."""
    path = folder / FILE
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    boot = boot_id().encode()
    try:
        os.pwrite(descriptor, bytes(BLOCK_BYTES * BLOCKS), 0)
        os.fsync(descriptor)
        _sync(folder)
        number = 0
        while True:
            number += 1
            os.pwrite(descriptor, _block(number, boot), number % BLOCKS * BLOCK_BYTES)
            os.fdatasync(descriptor)
            yield number
    finally:
        os.close(descriptor)


def look(folder: Path) -> Kept:
    """Raises OSError; ValueError if step one has left nothing here."""
    path = folder / FILE
    data = path.read_bytes()
    found = [_number(data[at : at + BLOCK_BYTES]) for at in range(0, len(data), BLOCK_BYTES)]
    kept = [one for one in found if one is not None]
    if not kept:
        raise ValueError(f"{path} holds no numbers")
    last, boot = max(kept)
    return Kept(last, boot != boot_id())


def _block(number: int, boot: bytes) -> bytes:
    marker = _MARKER.pack(_MAGIC, number, boot, 0)
    return (marker[:-4] + zlib.crc32(marker[:-4]).to_bytes(4, "big")).ljust(BLOCK_BYTES, b"\xaa")


def _number(block: bytes) -> tuple[int, str] | None:
    if len(block) < _MARKER.size:
        return None
    magic, number, boot, checksum = _MARKER.unpack_from(block)
    if magic != _MAGIC or checksum != zlib.crc32(block[: _MARKER.size - 4]):
        return None
    return number, boot.decode()


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
