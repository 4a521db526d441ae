"""What lies on the pages of a damaged database is found there, whatever leads to it."""

import random
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from gateway.codec import Entry, Shape
from gateway.queue import Queue, checked
from gateway.queue.pages import Pages
from gateway.queue.schema import segment_first
from gateway.queue.segments import DROPPED, HEAD, SEGMENT_RECORDS_MAX
from gateway.queue.store import PAGE_BYTES, log_bytes_max
from tests.damage.wounds import fill, root
from tests.queue.rig import copy_as_killed, drain, entries, open_queue, settings, started, story, tall

FIRST_PAGES = 11
"""The schema, and the first one of each table and index."""


def lose_root(database: Path, table: str = "segment") -> None:
    fill(database, root(database, table), PAGE_BYTES)


async def saved(folder: Path) -> tuple[Queue, list[bytes]]:
    queue = await started(folder)
    assert story(queue)
    return queue, [value for _, value in await drain(queue)]


async def test_what_a_lost_page_led_to_is_saved(tmp_path: Path) -> None:
    values = await tall(tmp_path)
    lose_root(tmp_path / "queue.db")
    queue, found = await saved(tmp_path)
    assert found == values
    assert (story(queue).main.lost, story(queue).main.end) == ((), len(values))
    await queue.close()


async def test_where_the_first_pages_are_lost_the_records_are_saved(tmp_path: Path) -> None:
    values = await tall(tmp_path)
    fill(tmp_path / "queue.db", 0, FIRST_PAGES * PAGE_BYTES)
    queue, found = await saved(tmp_path)
    assert found == values
    await queue.close()


async def test_where_no_position_is_left_and_little_room_the_newest_are_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Most of what lies on the pages was perhaps delivered long ago: the gateway must not wait for room for that."""
    values = await tall(tmp_path)
    fill(tmp_path / "queue.db", 0, FIRST_PAGES * PAGE_BYTES)
    room = log_bytes_max(settings()) + 20 * len(values[0])
    monkeypatch.setattr("gateway.queue.salvage.free_bytes", lambda folder: room)
    queue, found = await saved(tmp_path)
    assert 15 <= len(found) <= 20
    assert found == values[-len(found) :]
    assert [(one.first, one.last) for one in story(queue).main.lost] == [(1, len(values) - len(found))]
    await queue.close()


async def test_what_was_delivered_does_not_come_back(tmp_path: Path) -> None:
    """Pages that are free again still have some of it."""
    values = await tall(tmp_path)
    queue = await open_queue(tmp_path)
    queue.advance("main", 40)
    await queue.put(entries(b"trims"))
    await queue.close()
    with closing(Pages(tmp_path / "queue.db", None)) as pages:
        assert any(segment_first(row.head[0]) <= 40 for row in pages.rows())
    lose_root(tmp_path / "queue.db")
    queue, found = await saved(tmp_path)
    assert found == [*values[40:], b"trims"]
    await queue.close()


async def test_what_the_table_of_gaps_has_does_not_come_back(tmp_path: Path) -> None:
    values = await tall(tmp_path)
    database = tmp_path / "queue.db"
    with closing(apsw.Connection(str(database))) as connection:
        checked.put(connection, "gap", (1, "main", 11, 20, 0, 0, DROPPED, 1))
    lose_root(database)
    queue, found = await saved(tmp_path)
    assert found == values[:10] + values[20:]
    await queue.close()


async def test_a_segment_is_as_large_as_its_headers_make_it(tmp_path: Path) -> None:
    queue = await open_queue(tmp_path, max_bytes=64 << 20)
    chance = random.Random(1)
    await queue.put(
        [
            Entry(Shape("telemetry", b"", (("h", chance.randbytes(5000)),)), 0, b"%d" % number)
            for number in range(SEGMENT_RECORDS_MAX)
        ]
    )
    await queue.close()
    lose_root(tmp_path / "queue.db", "lane")
    queue, found = await saved(tmp_path)
    assert len(found) == SEGMENT_RECORDS_MAX
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
