"""One process at a time has the queue open: two SQLite libraries on one file corrupt it."""

import fcntl
import os
from pathlib import Path
from typing import NamedTuple

from gateway.errors import StorageError, StorageFailing
from gateway.queue.schema import make_directory, unusable

NOTE_BYTES = 128
OPEN = "open"


def lock_path(queue: Path) -> Path:
    return queue.with_suffix(".lock")


class Note(NamedTuple):
    """Which queue it is. `is_open`: its log holds something, until it is closed."""

    queue_id: str
    is_open: bool


class FileLock:
    """An flock on `path`, held from creation until `release` or the end of the process.

    Raises StorageError, StorageUnwritable where the file system takes no writes.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            make_directory(path.parent)
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        except OSError as error:
            raise unusable(path, error) from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._descriptor)
            raise StorageError(f"{path.parent}: in use by another tidegate process") from error

    def read(self) -> Note | None:
        """What the last holder noted."""
        words = os.pread(self._descriptor, NOTE_BYTES, 0).decode(errors="replace").split()
        return Note(words[0], words[1:] == [OPEN]) if words else None

    def note(self, note: Note) -> None:
        """In place, within one sector: after a power cut it is the old one or this one. Raises StorageFailing."""
        if note != self.read():
            text = f"{note.queue_id} {OPEN if note.is_open else ''}"
            try:
                os.pwrite(self._descriptor, text.ljust(NOTE_BYTES).encode(), 0)
                os.fsync(self._descriptor)
            except OSError as error:
                raise StorageFailing(f"{self._path}: {error.strerror}") from error

    def release(self) -> None:
        os.close(self._descriptor)


def in_use(queue: Path) -> bool:
    """Whether a process has its lock, also one that is still opening it. Makes nothing. Raises OSError."""
    descriptor = os.open(lock_path(queue), os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
