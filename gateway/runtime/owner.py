"""Root works on a queue as the user whose it is: what root makes there would be closed to the gateway's service for good."""

import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from gateway.errors import StorageError
from gateway.queue import lock_path


class Owner(NamedTuple):
    uid: int
    gid: int
    groups: list[int]


def owner_of(queue: Path) -> Owner | None:
    """Whom root has to become: the user of the lock, which is made once and stays, or of the folder before there is one.
    None for root's own queue, for one that is not there yet, and for whoever isn't root."""
    lock = lock_path(queue)
    try:
        found = lock.lstat() if os.path.lexists(lock) else queue.parent.stat()
    except OSError:
        return None  # whoever opens it says why
    if os.geteuid() != 0 or found.st_uid == 0:
        return None
    try:
        user = pwd.getpwuid(found.st_uid)
    except KeyError:
        return Owner(found.st_uid, found.st_gid, [])
    return Owner(user.pw_uid, user.pw_gid, os.getgrouplist(user.pw_name, user.pw_gid))


def become(owner: Owner) -> None:
    """For good. Raises StorageError."""
    with _telling(owner):
        os.setgroups(owner.groups)
        os.setresgid(owner.gid, owner.gid, owner.gid)
        os.setresuid(owner.uid, owner.uid, owner.uid)


@contextmanager
def acting_as(owner: Owner | None) -> Iterator[None]:
    """All threads do, until the end; then they are root again. Raises StorageError."""
    if owner is None:
        yield
        return
    before = Owner(os.geteuid(), os.getegid(), os.getgroups())
    with _telling(owner):
        os.setgroups(owner.groups)
        os.setegid(owner.gid)
        os.seteuid(owner.uid)
    try:
        yield
    finally:
        os.seteuid(before.uid)
        os.setegid(before.gid)
        os.setgroups(before.groups)


@contextmanager
def _telling(owner: Owner) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"the queue belongs to user {owner.uid}, and this may not become that user: {error.strerror}"
        ) from error
