"""A disk as a power cut leaves it: of what was not synced any part may be there, writes by sectors of 512 bytes.

Strict where file systems differ: a file's name is on the disk only once its directory is synced.
"""

import random
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

SECTOR = 512

Kind = Literal["lost", "kept", "reordered", "torn"]
KINDS: tuple[Kind, ...] = ("lost", "kept", "reordered", "torn")
SHARES = (0.5, 0.1, 0.9)
"""Of what was not synced, so much is on the disk: half of it, little, nearly all."""

Image = Mapping[str, bytes]
"""Contents by name."""


class Write(NamedTuple):
    file: int
    offset: int
    data: bytes


class Truncate(NamedTuple):
    file: int
    size: int


class Name(NamedTuple):
    """`file` is called `name` from now on; None: nothing is."""

    name: str
    file: int | None


class Sync(NamedTuple):
    file: int


class SyncNames(NamedTuple):
    """The directory."""


Operation = Write | Truncate | Name | Sync | SyncNames


class Disk:
    """What is safe, and what is on its way there."""

    def __init__(self, image: Image) -> None:
        self._files = {number: bytes(content) for number, content in enumerate(image.values())}
        self._names = dict(zip(image, self._files, strict=True))
        self._pending: list[Write | Truncate | Name] = []

    def do(self, operation: Operation) -> None:
        if isinstance(operation, Sync | SyncNames):
            synced = [one for one in self._pending if _syncs(operation, one)]
            self._pending = [one for one in self._pending if not _syncs(operation, one)]
            self._files, self._names = self._with(synced)
        else:
            self._pending.append(operation)

    @property
    def settled(self) -> bool:
        """Nothing is on its way: every cut leaves the same."""
        return not self._pending

    def image(self, kind: Kind, rng: random.Random) -> Image:
        match kind:
            case "lost":
                chosen = []
            case "kept":
                chosen = self._pending
            case "reordered":
                share = rng.choice(SHARES)
                chosen = [one for one in self._pending if rng.random() < share]
            case "torn":
                share = rng.choice(SHARES)
                sectors = [part for one in self._pending for part in _torn(one)]
                chosen = [one for one in sectors if rng.random() < share]
        files, names = self._with(chosen)
        return {name: files.get(file, b"") for name, file in names.items()}

    def _with(self, operations: Iterable[Write | Truncate | Name]) -> tuple[dict[int, bytes], dict[str, int]]:
        files, names = dict(self._files), dict(self._names)
        changed: dict[int, bytearray] = {}
        for operation in operations:
            match operation:
                case Name(name, None):
                    names.pop(name, None)
                case Name(name, int(file)):
                    names[name] = file
                case Write(file, offset, data):
                    content = changed.setdefault(file, bytearray(files.get(file, b"")))
                    if len(content) < offset:
                        content.extend(bytes(offset - len(content)))
                    content[offset : offset + len(data)] = data
                case Truncate(file, size):
                    content = changed.setdefault(file, bytearray(files.get(file, b"")))
                    del content[size:]
                    content.extend(bytes(size - len(content)))
        return files | {file: bytes(content) for file, content in changed.items()}, names


def _syncs(sync: Sync | SyncNames, operation: Write | Truncate | Name) -> bool:
    if isinstance(operation, Name):
        return isinstance(sync, SyncNames)
    return isinstance(sync, Sync) and operation.file == sync.file


def _torn(operation: Write | Truncate | Name) -> Iterable[Write | Truncate | Name]:
    if not isinstance(operation, Write):
        return [operation]
    file, offset, data = operation
    return [Write(file, offset + at, data[at : at + SECTOR]) for at in range(0, len(data), SECTOR)]
