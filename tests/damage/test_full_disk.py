"""A damaged database on a disk without room to save it: nothing is tried in vain, and nothing is lost by waiting."""

import random
import shutil
from pathlib import Path

import pytest

from gateway.clock import SystemClock
from gateway.errors import StorageUnwritable
from gateway.queue import Queue
from tests.damage.victim import make_victim, settings
from tests.damage.wounds import empty, zero_pages
from tests.queue.full_disk import fill, free, needs_root, small_disk

pytestmark = needs_root

DISK_MIB = 3
STARTS = 5


async def saved(folder: Path) -> int:
    queue = await Queue.open(folder / "queue.db", settings(), SystemClock())
    story = queue.stats().salvage
    await queue.close()
    assert story is not None
    return story.main.records


@pytest.mark.parametrize("room", [0, 4096, 100 * 4096])
@pytest.mark.parametrize("wound", [zero_pages, empty], ids=["database", "log"])
async def test_a_damaged_queue_waits_for_room_and_loses_nothing_by_it(
    tmp_path: Path, wound: object, room: int
) -> None:
    victim = await make_victim(tmp_path / "victim", clean=False)
    file = "queue.db-wal" if wound is empty else "queue.db"
    assert callable(wound)
    wound(victim.folder / file, random.Random(1))
    with small_disk(tmp_path / "disk", DISK_MIB) as disk:
        shutil.copytree(victim.folder, disk / "data")
        others = fill(disk)
        with others.open("r+b") as cut:
            cut.truncate(others.stat().st_size - room)
        for _ in range(STARTS):
            with pytest.raises(StorageUnwritable, match=r"are needed to save|No space left"):
                await saved(disk / "data")
        assert free(disk) >= room
        assert not (disk / "data" / "queue.db").exists() or room == 0
        others.unlink()
        assert await saved(disk / "data") == await saved(victim.folder)


async def test_a_first_start_waits_for_room(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", DISK_MIB) as disk:
        others = fill(disk)
        with pytest.raises(StorageUnwritable):
            await Queue.open(disk / "queue.db", settings(), SystemClock())
        others.unlink()
        queue = await Queue.open(disk / "queue.db", settings(), SystemClock())
        assert queue.stats().salvage is None
        await queue.close()
