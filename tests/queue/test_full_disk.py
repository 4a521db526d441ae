"""A disk that is really full, by others or by the queue itself: what waits is delivered and trimmed all the same."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.errors import QueueFull
from gateway.queue import Queue
from gateway.queue.quarantine import UNFINISHED
from tests.queue.full_disk import fill, free, needs_root, small_disk
from tests.queue.rig import copy_as_killed, drain, entries, open_queue

pytestmark = [pytest.mark.slow, needs_root]

CAP_BYTES = 4 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", 8) as disk:
        yield disk


async def accepted_again(queue: Queue, size: int = 10) -> None:
    async with asyncio.timeout(10):
        while True:
            try:
                await queue.put(entries(os.urandom(size)))
                return
            except QueueFull:
                await asyncio.sleep(0.05)


async def stored(queue: Queue, count: int) -> list[tuple[int, bytes]]:
    first = queue.next_seq("main")
    bodies = [b"%d" % index + os.urandom(20_000) for index in range(count)]
    for body in bodies:
        await queue.put(entries(body))
    return list(enumerate(bodies, first))


async def refused(queue: Queue) -> None:
    async def until_full() -> None:
        for _ in range(1000):
            await queue.put(entries(os.urandom(20_000)))

    with pytest.raises(QueueFull, match="disk"):
        await until_full()


@pytest.mark.parametrize("stop", ["clean", "killed"])
@pytest.mark.parametrize("reserve", [True, False])
async def test_a_queue_on_a_full_disk_starts_drains_and_recovers(
    disk: Path, stop: str, reserve: bool
) -> None:
    folder = disk / "queue"
    queue = await open_queue(folder, max_bytes=CAP_BYTES)
    waiting = await stored(queue, 40)
    if stop == "killed":
        copy_as_killed(folder, disk / "copy")
        folder = disk / "copy"
    await queue.close()
    if not reserve:
        (folder / "queue.reserve").unlink()
    others = fill(disk)
    queue = await open_queue(folder, max_bytes=CAP_BYTES)
    await refused(queue)
    assert queue.stats().lanes["main"].pending == 40
    if not reserve:
        others.unlink()
    assert await drain(queue) == waiting
    await queue.store("sync.hint", "x" * 1000)
    await queue.close()
    queue = await open_queue(folder, max_bytes=CAP_BYTES)
    assert (queue.position("main"), queue.load("sync.hint")) == (40, "x" * 1000)
    others.unlink(missing_ok=True)
    await accepted_again(queue)
    assert (folder / "queue.reserve").stat().st_blocks * 512 == CAP_BYTES // 8
    [run] = [run for run in queue.runs("main") if run.run_id == queue.run_id]
    assert run.first == 41
    await queue.close()


async def test_a_disk_that_others_fill_while_it_runs(disk: Path) -> None:
    queue = await open_queue(disk / "queue", max_bytes=CAP_BYTES)
    waiting = await stored(queue, 40)
    others = fill(disk)
    await refused(queue)
    acknowledged = await drain(queue)
    assert acknowledged[:40] == waiting
    await queue.close()
    queue = await open_queue(disk / "queue", max_bytes=CAP_BYTES)
    assert queue.position("main") == acknowledged[-1][0]
    fill(disk)
    others.unlink()
    await accepted_again(queue)
    await queue.close()


@pytest.mark.parametrize("when_full", ["reject", "drop_oldest"])
async def test_a_queue_that_may_be_larger_than_the_disk(disk: Path, when_full: str) -> None:
    """Nothing but its own delivered records can make room."""
    queue = await open_queue(disk / "queue", max_bytes=64 << 20, when_full=when_full)
    for lane in ("main", "ledger"):
        queue.advance(lane, 0)
    if when_full == "reject":
        await refused(queue)
    else:
        await stored(queue, 1000)
    before = queue.next_seq("main")
    for _ in range(20):
        await drain(queue)
        for _ in range(10):
            await accepted_again(queue, 20_000)
    assert (await drain(queue))[-1][0] == queue.next_seq("main") - 1 == before + 199
    await queue.close()


async def test_the_oldest_are_dropped_where_others_filled_the_disk(disk: Path) -> None:
    queue = await open_queue(disk / "queue", max_bytes=CAP_BYTES, when_full="drop_oldest")
    for lane in ("main", "ledger"):
        queue.advance(lane, 0)
    await stored(queue, 100)
    fill(disk)
    assert free(disk) == 0
    for _ in range(200):
        await accepted_again(queue)
    stats = queue.stats().lanes["main"]
    assert stats.stored == stats.pending + stats.dropped == 300
    await queue.close()


async def test_a_disk_that_stays_full_is_told_once_and_costs_no_writes(
    disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    queue = await open_queue(disk / "queue", max_bytes=CAP_BYTES)
    others = fill(disk)
    log = disk / "queue/queue.db-wal"
    await refused(queue)
    for _ in range(3):
        commits, before = queue.stats().commits, log.stat().st_mtime_ns
        async with asyncio.timeout(10):
            while queue.stats().commits < commits + 1:
                with pytest.raises(QueueFull):
                    await queue.put(entries(os.urandom(20_000)))
                await asyncio.sleep(0.05)
        assert log.stat().st_mtime_ns == before
    others.unlink()
    await accepted_again(queue, 20_000)
    assert [message.partition(":")[0] for message in caplog.messages] == [
        "devices are refused",
    ]
    await queue.close()


async def test_free_pages_of_the_file_are_enough_to_go_on(disk: Path) -> None:
    """The disk stays full; what was delivered makes the room."""
    queue = await open_queue(disk / "queue", max_bytes=CAP_BYTES)
    await stored(queue, 100)
    await queue.close()
    queue = await open_queue(disk / "queue", max_bytes=CAP_BYTES)
    fill(disk)
    await drain(queue)
    for _ in range(50):
        await accepted_again(queue, 20_000)
    assert len(await drain(queue)) == 50
    await queue.close()


async def test_what_must_be_told_before_records_are_delivered_finds_room(disk: Path) -> None:
    queue = await open_queue(disk / "queue", max_bytes=CAP_BYTES)
    await stored(queue, 20)
    fill(disk)
    await refused(queue)
    await queue.put(entries(b"told"), lane="ledger")
    assert [body for _, body in await drain(queue, "ledger")] == [b"told"]
    await queue.close()


async def put_aside(folder: Path, offset: int) -> Queue:
    """A page in the middle is damaged, and an unclean stop makes the next start look."""
    with (folder / "queue.db").open("r+b") as file:
        file.seek(offset)
        file.write(os.urandom(4096))
    (folder / "queue.db-wal").write_bytes(b"an unclean stop")
    return await open_queue(folder, max_bytes=8 << 20)


async def test_a_salvage_needs_the_room_of_one_copy(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 14) as disk:
        queue = await open_queue(disk / "queue", max_bytes=8 << 20)
        await stored(queue, 250)
        await queue.close()
        queue = await put_aside(disk / "queue", 3 << 20)
        saved = queue.stats().lanes["main"].pending
        assert 200 < saved < 250
        await queue.close()


async def test_a_salvage_that_was_interrupted_begins_again(tmp_path: Path) -> None:
    queue = await open_queue(tmp_path / "queue", max_bytes=8 << 20)
    await stored(queue, 250)
    await queue.close()
    queue = await put_aside(tmp_path / "queue", 3 << 20)
    saved = queue.stats().lanes["main"].pending
    await queue.close()
    [folder] = (tmp_path / "queue/quarantine").iterdir()
    (folder / UNFINISHED).write_text("the power went in the middle of the salvage")
    queue = await open_queue(tmp_path / "queue", max_bytes=8 << 20)
    assert len(await drain(queue)) == saved
    await queue.close()


async def test_what_was_set_aside_makes_room_before_anybody_is_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with small_disk(tmp_path / "disk", 24) as disk:
        queue = await open_queue(disk / "queue", max_bytes=8 << 20)
        await stored(queue, 200)
        await queue.close()
        for times in (1, 2):  # two of 4 MB are as much as the cap allows
            queue = await put_aside(disk / "queue", times << 20)
            await queue.close()
        first, second = sorted((disk / "queue/quarantine").iterdir())
        queue = await open_queue(disk / "queue", max_bytes=8 << 20)
        with (disk / "others").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, free(disk) - (1 << 20))
        await accepted_again(queue, 20_000)
        assert (first.exists(), second.exists()) == (False, True)
        assert f"a damaged database that was set aside makes room: {first}" in caplog.text
        await queue.close()
