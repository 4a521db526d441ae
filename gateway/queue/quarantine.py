"""Damaged databases that were set aside: for whoever wants to look at them, as long as nothing else needs the room."""

import logging
import os
import secrets
import shutil
from contextlib import suppress
from pathlib import Path

from gateway.errors import StorageFailing
from gateway.queue.schema import SUFFIXES, make_directory, sync_directory
from gateway.queue.state import StorageDamaged

MOVING = "moving"
"""A note, with what is damaged, that files may still lie where they were: what lies there is the damaged database."""

UNFINISHED = "unfinished"
"""The same note once they are all here: what lies there now is a new database, until what can be saved is saved in it.
Up to then a quarantine is kept, whatever it costs."""

KEPT_MAX = 3

_log = logging.getLogger(__name__)


class Quarantine:
    def __init__(self, database: Path) -> None:
        self._database = database
        self._shelf = database.parent / "quarantine"
        self._suspicion = database.with_suffix(".damaged")

    def unfinished(self) -> Path | None:
        """With what a power cut kept from being moved."""
        if not self._shelf.is_dir():
            return None
        for folder in self._folders():
            with suppress(OSError):  # there is something in it
                folder.rmdir()
        for folder in (self._shelf.parent, self._shelf, *self._folders()):
            sync_directory(folder)  # what a process that was killed did may be in memory only
        for note in self._shelf.glob(f"*/{MOVING}"):
            self._move(note.parent)
        return next((note.parent for note in sorted(self._shelf.glob(f"*/{UNFINISHED}"))), None)

    def suspect(self, error: StorageFailing) -> None:
        """Damage that was found while the queue was in use: the next start sets it aside, whatever a check says."""
        if isinstance(error, StorageDamaged):
            with suppress(OSError):  # the next process that finds the damage tries again
                write(self._suspicion, str(error).encode())

    def suspected(self) -> str | None:
        return damage(self._suspicion) if self._suspicion.exists() else None

    def discard(self) -> None:
        """What was saved by halves."""
        for suffix in SUFFIXES:
            Path(f"{self._database}{suffix}").unlink(missing_ok=True)
        self._suspicion.unlink(missing_ok=True)

    def set_aside(self, damage: str) -> Path:
        """Raises OSError; what is not moved by then the next start moves."""
        self._forget_beyond(KEPT_MAX - 1)
        # By number: without a clock battery the newest may have the oldest time.
        numbers = [
            int(number) for folder in self._folders() if (number := folder.name.partition("-")[0]).isdigit()
        ]
        folder = self._shelf / f"{max(numbers, default=0) + 1:06}-{secrets.token_hex(2)}"
        make_directory(folder)
        try:
            write(folder / MOVING, damage.encode())
        except OSError:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        sync_directory(folder)
        self._move(folder)
        return folder

    def _move(self, folder: Path) -> None:
        for suffix in SUFFIXES:
            file = Path(f"{self._database}{suffix}")
            if file.exists():
                file.rename(folder / file.name)
        self._suspicion.unlink(missing_ok=True)
        sync_directory(folder)
        sync_directory(self._database.parent)
        (folder / MOVING).rename(folder / UNFINISHED)
        sync_directory(folder)

    def shrink(self, max_bytes: int) -> None:
        """To so many bytes; the newest is kept all the same."""
        while len(self._finished()) > 1 and sum(map(size, self._finished())) > max_bytes:
            if not self.forget_oldest():
                return

    def forget_oldest(self) -> bool:
        """Whether there was one that could go."""
        for oldest in self._finished()[:1]:
            _log.warning("a damaged database that was set aside makes room: %s", oldest)
            shutil.rmtree(oldest, ignore_errors=True)
            return not oldest.exists()
        return False

    def _forget_beyond(self, count: int) -> None:
        while len(self._finished()) > count:
            if not self.forget_oldest():
                return

    def _finished(self) -> list[Path]:
        """Oldest first."""
        return [
            folder
            for folder in self._folders()
            if not (folder / MOVING).exists() and not (folder / UNFINISHED).exists()
        ]

    def _folders(self) -> list[Path]:
        return sorted(self._shelf.glob("*/"))


def damage(note: Path) -> str:
    """What a note says. A power cut may have left it empty."""
    return note.read_text("utf-8", errors="replace") or "damage was seen in use"


def write(file: Path, content: bytes, *, cut: bool = True) -> None:
    """On disk when this returns, but for its name. Without `cut` what lies behind it stays."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        if cut:
            os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, content, 0)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())
