"""What lies on the pages of a damaged database is found there, whatever leads to it."""

import random
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from gateway.queue import Queue, checked
from gateway.queue.pages import Pages
from gateway.queue.segments import DROPPED, HEAD
from gateway.queue.store import PAGE_BYTES
from tests.damage.wounds import flip_bit, root
from tests.queue.rig import copy_as_killed, drain, entries, open_queue, started

RECORDS = 60
FIRST_PAGES = 11
"""The schema, and the first one of each table and index."""

FIRST_FRAMES = 100_000
"""Bytes of a log, which has a header of 32 bytes and then frames, with headers of 24."""


async def written(folder: Path) -> list[bytes]:
    """Each in a segment of its own, closed; the values."""
    queue = await open_queue(folder)
    values = [b"%d %s" % (number, random.Random(number).randbytes(1000)) for number in range(RECORDS)]
    for value in values:
        await queue.put(entries(value))
    await queue.close()
    return values


def lose(database: Path, begin: int, end: int) -> None:
    """Of its bytes."""
    content = bytearray(database.read_bytes())
    content[begin:end] = bytes(end - begin)
    database.write_bytes(content)


async def saved(folder: Path) -> tuple[Queue, list[bytes]]:
    queue = await started(folder)
    assert queue.stats().salvage is not None
    return queue, [value for _, value in await drain(queue)]


async def test_what_a_lost_page_led_to_is_saved(tmp_path: Path) -> None:
    values = await written(tmp_path)
    begin = root(tmp_path / "queue.db", "segment")
    lose(tmp_path / "queue.db", begin, begin + PAGE_BYTES)
    queue, found = await saved(tmp_path)
    assert found == values
    story = queue.stats().salvage
    assert story is not None
    assert (story.main.lost, story.main.end) == ((), RECORDS)
    await queue.close()


async def test_where_the_first_pages_are_lost_the_records_are_saved(tmp_path: Path) -> None:
    values = await written(tmp_path)
    lose(tmp_path / "queue.db", 0, FIRST_PAGES * PAGE_BYTES)
    queue, found = await saved(tmp_path)
    assert found == values
    await queue.close()


async def test_what_was_dropped_does_not_come_back(tmp_path: Path) -> None:
    """Pages that are free again still have it."""
    values = await written(tmp_path)
    database = tmp_path / "queue.db"
    with closing(apsw.Connection(str(database))) as connection:
        checked.put(connection, "gap", (1, "main", 11, 20, 0, 0, DROPPED, 1))
    begin = root(database, "segment")
    lose(database, begin, begin + PAGE_BYTES)
    queue, found = await saved(tmp_path)
    assert found == values[:10] + values[20:]
    await queue.close()


@pytest.mark.parametrize("seed", range(8))
async def test_rows_and_their_bodies_are_those_that_sqlite_reads(tmp_path: Path, seed: int) -> None:
    """Of a queue in use, whose log has some of them, and once it is closed."""
    chance = random.Random(seed)
    live = tmp_path / "live"
    queue = await open_queue(live)
    queue.advance("main", 0)
    for _ in range(chance.randrange(50, 200)):
        sizes = (
            chance.choice((0, 10, 400, 3900, 4100, 30_000, 200_000)) for _ in range(chance.randint(1, 3))
        )
        await queue.put(entries(*map(chance.randbytes, sizes)))
        if chance.random() < 0.1:
            queue.advance("main", chance.randrange(queue.position("main"), queue.next_seq("main")))
        if chance.random() < 0.02:
            await queue.close()
            queue = await open_queue(live)
            queue.advance("main", queue.position("main"))
    copy_as_killed(live, tmp_path / "killed")
    await queue.close()
    for folder in (tmp_path / "killed", live):
        with closing(Pages(folder / "queue.db", None)) as pages:
            found = {(row.head, pages.body(row)) for row in pages.rows()}
        with closing(apsw.Connection(str(folder / "queue.db"))) as connection:
            query = f"SELECT {HEAD},body FROM segment"  # noqa: S608 the words are ours
            rows = {(tuple(head), body) for *head, body in connection.execute(query)}
        assert rows
        assert rows <= found


@pytest.mark.parametrize("seed", range(40))
async def test_what_lies_in_the_log_behind_damage_is_saved(tmp_path: Path, seed: int) -> None:
    """But for the last commit: whether that was acknowledged nothing shows."""
    queue = await open_queue(tmp_path / "live")
    for number in range(RECORDS):
        await queue.put(entries(b"%d" % number))
    copy_as_killed(tmp_path / "live", tmp_path / "killed")
    await queue.close()
    log = tmp_path / "killed" / "queue.db-wal"
    chance = random.Random(seed)
    at = chance.randrange(*chance.choice(((0, 32), (32, 56), (56, FIRST_FRAMES))))
    flip_bit(log, at, 1 << seed % 8)
    queue, found = await saved(tmp_path / "killed")
    assert [value for value in found if int(value) < RECORDS - 1] == [b"%d" % n for n in range(RECORDS - 1)]
    story = queue.stats().salvage
    assert story is not None
    assert {"dead", "gap", "mark"} <= {*story.unread}
    await queue.close()
