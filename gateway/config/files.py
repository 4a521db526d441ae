"""Files and secrets that settings name. They may be replaced while the configuration stays the same."""

import hashlib
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gateway.config.certificates import unusable
from gateway.config.kinds import Kind, NameOrPathKind, PathKind
from gateway.config.secrets import SecretKind, unreadable
from gateway.config.tables import DictKind, ListKind, TableKind
from gateway.settings import Secret


def digest_of_files(settings: Any) -> bytes:
    """Another one if what they name has other contents, or can't be read any more. Of secrets too: never to be shown."""
    whole = hashlib.sha256()
    for where, named in _named(TableKind(type(settings)), settings, ""):
        try:
            content = _digest(named)
        except (OSError, LookupError, UnicodeDecodeError):
            content = b""
        whole.update(b"%s\0%d\0%s" % (where.encode(), len(content), content))
    return whole.digest()


def unusable_files(settings: Any, path: str) -> dict[str, str]:
    """Why what they name can't be used here and now, by path."""
    found = {}
    for where, named in _named(TableKind(type(settings)), settings, path):
        try:
            _digest(named)
        except (OSError, LookupError, UnicodeDecodeError) as error:
            found[where] = str(error)
    return {**found, **dict(unusable(settings, path)), **dict(unreadable(settings, path))}


def _named(kind: Kind, value: Any, path: str) -> Iterator[tuple[str, Path | Secret]]:
    if value is None:
        return
    match kind:
        case TableKind():
            for key, setting in kind.settings.items():
                yield from _named(setting.kind, getattr(value, setting.attribute), f"{path}.{key}")
        case ListKind():
            for index, item in enumerate(value):
                yield from _named(kind.item, item, f"{path}[{index}]")
        case DictKind():
            for name, item in value.items():
                yield from _named(kind.item, item, f"{path}.{name}")
        case SecretKind() | PathKind(written=False):
            yield path, value
        case NameOrPathKind() if "/" in value:
            yield path, Path(value)


def _digest(named: Path | Secret) -> bytes:
    """Raises OSError, LookupError, UnicodeDecodeError."""
    if isinstance(named, Secret):
        # A variable of the environment may be any bytes.
        return hashlib.sha256(named.reveal().encode(errors="surrogateescape")).digest()
    if not stat.S_ISREG(named.stat().st_mode):
        return b""  # to open it may do something, or never end
    with named.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
