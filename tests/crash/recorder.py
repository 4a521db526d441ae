"""Notes what a process does to the files below a folder: SQLite's through a VFS, the queue's own through `os`."""

import itertools
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw
import pytest

from tests.crash.disk import (
    DIRECTORY,
    Name,
    Operation,
    Rename,
    Sync,
    SyncNames,
    Truncate,
    Unlink,
    Write,
)

_count = itertools.count(1)


class Recorder:
    """`operations` in order; whoever uses it puts remarks of its own between them through `note`."""

    def __init__(self, folder: Path, names: Mapping[str, int]) -> None:
        """`names` are those of the disk when the recording begins."""
        self.folder = folder
        self.vfs = f"recorder-{next(_count)}"
        self.operations: list[Operation] = []
        self._files = dict(names)
        self._numbers = itertools.count(max(names.values()) + 1)
        self._descriptors: dict[int, str] = {}

    def path(self, path: Any) -> str | None:
        """Relative to the folder; None for what lies elsewhere."""
        full = Path(os.fspath(path))
        return full.relative_to(self.folder).as_posix() if full.is_relative_to(self.folder) else None

    def born(self, path: str, number: int | None = None) -> int:
        self._files[path] = next(self._numbers) if number is None else number
        self.operations.append(Name(path, self._files[path]))
        return self._files[path]

    def number(self, path: str) -> int:
        return self._files[path]

    def unlinked(self, path: str) -> None:
        del self._files[path]
        self.operations.append(Unlink(path))

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Inside, everything is noted that SQLite does with `vfs` and the process with `os`."""
        vfs = _Vfs(self)
        with pytest.MonkeyPatch.context() as patch:
            for name in ("open", "close", "pwrite", "ftruncate", "posix_fallocate", "fsync"):
                patch.setattr(os, name, getattr(self, f"_{name}")(getattr(os, name)))
            for name in ("unlink", "rename", "mkdir"):
                patch.setattr(os, name, getattr(self, f"_{name}")(getattr(os, name)))
            patch.setattr(Path, "write_text", self._write_text(Path.write_text))
            yield
        vfs.unregister()

    def _open(self, real: Callable[..., int]) -> Callable[..., int]:
        def open_(path: Any, flags: int, *mode: Any, **more: Any) -> int:
            inside = self.path(path) if isinstance(path, str | os.PathLike) else None
            new = inside is not None and flags & os.O_CREAT and not os.path.exists(path)
            descriptor = real(path, flags, *mode, **more)
            if inside is not None:
                self._descriptors[descriptor] = inside
                if new:
                    self.born(inside)
            return descriptor

        return open_

    def _close(self, real: Callable[[int], None]) -> Callable[[int], None]:
        def close(descriptor: int) -> None:
            self._descriptors.pop(descriptor, None)
            real(descriptor)

        return close

    def _pwrite(self, real: Callable[[int, bytes, int], int]) -> Callable[[int, bytes, int], int]:
        def pwrite(descriptor: int, data: bytes, offset: int) -> int:
            self.operations.append(Write(self.number(self._descriptors[descriptor]), offset, bytes(data)))
            return real(descriptor, data, offset)

        return pwrite

    def _ftruncate(self, real: Callable[[int, int], None]) -> Callable[[int, int], None]:
        def ftruncate(descriptor: int, size: int) -> None:
            self.operations.append(Truncate(self.number(self._descriptors[descriptor]), size))
            real(descriptor, size)

        return ftruncate

    def _posix_fallocate(self, real: Callable[[int, int, int], None]) -> Callable[[int, int, int], None]:
        def posix_fallocate(descriptor: int, offset: int, size: int) -> None:
            real(descriptor, offset, size)
            self.operations.append(Truncate(self.number(self._descriptors[descriptor]), offset + size))

        return posix_fallocate

    def _fsync(self, real: Callable[[int], None]) -> Callable[[int], None]:
        def fsync(descriptor: int) -> None:
            real(descriptor)
            path = self._descriptors.get(descriptor)
            if path is None:
                return
            directory = path == "." or self._files.get(path) == DIRECTORY
            self.operations.append(SyncNames(path) if directory else Sync(self.number(path)))

        return fsync

    def _unlink(self, real: Callable[..., None]) -> Callable[..., None]:
        def unlink(path: Any, **more: Any) -> None:
            real(path, **more)
            inside = self.path(path)
            if inside is not None:
                self.unlinked(inside)

        return unlink

    def _rename(self, real: Callable[..., None]) -> Callable[..., None]:
        def rename(source: Any, target: Any, **more: Any) -> None:
            real(source, target, **more)
            before, after = self.path(source), self.path(target)
            if before is not None and after is not None:
                self._files[after] = self._files.pop(before)
                self.operations.append(Rename(before, after))

        return rename

    def _mkdir(self, real: Callable[..., None]) -> Callable[..., None]:
        def mkdir(path: Any, *mode: Any, **more: Any) -> None:
            real(path, *mode, **more)
            inside = self.path(path)
            if inside is not None and inside not in self._files:
                self.born(inside, DIRECTORY)

        return mkdir

    def _write_text(self, real: Callable[..., int]) -> Callable[..., int]:
        def write_text(path: Path, text: str, *encoding: Any) -> int:
            inside = self.path(path)
            if inside is not None:
                number = self.number(inside) if inside in self._files else self.born(inside)
                self.operations.append(Write(number, 0, text.encode()))
            return real(path, text, *encoding)

        return write_text


class _Vfs(apsw.VFS):
    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        super().__init__(recorder.vfs, "unix")

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> "_File":  # noqa: N802
        return _File(self.recorder, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802
        super().xDelete(filename, syncdir)
        path = self.recorder.path(filename)
        assert path is not None
        self.recorder.unlinked(path)
        if syncdir:
            self.recorder.operations.append(SyncNames(str(Path(path).parent)))


class _File(apsw.VFSFile):
    """SQLite's unix VFS syncs the directory with the first sync of a journal or log that it made."""

    def __init__(self, recorder: Recorder, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        filename = name.filename() if isinstance(name, apsw.URIFilename) else name
        path = recorder.path(filename)
        assert path is not None
        self._recorder = recorder
        new = not os.path.exists(str(filename))
        super().__init__("unix", name, flags)
        self._number = recorder.born(path) if new else recorder.number(path)
        journal = apsw.SQLITE_OPEN_MAIN_JOURNAL | apsw.SQLITE_OPEN_WAL
        self._syncs_names = str(Path(path).parent) if new and flags[0] & journal else None

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        self._recorder.operations.append(Write(self._number, offset, bytes(data)))
        super().xWrite(data, offset)

    def xTruncate(self, newsize: int) -> None:  # noqa: N802
        self._recorder.operations.append(Truncate(self._number, newsize))
        super().xTruncate(newsize)

    def xSync(self, flags: int) -> None:  # noqa: N802
        super().xSync(flags)
        self._recorder.operations.append(Sync(self._number))
        if self._syncs_names is not None:
            self._recorder.operations.append(SyncNames(self._syncs_names))
            self._syncs_names = None
