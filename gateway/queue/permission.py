"""Whose a file is that this process may not use: with a failed disk nobody would look for that."""

import os
import pwd
import stat
from contextlib import suppress
from pathlib import Path


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


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
