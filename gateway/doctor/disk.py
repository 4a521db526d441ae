"""Whether the disk is one, has room, and how long it takes to keep something."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import NamedTuple

from gateway.doctor.finding import Finding, Verdict
from gateway.queue import QueueSettings

FLUSHES = 50
FLUSH_BYTES = 4096
FLUSH_SUSPICIOUS_S = 50e-6
FLUSH_SLOW_S = 0.1
FLUSH_TIME_MAX_S = 20.0

MEMORY = {"tmpfs", "ramfs", "overlay", "squashfs"}
DISTANT = {"nfs", "nfs4", "cifs", "smb3", "9p", "vfat", "exfat", "fuseblk"}
NO_FLUSH = {"nobarrier", "barrier=0", "nobh"}


class Mount(NamedTuple):
    point: str
    kind: str
    source: str
    options: frozenset[str]


def mount_of(folder: Path, mountinfo: str) -> Mount:
    """`mountinfo` is the text of /proc/self/mountinfo."""
    best = Mount("", "unknown", "", frozenset())
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields, (kind, source, *rest) = before.split(), after.split()
        point = fields[4].encode().decode("unicode_escape")
        if folder.is_relative_to(point) and len(point) >= len(best.point):
            options = {*fields[5].split(","), *(rest[0].split(",") if rest else ())}
            best = Mount(point, kind, source, frozenset(options))
    return best


def disk(folder: Path, settings: QueueSettings) -> Iterator[Finding]:
    if not folder.exists():
        text = f"{folder} is not there yet: `tidegate run` makes it if its user may; ask again after that"
        yield Finding("data_dir", Verdict.WARNING, text)
    elif not folder.is_dir():
        yield Finding("data_dir", Verdict.FAILURE, f"{folder} is no folder: name another one")
        return
    mount = mount_of(folder.resolve(), Path("/proc/self/mountinfo").read_text())
    where = f"{folder} is on {mount.source} ({mount.kind}, mounted at {mount.point})"
    if mount.kind in MEMORY:
        text = f"{where}: gone after a power cut; put data_dir on a disk"
        yield Finding("file system", Verdict.FAILURE, text)
    elif mount.options & NO_FLUSH:
        off = ", ".join(sorted(mount.options & NO_FLUSH))
        yield Finding(
            "file system", Verdict.FAILURE, f"{where} with {off}: it doesn't flush; mount it without"
        )
    elif mount.kind in DISTANT:
        text = f"{where}: a local ext4, f2fs, btrfs or xfs is what the queue was made for"
        yield Finding("file system", Verdict.WARNING, text)
    else:
        yield Finding("file system", Verdict.OK, where)
    if folder.exists():
        yield _room(folder, settings)


def _room(folder: Path, settings: QueueSettings) -> Finding:
    space = os.statvfs(folder)
    free = space.f_bavail * space.f_frsize
    used = sum(path.stat().st_size for path in folder.glob("queue.db*"))
    wanted = settings.max_bytes - used + settings.min_free_bytes
    shown = f"{free / 1e6:,.0f} MB free"
    if free < settings.min_free_bytes:
        text = f"{shown}, less than queue.min_free_bytes: devices are refused"
        return Finding("free space", Verdict.FAILURE, text)
    if free < wanted:
        text = f"{shown}; the queue may grow by {max(0, free - settings.min_free_bytes) / 1e6:,.0f} MB, less than queue.max_bytes says"
        return Finding("free space", Verdict.WARNING, text)
    return Finding("free space", Verdict.OK, f"{shown}; the queue may grow to its cap")


def flush_times(folder: Path) -> list[float]:
    """Seconds of each of some small flushed writes. Raises OSError."""
    path = folder / f"flush-check.{os.getpid()}"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    times: list[float] = []
    try:
        block = os.urandom(FLUSH_BYTES)
        os.pwrite(descriptor, block * FLUSHES, 0)
        os.fsync(descriptor)
        began = time.perf_counter()
        for number in range(FLUSHES):
            before = time.perf_counter()
            os.pwrite(descriptor, block, number * FLUSH_BYTES)
            os.fdatasync(descriptor)
            times.append(time.perf_counter() - before)
            if time.perf_counter() - began > FLUSH_TIME_MAX_S:
                break
    finally:
        os.close(descriptor)
        path.unlink()
    return times


def flush(folder: Path) -> Iterator[Finding]:
    try:
        times = flush_times(folder)
    except OSError as error:
        yield Finding("flush", Verdict.FAILURE, f"{folder} can't be written: {error.strerror}")
        return
    middle = median(times)
    text = f"{middle * 1000:.2f} ms, at worst {max(times) * 1000:.1f} ms"
    if middle < FLUSH_SUSPICIOUS_S:
        text += (
            ": faster than a disk can be, so perhaps nothing is flushed; `tidegate doctor pull-plug` shows it"
        )
        yield Finding("flush", Verdict.WARNING, text)
    elif middle > FLUSH_SLOW_S:
        text += ": acknowledgements will be as slow; a longer queue.commit_interval costs nothing more"
        yield Finding("flush", Verdict.WARNING, text)
    else:
        yield Finding("flush", Verdict.OK, text)
