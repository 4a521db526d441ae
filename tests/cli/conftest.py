"""The installed command as a process, with a gateway to talk to."""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from gateway.control.server import ControlServer
from gateway.testing.gateway import FakeGateway

TIDEGATE = Path(sys.executable).with_name("tidegate")
CONFIGURATION = """\
[gateway]
id = "plant-7"
data_dir = "data"
default_topic = "telemetry"
[queue]
min_free_bytes = "0 B"
unacked_interval = "10 ms"
[kafka]
bootstrap_servers = ["127.0.0.1:1"]
"""


class Ended(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Awaitable[Ended]]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with tidegate.toml; the commands run in it."""
    (tmp_path / "tidegate.toml").write_text(CONFIGURATION)
    (tmp_path / "data").mkdir()
    return tmp_path


async def start(folder: Path, *arguments: object, **environment: str) -> Process:
    return await asyncio.create_subprocess_exec(
        TIDEGATE,
        *map(str, arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=PIPE,
        stderr=PIPE,
        cwd=folder,
        env={**os.environ, "TERM": "dumb", **environment},
        limit=1 << 22,
    )


@pytest.fixture
def tidegate(site: Path) -> Run:
    async def run(*arguments: object, folder: Path = site, **environment: str) -> Ended:
        process = await start(folder, *arguments, **environment)
        async with asyncio.timeout(60):
            out, err = await process.communicate()
        return Ended(process.returncode or 0, out.decode(), err.decode())

    return run


@pytest.fixture
async def gateway(site: Path) -> AsyncIterator[FakeGateway]:
    """It runs, and answers on its control socket."""
    fake = await FakeGateway.open(site / "data")
    server = ControlServer(fake, fake.gateway_id)
    await server.open_socket(site / "data/control.sock")
    yield fake
    await server.close()
    await fake.queue.close()
