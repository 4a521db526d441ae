"""doctor, and the two steps of its plug check."""

import asyncio
import signal
from pathlib import Path

import pytest

from gateway.doctor import plug
from gateway.doctor.disk import mount_of
from tests.cli.conftest import Run, start

MOUNTS = r"""22 1 179:2 / / rw,noatime - ext4 /dev/mmcblk0p2 rw,nobarrier
23 22 0:21 / /run rw,nosuid shared:2 - tmpfs tmpfs rw,size=10%
24 22 8:1 / /mnt/usb\040stick rw,relatime shared:3 - vfat /dev/sda1 rw,uid=1000
25 22 8:2 / /var/lib/tidegate rw - ext4 /dev/sda2 rw
"""


async def test_doctor_tells_of_clock_disk_and_each_broker(site: Path, tidegate: Run) -> None:
    whole, offline = await asyncio.gather(tidegate("doctor"), tidegate("doctor", "--offline"))
    for subject in ("clock", "file system", "free space", "flush"):
        assert f"{subject}: " in whole.out
        assert f"{subject}: " in offline.out
    assert "failure Kafka: 127.0.0.1:1: connection refused: no broker listens there" in whole.out
    assert whole.code == 1
    assert "Kafka" not in offline.out
    assert list((site / "data").iterdir()) == []


@pytest.mark.slow
async def test_a_data_dir_that_is_not_there(site: Path, tidegate: Run) -> None:
    (site / "data").rmdir()
    code, out, _ = await tidegate("doctor", "--offline")
    assert code == 0
    assert "warning data_dir: data is not there yet: `tidegate run` makes it" in out
    assert "file system: data is on " in out
    (site / "data").write_text("")
    code, out, _ = await tidegate("doctor", "--offline")
    assert code == 1
    assert "failure data_dir: data is no folder" in out


def test_the_mount_of_a_folder() -> None:
    found = {
        path: mount_of(Path(path), MOUNTS)
        for path in ("/home/x", "/run/tidegate", "/mnt/usb stick/data", "/var/lib/tidegate")
    }
    assert [(mount.kind, mount.source) for mount in found.values()] == [
        ("ext4", "/dev/mmcblk0p2"),
        ("tmpfs", "tmpfs"),
        ("vfat", "/dev/sda1"),
        ("ext4", "/dev/sda2"),
    ]
    assert "nobarrier" in found["/home/x"].options


@pytest.mark.slow
async def test_the_plug_check_in_two_steps(site: Path, tidegate: Run) -> None:
    before = await tidegate("doctor", "after-plug", "1")
    assert before.code == 66
    assert "run `tidegate doctor pull-plug`" in before.err
    pulling = await start(site, "doctor", "pull-plug")
    assert pulling.stdout is not None
    async with asyncio.timeout(30):
        assert (await pulling.stdout.readline()).startswith(b"Pull the plug now")
        numbers = [int(await pulling.stdout.readline()) for _ in range(300)]
    pulling.send_signal(signal.SIGKILL)
    await pulling.communicate()
    assert numbers == list(range(1, 301))
    not_off = await tidegate("doctor", "after-plug", "300")
    assert not_off.code == 66
    assert "has not been off since step one" in not_off.err
    liar = await tidegate("doctor", "after-plug", "1000000")
    assert liar.code == 1
    assert "blocks that it had acknowledged: it doesn't flush" in liar.out


def test_a_disk_that_kept_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = plug.pull(tmp_path)
    assert [next(numbers) for _ in range(3)] == [1, 2, 3]
    monkeypatch.setattr(plug, "boot_id", lambda: "another boot")
    assert plug.look(tmp_path) == plug.Kept(3, rebooted=True)


def test_a_torn_block_does_not_count(tmp_path: Path) -> None:
    numbers = plug.pull(tmp_path)
    assert [next(numbers) for _ in range(3)] == [1, 2, 3]
    with (tmp_path / plug.FILE).open("r+b") as file:
        file.seek(3 * plug.BLOCK_BYTES + 20)
        file.write(b"\xff")
    assert plug.look(tmp_path).last == 2
