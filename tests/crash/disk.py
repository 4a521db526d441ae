"""What is on a disk after a power cut: what was synced, and of the rest whatever the disk likes.

A file's bytes are safe once the file is synced, its name once its directory is: that is all POSIX promises. Of what is
not safe each write, truncation, creation, deletion and renaming is kept or lost by itself; a torn write keeps any of
its sectors. A sector is old or new, never in between.
"""

import random
from collections.abc import Mapping
from enum import Enum
from pathlib import Path, PurePosixPath
from typing import NamedTuple

SECTOR_BYTES = 512

DIRECTORY = 0
"""In place of a file's number."""


class Write(NamedTuple):
    file: int
    offset: int
    data: bytes


class Truncate(NamedTuple):
    """To a shorter or a longer file; what is new is zero."""

    file: int
    size: int


class Sync(NamedTuple):
    file: int


class Name(NamedTuple):
    """A new file or directory."""

    path: str
    file: int


class Unlink(NamedTuple):
    path: str


class Rename(NamedTuple):
    path: str
    to: str


class SyncNames(NamedTuple):
    directory: str


Bytes = Write | Truncate
Names = Name | Unlink | Rename
Operation = Bytes | Sync | Names | SyncNames


class Fate(Enum):
    """What becomes of the operations that are not safe."""

    LOST = "all lost"
    KEPT = "all kept"
    REORDERED = "any kept, any lost"
    TORN = "any sector of 512 bytes kept or lost"


class Disk:
    """`files` are bytes by number, `names` numbers by path; both as they are safe."""

    def __init__(self, image: Mapping[str, bytes]) -> None:
        self.names = {path: number for number, path in enumerate(sorted(image), 1)}
        self.files = {number: image[path] for path, number in self.names.items()}
        self.names["."] = DIRECTORY
        for path in image:
            self.names |= {str(parent): DIRECTORY for parent in PurePosixPath(path).parents}
        self._unsafe_bytes: dict[int, list[Bytes]] = {}
        self._unsafe_names: list[Names] = []

    def happens(self, operation: Operation) -> None:
        match operation:
            case Write(file) | Truncate(file):
                self._unsafe_bytes.setdefault(file, []).append(operation)
            case Sync(file):
                self.files[file] = self._content(file, Fate.KEPT, random.Random())
                self._unsafe_bytes.pop(file, None)
            case SyncNames(directory):
                safe = [change for change in self._unsafe_names if _concerns(change, directory)]
                self._unsafe_names = [one for one in self._unsafe_names if not _concerns(one, directory)]
                for name in safe:
                    _rename(self.names, name)
            case _:
                self._unsafe_names.append(operation)

    def image(self, fate: Fate, rng: random.Random) -> dict[str, bytes]:
        """Files by path, if the power goes now."""
        return {
            path: self._content(number, fate, rng)
            for path, number in sorted(self._names(fate, rng).items())
            if number != DIRECTORY
        }

    def seen_names(self) -> dict[str, int]:
        """What a process sees, safe or not."""
        return self._names(Fate.KEPT, random.Random())

    def _names(self, fate: Fate, rng: random.Random) -> dict[str, int]:
        names = dict(self.names)
        for change in self._unsafe_names:
            if fate is Fate.KEPT or (fate is not Fate.LOST and rng.random() < 0.5):
                _rename(names, change)
        return names

    @property
    def is_safe(self) -> bool:
        return not self._unsafe_bytes and not self._unsafe_names

    @property
    def names_are_safe(self) -> bool:
        return not self._unsafe_names

    def _content(self, number: int, fate: Fate, rng: random.Random) -> bytes:
        safe = self.files.get(number, b"")
        unsafe = self._unsafe_bytes.get(number)
        if unsafe is None or fate is Fate.LOST:
            return safe
        content = bytearray(safe)
        for change in unsafe:
            if fate is Fate.TORN and isinstance(change, Write):
                for sector in _sectors(change):
                    if rng.random() < 0.5:
                        _change(content, sector)
            elif fate is Fate.KEPT or rng.random() < 0.5:
                _change(content, change)
        return bytes(content)


def _concerns(change: Names, directory: str) -> bool:
    paths = (change.path, change.to) if isinstance(change, Rename) else (change.path,)
    return any(str(PurePosixPath(path).parent) == directory for path in paths)


def _rename(names: dict[str, int], change: Names) -> None:
    """A change that needs another one, which was lost, is lost too."""
    match change:
        case Name(path, file):
            parent = str(PurePosixPath(path).parent)
            if parent == "." or parent in names:
                names[path] = file
        case Unlink(path):
            names.pop(path, None)
        case Rename(path, to):
            if path in names and str(PurePosixPath(to).parent) in names:
                names[to] = names.pop(path)


def _change(content: bytearray, change: Bytes) -> None:
    if isinstance(change, Truncate):
        content.extend(bytes(max(0, change.size - len(content))))
        del content[change.size :]
    else:
        content.extend(bytes(max(0, change.offset - len(content))))
        content[change.offset : change.offset + len(change.data)] = change.data


def _sectors(write: Write) -> list[Write]:
    end = write.offset + len(write.data)
    begins = [write.offset, *range((write.offset // SECTOR_BYTES + 1) * SECTOR_BYTES, end, SECTOR_BYTES)]
    return [
        Write(write.file, begin, write.data[begin - write.offset : after - write.offset])
        for begin, after in zip(begins, [*begins[1:], end], strict=True)
    ]


def fingerprint(image: Mapping[str, bytes]) -> int:
    """Of the content, in this process. Python keeps the hash of bytes that are the same object as before."""
    return hash(tuple(image.items()))


def lay_out(image: Mapping[str, bytes], folder: Path) -> None:
    for path, content in image.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
