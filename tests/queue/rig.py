"""What the queue's tests share: entries, opening, and a process that died without closing."""

import os
import random
import shutil
from pathlib import Path

import apsw

from gateway.clock import SystemClock
from gateway.codec import Entry, Shape
from gateway.errors import StorageFailing
from gateway.queue import DeadLetter, Queue, QueueSettings, Story

SHAPE = Shape("telemetry", b"dev-1", (("tg.device", b"dev-1"),))


def entries(*bodies: bytes) -> list[Entry]:
    return [Entry(SHAPE, 1_700_000_000_000, body) for body in bodies]


def settings(**changes: object) -> QueueSettings:
    quick = {"min_free_bytes": 0, "commit_interval": 0.001, "unacked_interval": 60.0}
    return QueueSettings(**(quick | changes))  # type: ignore[arg-type]


async def open_queue(folder: Path, **changes: object) -> Queue:
    return await Queue.open(folder / "queue.db", settings(**changes), SystemClock())


async def started(folder: Path) -> Queue:
    """A damaged one, by the first or the second process."""
    try:
        return await open_queue(folder)
    except StorageFailing:
        return await open_queue(folder)


async def tall(folder: Path) -> list[bytes]:
    """A queue of sixty segments, whose table has more than one page, closed; the values, one in each."""
    queue = await open_queue(folder)
    values = [b"%d %s" % (number, random.Random(number).randbytes(1000)) for number in range(60)]
    for value in values:
        await queue.put(entries(value))
    await queue.close()
    return values


def story(queue: Queue) -> Story:
    found = queue.stats().salvage
    assert found is not None
    return found


def alter(database: Path, sql: str, bindings: tuple[int, ...] = ()) -> None:
    """As a flipped bit may, in a file that nobody has open."""
    connection = apsw.Connection(str(database))
    connection.execute(sql, bindings)
    connection.close()


def copy_as_killed(folder: Path, copy: Path) -> None:
    """The files as the kernel has them now: what the next process would find after kill -9."""
    shutil.copytree(folder, copy)


async def drain(queue: Queue, lane: str = "main") -> list[tuple[int, bytes]]:
    """All pending records as (number, value); the position moves past them."""
    found: list[tuple[int, bytes]] = []
    while segments := await queue.peek(lane, queue.position(lane), 1000, 1 << 20):
        for segment in segments:
            found += [(segment.first + index, entry.value) for index, entry in enumerate(segment.entries)]
        queue.advance(lane, segments[-1].last, sum(len(segment.entries) for segment in segments))
    return found


async def damaged(folder: Path, offset: int, size: int) -> Queue:
    with (folder / "queue.db").open("r+b") as file:
        file.seek(offset)
        file.write(os.urandom(size))
    (folder / "queue.db-wal").write_bytes(b"an unclean stop")
    return await open_queue(folder)


async def dead_letters(queue: Queue) -> list[DeadLetter]:
    return await queue.dead([one.id for one in await queue.dead_list(100)])
