"""One process at a time has the queue open: two SQLite libraries on one file corrupt it."""

import errno
import fcntl
import os
from pathlib import Path

from gateway.errors import StorageError, StorageReadOnly
from gateway.queue.schema import make_directory


class FileLock:
    """An flock on `path`, held from creation until `release` or the end of the process.

    Raises StorageError, StorageReadOnly where the file system takes no writes.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            make_directory(path.parent)
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        except OSError as error:
            kind = StorageReadOnly if error.errno == errno.EROFS else StorageError
            raise kind(f"{path}: {error.strerror}") from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._descriptor)
            raise StorageError(f"{path.parent}: in use by another tidegate process") from error

    def read(self) -> str | None:
        """What the last holder noted."""
        return os.pread(self._descriptor, 256, 0).decode(errors="replace") or None

    def note(self, text: str) -> None:
        if text != self.read():
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, text.encode(), 0)
            os.fsync(self._descriptor)

    def release(self) -> None:
        os.close(self._descriptor)
