"""Whose a file is that this process may not use: with a failed disk nobody would look for that."""

import os
import pwd
import stat
from contextlib import suppress
from pathlib import Path

SUFFIXES = ("", "-wal", "-shm")


def not_permitted(path: Path) -> str:
    """Of what isn't there, or can't be seen, the nearest folder above it decides."""
    for place in (path, *path.absolute().parents):
        with suppress(OSError):
            found = place.stat()
            owner, own = _user(found.st_uid), _user(os.geteuid())
            told = f"{path}: no permission: {place} belongs to user {owner} ({stat.filemode(found.st_mode)}), this runs as {own}"
            back = owner != own and place == path
            return f"{told}; `chown -R {own}: {path.parent}` gives it back" if back else told
    return f"{path}: no permission"


def closed(database: Path) -> str | None:
    """Of which of a database's files this is so. SQLite's errors name no file, and some speak of the disk."""
    for suffix in SUFFIXES:
        file = Path(f"{database}{suffix}")
        try:
            os.close(os.open(file, os.O_RDWR | os.O_CLOEXEC))
        except PermissionError:
            return not_permitted(file)
        except OSError:
            continue
    return None


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
