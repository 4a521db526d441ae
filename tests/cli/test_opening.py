"""A queue that takes long to open: systemd is told so, and whoever asks is."""

import asyncio
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cli.conftest import Run, start
from tests.queue.full_disk import needs_root, small_disk
from tests.queue.rig import alter, open_queue

WITHIN_S = 60.0


@contextmanager
def systemd(folder: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.bind(str(folder / "notify"))
        notified.setblocking(False)
        yield notified


async def told(notified: socket.socket) -> list[str]:
    async with asyncio.timeout(WITHIN_S):
        return (await asyncio.get_running_loop().sock_recv(notified, 4096)).decode().splitlines()


@pytest.mark.slow
async def test_systemd_gives_it_time_and_its_health_is_good(site: Path, tidegate: Run) -> None:
    """A pipe takes the place of the note that damage was seen: to read it takes as long as nobody writes."""
    note = site / "data/queue.damaged"
    os.mkfifo(note)
    with systemd(site) as notified:
        gateway = await start(site, "run", NOTIFY_SOCKET=str(site / "notify"))
        for _ in range(2):
            assert await told(notified) == [
                "EXTEND_TIMEOUT_USEC=60000000",
                "STATUS=the queue is being opened",
            ]
        alive = await tidegate("status", "--alive")
        assert (alive.code, alive.out.startswith("a gateway is opening its queue")) == (0, True)
        await asyncio.to_thread(note.write_text, "seen in use")
        while "READY=1" not in await told(notified):
            pass
        assert await tidegate("status", "--alive") == (0, "gateway plant-7 runs\n", "")
        gateway.terminate()
        await gateway.communicate()
    assert (await tidegate("status", "--alive")).code == 69


@needs_root
async def test_a_disk_that_only_the_unit_closes_is_told_as_that_too(site: Path) -> None:
    (site / "data").rmdir()
    with small_disk(site / "data", 16) as disk, systemd(site) as notified:
        await asyncio.to_thread(subprocess.run, ["mount", "-o", "remount,ro", str(disk)], check=True)
        gateway = await start(site, "run", NOTIFY_SOCKET=str(site / "notify"))
        while "the unit doesn't let it write there (ReadWritePaths=)" not in (await told(notified))[1]:
            pass
        gateway.terminate()
        await gateway.communicate()


async def test_a_mistake_in_the_configuration_is_waited_for_under_systemd(site: Path) -> None:
    """One line in the journal, not one every 5 s for years."""
    file = site / "tidegate.toml"
    right = file.read_text()
    file.write_text(right.replace("default_topic", "default_topik"))
    with systemd(site) as notified:
        gateway = await start(site, "run", NOTIFY_SOCKET=str(site / "notify"))
        extended, status = await told(notified)
        assert extended == "EXTEND_TIMEOUT_USEC=60000000"
        assert status.startswith("STATUS=devices are refused: tidegate.toml:4: gateway.default_topik:")
        gateway.send_signal(signal.SIGHUP)
        assert await told(notified) == [extended, status]
        file.write_text(right)
        gateway.send_signal(signal.SIGHUP)
        while "READY=1" not in await told(notified):
            pass
        gateway.terminate()
        _, said = await gateway.communicate()
    assert gateway.returncode == 0
    assert said.decode().count("the gateway can't start: tidegate.toml:4: gateway.default_topik:") == 1


@pytest.mark.parametrize("heard", [True, False], ids=["under systemd", "at a terminal"])
async def test_a_queue_of_a_later_version_is_waited_for_under_systemd(site: Path, heard: bool) -> None:
    queue = await open_queue(site / "data")
    await queue.close()
    alter(site / "data/queue.db", "DROP TABLE gap; PRAGMA user_version=2")
    with systemd(site) as notified:
        gateway = await start(site, "run", **({"NOTIFY_SOCKET": str(site / "notify")} if heard else {}))
        if heard:
            while not (status := (await told(notified))[1]).startswith("STATUS=devices are refused: "):
                pass
            assert status.endswith("the queue has format 2, this tidegate knows 1; install the newer one")
            gateway.terminate()
        _, said = await gateway.communicate()
    assert gateway.returncode == (0 if heard else 74)
    assert said.decode().count("the queue can't be opened: the queue has format 2") == 1
