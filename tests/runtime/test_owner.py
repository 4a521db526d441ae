"""Root at work on a gateway's queue leaves it to the gateway's user."""

import asyncio
import os
import re
import shutil
import signal
import tempfile
from asyncio.subprocess import PIPE, Process
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from gateway.testing.gateway import FakeGateway
from tests.control.test_server import records
from tests.queue.full_disk import needs_root
from tests.runtime.test_process import TIDEGATE, configuration

pytestmark = [needs_root, pytest.mark.slow]

SERVICE = 65_534
WITHIN_S = 60.0
READS = "+dac_read_search"
AS_SERVICE = (
    f"--reuid={SERVICE}",
    f"--regid={SERVICE}",
    "--clear-groups",
    f"--inh-caps={READS}",
    f"--ambient-caps={READS}",
)
AS_ROOT = ("--securebits=+no_setuid_fixup", f"--bounding-set=-all,+setuid,+setgid,{READS}")


@pytest.fixture
def site() -> Iterator[Path]:
    """Not pytest's own directory: another user couldn't enter it."""
    folder = Path(tempfile.mkdtemp(prefix="tidegate-owner-", dir="/var/tmp"))
    folder.chmod(0o755)
    (folder / "tidegate.toml").write_text(configuration("127.0.0.1:1"))
    (folder / "data").mkdir()
    os.chown(folder / "data", SERVICE, SERVICE)
    yield folder
    shutil.rmtree(folder)


async def start(site: Path, *arguments: str, as_service: bool = False) -> Process:
    """The interpreter may lie where the service's user may not even look: it, and what becomes it, may read everything."""
    how = AS_SERVICE if as_service else AS_ROOT
    return await asyncio.create_subprocess_exec(
        "setpriv", *how, TIDEGATE, *arguments, cwd=site, stdout=PIPE, stderr=PIPE
    )


async def ended(process: Process) -> tuple[int | None, str]:
    async with asyncio.timeout(WITHIN_S):
        out, err = await process.communicate()
    return process.returncode, (out + err).decode()


async def serves(site: Path, process: Process) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not (site / "data/control.sock").exists():
            assert process.returncode is None
            await asyncio.sleep(0.05)


async def stored(site: Path) -> None:
    """By a gateway that ran as the service."""
    queue = await FakeGateway.open(site / "data")
    await queue.accept("floor", records(3))
    await queue.queue.close()
    for path in (site / "data").iterdir():
        os.chown(path, SERVICE, SERVICE)


def damage(site: Path) -> None:
    database = site / "data/queue.db"
    content = bytearray(database.read_bytes())
    content[200:4096] = bytes(3896)
    database.write_bytes(content)


def users(process: Process) -> set[int]:
    """Real, effective and saved."""
    line = re.search(r"^Uid:(.*)$", Path(f"/proc/{process.pid}/status").read_text(), re.MULTILINE)
    assert line is not None
    return set(map(int, line[1].split()))


def foreign(site: Path) -> list[Path]:
    return [path for path in (site / "data").rglob("*") if path.stat().st_uid != SERVICE]


async def test_a_command_of_root_that_has_to_salvage_leaves_the_queue_to_the_service(site: Path) -> None:
    await stored(site)
    damage(site)
    code, told = await ended(await start(site, "status"))
    assert (code, "the database was damaged" in told) == (69, True), told
    assert list((site / "data/quarantine").iterdir())
    assert foreign(site) == []
    service = await start(site, "run", as_service=True)
    await serves(site, service)
    service.terminate()
    assert (await ended(service))[0] == 0


async def test_files_beside_the_queue_are_the_caller_s(site: Path) -> None:
    await stored(site)
    private = site / "private"
    private.mkdir(0o700)
    code, told = await ended(await start(site, "queue", "export", "private/out.jsonl"))
    assert code == 0, told
    assert (private / "out.jsonl").stat().st_uid == 0
    assert foreign(site) == []


async def test_in_the_foreground_root_runs_as_the_owner(site: Path) -> None:
    process = await start(site, "run")
    try:
        await serves(site, process)
        assert users(process) == {SERVICE}
        assert foreign(site) == []
        process.terminate()
        code, told = await ended(process)
    finally:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGKILL)
    assert code == 0, told
    assert "runs as user 65534" in told


@pytest.mark.parametrize("name", ["queue.db", "queue.lock"])
async def test_what_root_took_away_before_is_told_as_that(site: Path, name: str) -> None:
    await stored(site)
    taken = site / "data" / name
    os.chown(taken, 0, 0)
    taken.chmod(0o644)
    code, told = await ended(await start(site, "run", as_service=True))
    assert code == 74
    assert f"data/{name} belongs to user root" in told, told
    assert "this runs as nobody" in told
    assert "chown -R nobody:" in told
    assert "disk" not in told
