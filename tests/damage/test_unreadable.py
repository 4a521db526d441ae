"""A sector that can't be read any more: what is elsewhere is saved."""

import errno
import os
from pathlib import Path
from typing import Any

import apsw
import pytest

from gateway.clock import SystemClock
from gateway.errors import StorageFailing
from gateway.queue import Queue
from tests.damage.victim import make_victim, settings
from tests.queue.rig import drain

BAD = range(40 * 4096, 60 * 4096)


class BadDisk(apsw.VFS):
    """Wherever the file is moved to."""

    def __init__(self, inode: int) -> None:
        super().__init__("bad-disk", "")
        self._inode = inode

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:  # noqa: N802 the names are apsw's
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        file = BadFile("", path, flags)
        file.bad = os.stat(path).st_ino == self._inode
        return file


class BadFile(apsw.VFSFile):
    bad = False

    def xRead(self, amount: int, offset: int) -> bytes:  # noqa: N802
        if self.bad and offset in BAD:
            error = apsw.IOError("input/output error")
            error.extendedresult = apsw.SQLITE_IOERR_READ  # type: ignore[attr-defined]
            raise error
        return super().xRead(amount, offset)


async def test_a_file_that_can_not_even_be_looked_at_is_set_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first sector is read here, before SQLite sees it."""
    victim = await make_victim(tmp_path, clean=True)
    path = victim.folder / "queue.db"
    bad = os.stat(path).st_ino
    really_open = Path.open

    def fails(file: Path, *arguments: Any, **more: Any) -> Any:
        if file.exists() and os.stat(file).st_ino == bad:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return really_open(file, *arguments, **more)

    monkeypatch.setattr(Path, "open", fails)
    queue = await Queue.open(path, settings(), SystemClock())
    story = queue.stats().salvage
    assert story is not None
    assert story.damage == "the queue's files can't be read: Input/output error"
    assert len(await drain(queue)) == story.main.records > 200
    await queue.close()


@pytest.mark.slow
@pytest.mark.parametrize("clean", [True, False])
async def test_what_can_still_be_read_is_saved(tmp_path: Path, clean: bool) -> None:
    victim = await make_victim(tmp_path, clean)
    path = victim.folder / "queue.db"
    disk = BadDisk(os.stat(path).st_ino)
    try:
        queue = await Queue.open(path, settings(), SystemClock(), vfs="bad-disk")
    except (
        StorageFailing
    ):  # a clean stop is not checked: the damage is met, noted, and set aside by the next start
        queue = await Queue.open(path, settings(), SystemClock(), vfs="bad-disk")
    values = {value for _, value in await drain(queue)}
    assert queue.stats().salvage is not None
    assert 50 < len(values) < len(victim.values)
    assert values <= set(victim.values)
    await queue.close()
    disk.unregister()
