"""Records what a queue does to its disk: through SQLite by a VFS, and beside it by the calls of the module `os`."""

import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import apsw
import pytest

from tests.crash.disk import Image, Name, Operation, Sync, SyncNames, Truncate, Write

DIRECTORY_SYNCED_WITH = apsw.SQLITE_OPEN_WAL | apsw.SQLITE_OPEN_MAIN_JOURNAL
"""SQLite syncs the directory with the first sync of these."""

_names = itertools.count()


class Recorder:
    """Of one folder. `operation` is called with each operation after it is done; files are numbered as in `disk`."""

    def __init__(self, folder: Path, image: Image, operation: Callable[[Operation], None]) -> None:
        self.operation = operation
        self._folder = folder
        self._files = {name: number for number, name in enumerate(image)}
        self._numbers = itertools.count(len(self._files))

    def opened(self, path: str | Path) -> int:
        name = self._name(path)
        if name not in self._files:
            self._files[name] = next(self._numbers)
            self.operation(Name(name, self._files[name]))
        return self._files[name]

    def deleted(self, path: str | Path) -> None:
        name = self._name(path)
        if self._files.pop(name, None) is not None:
            self.operation(Name(name, None))

    def holds(self, path: str | Path) -> bool:
        return Path(path).parent == self._folder

    def _name(self, path: str | Path) -> str:
        return str(Path(path).relative_to(self._folder))


class _File(apsw.VFSFile):
    def __init__(self, recorder: Recorder, path: str, flags: list[int]) -> None:
        super().__init__("", path, flags)
        self._recorder = recorder
        self._file = recorder.opened(path)
        self._names_too = bool(flags[0] & DIRECTORY_SYNCED_WITH)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802 the names are apsw's
        super().xWrite(data, offset)
        self._recorder.operation(Write(self._file, offset, bytes(data)))

    def xTruncate(self, newsize: int) -> None:  # noqa: N802
        super().xTruncate(newsize)
        self._recorder.operation(Truncate(self._file, newsize))

    def xSync(self, flags: int) -> None:  # noqa: N802
        super().xSync(flags)
        self._recorder.operation(Sync(self._file))
        if self._names_too:
            self._names_too = False
            self._recorder.operation(SyncNames())


class _Vfs(apsw.VFS):
    def __init__(self, name: str, recorder: Recorder) -> None:
        super().__init__(name, "")
        self._recorder = recorder

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:  # noqa: N802
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        return _File(self._recorder, path, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802
        super().xDelete(filename, syncdir)
        self._recorder.deleted(filename)
        if syncdir:
            self._recorder.operation(SyncNames())


@contextmanager
def recording(recorder: Recorder) -> Iterator[str]:
    """The name of the VFS to open a queue with."""
    name = f"recorder-{next(_names)}"
    vfs = _Vfs(name, recorder)
    with pytest.MonkeyPatch.context() as patch:
        _watch_os(patch, recorder)
        yield name
    vfs.unregister()


def _watch_os(patch: pytest.MonkeyPatch, recorder: Recorder) -> None:
    """What the lock file, the reserve and the directory's syncs do."""
    paths: dict[int, Path] = {}
    really = {name: getattr(os, name) for name in ("open", "close", "fsync", "pwrite", "ftruncate", "unlink")}
    allocate = os.posix_fallocate

    def opened(path: Any, flags: int, *rest: Any) -> int:
        descriptor = cast(int, really["open"](path, flags, *rest))
        if flags & os.O_DIRECTORY:
            paths[descriptor] = Path(path)
        elif recorder.holds(path):
            paths[descriptor] = Path(path)
            recorder.opened(path)
        return descriptor

    def close(descriptor: int) -> None:
        paths.pop(descriptor, None)
        really["close"](descriptor)

    def fsync(descriptor: int) -> None:
        really["fsync"](descriptor)
        path = paths[descriptor]
        recorder.operation(Sync(recorder.opened(path)) if recorder.holds(path) else SyncNames())

    def pwrite(descriptor: int, data: bytes, offset: int) -> int:
        recorder.operation(Write(recorder.opened(paths[descriptor]), offset, data))
        return cast(int, really["pwrite"](descriptor, data, offset))

    def ftruncate(descriptor: int, size: int) -> None:
        really["ftruncate"](descriptor, size)
        recorder.operation(Truncate(recorder.opened(paths[descriptor]), size))

    def fallocate(descriptor: int, offset: int, size: int) -> None:
        allocate(descriptor, offset, size)
        recorder.operation(Truncate(recorder.opened(paths[descriptor]), offset + size))

    def unlink(path: Any, *rest: Any, **more: Any) -> None:
        really["unlink"](path, *rest, **more)
        if recorder.holds(path):
            recorder.deleted(path)

    for name, watched in {
        "open": opened,
        "close": close,
        "fsync": fsync,
        "pwrite": pwrite,
        "ftruncate": ftruncate,
        "posix_fallocate": fallocate,
        "unlink": unlink,
    }.items():
        patch.setattr(os, name, watched)
