"""The system calls of a running process, and faults at the n-th of them (strace)."""

import asyncio
import os
import re
import shutil
import signal
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import pytest

needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="faults at system calls need strace")

WITHIN_S = 15.0
LINE = re.compile(r"(?:(?P<tid>\d+) +)?(?P<syscall>\w+)\((?P<arguments>.*)")
FIRST_FD = re.compile(r"\d+<(?P<name>.*?)>(?:,|\)| <unfinished)")
PATH = re.compile(r'(?:AT_FDCWD<[^>]*>, )?"(?P<path>[^"]*)"')
SOCKET = re.compile(r"(?:TCP|UDP):\[\S+?:(?P<local>\d+)(?:->\S+:(?P<remote>\d+))?\]")
THREADS = ("main", "queue")
"""In the order in which they begin; what follows are lookups of names."""


class Call(NamedTuple):
    thread: str
    syscall: str
    file: str


class Ports(NamedTuple):
    device: int
    kafka: int


def threads(pid: int) -> dict[int, str]:
    """Names by thread id."""
    ids = sorted(int(path.name) for path in Path(f"/proc/{pid}/task").iterdir())
    return {tid: THREADS[number] if number < len(THREADS) else "other" for number, tid in enumerate(ids)}


def parse(line: str, names: Mapping[int, str], ports: Ports) -> Call | None:
    """One line of `strace -yy`. None for a call without a file, for what waits for events, and for ends of calls."""
    found = LINE.match(line)
    if found is None:
        return None
    file = _file(found["arguments"], ports)
    if file is None:
        return None
    return Call(names.get(int(found["tid"] or 0), "other"), found["syscall"], file)


def _file(arguments: str, ports: Ports) -> str | None:
    named = PATH.match(arguments)
    if named is not None:
        return Path(named["path"]).name
    opened = FIRST_FD.match(arguments)
    if opened is None or opened["name"].startswith("anon_inode"):
        return None
    socket = SOCKET.match(opened["name"])
    if socket is None:
        return "wake-up" if opened["name"].startswith("UNIX") else Path(opened["name"]).name
    if int(socket["local"]) == ports.device:
        return "device" if socket["remote"] else "door"
    return "Kafka" if int(socket["remote"] or 0) == ports.kafka else "socket"


async def record(pid: int, seconds: float, ports: Ports, file: Path) -> list[Call]:
    """All calls on files and sockets of all threads in so many seconds, in order."""
    names = threads(pid)
    async with _strace(file, "-f", "-yy", "-p", str(pid)):
        await asyncio.sleep(seconds)
    calls = (parse(line, names, ports) for line in _lines(file))
    return [call for call in calls if call is not None]


@asynccontextmanager
async def inject(tid: int, syscalls: str, fault: str, file: Path) -> AsyncIterator[Process]:
    """`fault` as in strace's --inject, for one thread. Taken back at the end, if the thread still lives."""
    what = ("-e", f"trace={syscalls}", "-e", f"inject={syscalls}:{fault}")
    async with _strace(file, "-yy", "-p", str(tid), *what) as process:
        yield process


@asynccontextmanager
async def _strace(file: Path, *arguments: str) -> AsyncIterator[Process]:
    """From the moment that it has attached."""
    process = await asyncio.create_subprocess_exec(
        *("setpriv", "--pdeathsig", "INT", "strace", "-o", str(file), *arguments), stdin=DEVNULL, stderr=PIPE
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(WITHIN_S):
            said = await process.stderr.readline()
        assert b"attached" in said, said
        yield process
    finally:
        with suppress(
            ProcessLookupError
        ):  # Process.send_signal would take its exit code away from whoever waits for it
            os.kill(process.pid, signal.SIGINT)
        async with asyncio.timeout(WITHIN_S):
            await process.communicate()


async def injected(file: Path) -> str | None:
    """The line of the call that was hit, once there is one; None if none was reached."""
    deadline = time.monotonic() + WITHIN_S
    while time.monotonic() < deadline:
        hit = _hit(_lines(file))
        if hit is not None:
            return hit
        await asyncio.sleep(0.02)
    return None


def let_go_within(file: Path) -> bool:
    """Whether strace ended while the thread was in a call that it had stopped."""
    return "<detached" in _lines(file)[-1]


def _lines(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.exists() else []


def _hit(lines: Sequence[str]) -> str | None:
    """A call that its thread did not survive is the last one."""
    for before, line in zip(["", *lines], lines, strict=False):
        if "(INJECTED)" in line or "(DELAYED)" in line:
            return line
        if "+++ killed by SIGKILL" in line:
            return before
    return None
