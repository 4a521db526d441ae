"""Disk space kept back for the moment when others have filled the disk: trimming what is delivered needs a few pages."""

import os
from contextlib import suppress
from pathlib import Path


class Reserve:
    """A file that only takes up room. `held` says whether it does."""

    def __init__(self, path: Path, size: int) -> None:
        self.size = size
        self._path = path
        try:
            self.held = path.stat().st_size >= size
        except FileNotFoundError:
            self.held = False

    def release(self) -> None:
        self._path.unlink(missing_ok=True)
        self.held = False

    def renew(self) -> None:
        """Without it if the disk can't give it: the next time may succeed."""
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            with suppress(OSError):
                os.posix_fallocate(descriptor, 0, self.size)
                self.held = True
        finally:
            os.close(descriptor)
        if not self.held:
            self.release()
