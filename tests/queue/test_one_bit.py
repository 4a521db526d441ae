"""One flipped bit of a database that was closed cleanly: the next start finds it, saves what is there and tells what isn't."""

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.driver import Mark
from gateway.errors import StorageFailing
from gateway.queue.schema import segment_id
from gateway.queue.store import PAGE_BYTES
from tests.damage.wounds import ROWS, flip_bit, root, take_rows
from tests.queue.rig import alter, dead_letters, drain, entries, open_queue, started, story, tall

VALUES = [b"%d" % number for number in range(1, 9)]
MARK = Mark("scope", b"key", b"value", 3600)


async def closed(folder: Path, each: int = 2) -> Path:
    """A queue of eight records, a mark and a dead letter; the database file."""
    queue = await open_queue(folder)
    for first in range(0, len(VALUES), each):
        await queue.put(entries(*VALUES[first : first + each]), remember=[MARK])
    await queue.bury("ledger", 1, entries(b"dead")[0], "why")
    await queue.close()
    return folder / "queue.db"


async def test_a_schema_that_can_not_be_read_takes_nothing_away(tmp_path: Path) -> None:
    for number, at in enumerate(range(0, PAGE_BYTES, 97)):
        database = await closed(tmp_path / str(number))
        if not database.read_bytes()[at]:
            continue
        flip_bit(database, at, 1 << at % 8)
        queue = await started(database.parent)
        assert [value for _, value in await drain(queue)] == VALUES, at
        assert queue.recall("scope") == {b"key": b"value"}
        assert len(await dead_letters(queue)) == 1
        await queue.close()


async def test_a_table_is_not_looked_for_elsewhere(tmp_path: Path) -> None:
    """The first page says where each begins."""
    for bit in range(8):
        database = await closed(tmp_path / str(bit))
        content = database.read_bytes()
        flip_bit(database, content.index(b"segmentsegment") + len(b"segmentsegment"), 1 << bit)
        queue = await started(database.parent)
        assert [value for _, value in await drain(queue)] == VALUES
        await queue.close()


async def test_one_wrong_way_in_the_tree_takes_nothing_away(tmp_path: Path) -> None:
    """Behind it no search finds a row, but looking at each does."""
    await tall(tmp_path)
    database = tmp_path / "queue.db"
    content = database.read_bytes()
    table = root(database, "segment")
    [cell] = struct.unpack_from(">H", content, table + 12 + 2 * 3)
    flip_bit(database, table + cell + 4 + 6, 1 << 3)
    queue = await started(tmp_path)
    assert len({value for _, value in await drain(queue)}) == 60
    await queue.close()


@pytest.mark.parametrize("bit", range(6))
async def test_no_record_is_passed_over_because_a_way_leads_past_it(tmp_path: Path, bit: int) -> None:
    """Whatever number a search begins with, the record behind it is found, or the damage is."""
    values = await tall(tmp_path)
    database = tmp_path / "queue.db"
    content = database.read_bytes()
    table = root(database, "segment")
    [cell] = struct.unpack_from(">H", content, table + 12 + 2 * 3)
    flip_bit(database, table + cell + 4 + 8, 1 << bit)
    queue = await started(tmp_path)
    try:
        for after, value in enumerate(values):
            [found] = await queue.peek("main", after, 1, 1)
            assert [entry.value for entry in found.entries] == [value]
    except StorageFailing:
        await queue.close()
        queue = await started(tmp_path)
        assert story(queue).main.lost == ()
    assert [value for _, value in await drain(queue)] == values
    await queue.close()


@pytest.mark.parametrize("table", ["meta", "mark", "dead", "lane", "run"])
async def test_rows_that_vanish_are_missed(tmp_path: Path, table: str) -> None:
    database = await closed(tmp_path)
    take_rows(database, table)
    queue = await started(tmp_path)
    assert story(queue).unread == ((table,) if table in ("meta", "mark", "dead") else ())
    assert [value for _, value in await drain(queue)] == VALUES
    await queue.close()


@pytest.mark.parametrize("bit", range(16))
async def test_segments_that_vanish_are_saved(tmp_path: Path, bit: int) -> None:
    """What is on a page says how many rows it has."""
    database = await closed(tmp_path)
    flip_bit(database, root(database, "segment") + ROWS - bit // 8, 1 << bit % 8)
    queue = await started(tmp_path)
    assert [value for _, value in await drain(queue)] == VALUES
    assert (story(queue).main.lost, story(queue).main.end) == ((), 8)
    await queue.close()


async def test_segments_that_nothing_tells_of_are_missed(tmp_path: Path) -> None:
    """Of four segments of two records each, one is left: two bits."""
    database = await closed(tmp_path)
    flip_bit(database, root(database, "segment") + ROWS, 4 + 1)
    queue = await started(tmp_path)
    assert [value for _, value in await drain(queue)] == VALUES[:2]
    assert story(queue).main.records == 2
    assert story(queue).main.lost_records == 6 or story(queue).main.end < 8
    await queue.close()


def varint(number: int) -> bytes:
    """Of 64 bits, as SQLite's file format has it."""
    high = ((number >> shift & 0x7F) | 0x80 for shift in range(57, 7, -7))
    return bytes((*high, number & 0xFF))


def flip_id(bit: int) -> Callable[[Path], None]:
    """In the file: rows are out of order then, or two have the same id."""

    def change(database: Path) -> None:
        content = database.read_bytes()
        old, new = (varint(segment_id("main", number)) for number in (7, 7 ^ 1 << bit))
        database.write_bytes(content.replace(old, new))
        assert content != database.read_bytes()

    return change


def set_column(sql: str) -> Callable[[Path], None]:
    def change(database: Path) -> None:
        alter(database, f"UPDATE segment SET {sql} WHERE id=?", (segment_id("main", 7),))  # noqa: S608 a test's own

    return change


@pytest.mark.parametrize(
    "change",
    [
        *(set_column(f"id={segment_id('main', 7) ^ 1 << bit}") for bit in (3, 6, 20, 40, 56)),
        *(flip_id(bit) for bit in (0, 1, 2, 3, 7, 30, 57, 63)),
        set_column("count=count+8"),
        set_column("count=count+(1<<40)"),
        set_column("run=run+1"),
        set_column("size=size+1"),
        set_column("wall_ms=wall_ms+65536"),
        set_column("sum=sum+1"),
    ],
)
async def test_a_segment_keeps_its_number(tmp_path: Path, change: Callable[[Path], None]) -> None:
    database = await closed(tmp_path)
    change(database)
    queue = await started(tmp_path)
    assert [value for _, value in await drain(queue)] == VALUES
    [piece] = queue.past.salvaged("main")
    assert (piece.old_first, piece.records, piece.first) == (1, 8, 1)
    assert (story(queue).main.lost, story(queue).main.end) == ((), 8)
    await queue.close()


async def test_pages_that_are_mixed_up_are_found(tmp_path: Path) -> None:
    """A leaf of the table lies where another one was."""
    await tall(tmp_path)
    database = tmp_path / "queue.db"
    content = bytearray(database.read_bytes())
    table = root(database, "segment")
    cells = struct.unpack_from(">9H", content, table + 12)
    one, other = (
        (struct.unpack_from(">I", content, table + cell)[0] - 1) * PAGE_BYTES for cell in cells[4:6]
    )
    content[one : one + PAGE_BYTES] = content[other : other + PAGE_BYTES]
    database.write_bytes(content)
    queue = await started(tmp_path)
    values = [value for _, value in await drain(queue)]
    assert len(set(values)) == len(values) < 60
    assert len(values) + story(queue).main.lost_records == 60
    await queue.close()


async def test_a_mark_that_looks_too_old_is_not_just_forgotten(tmp_path: Path) -> None:
    queue = await open_queue(tmp_path)
    queue._marks._born -= 10_000  # noqa: SLF001 as if it had run so long
    await queue.put(entries(b"1"), remember=[MARK])
    queue.advance("main", 1)
    await queue.close()
    alter(tmp_path / "queue.db", "UPDATE mark SET expires_s=expires_s&~8192")
    queue = await started(tmp_path)
    assert story(queue).unread == ("mark",)
    await queue.close()


async def test_a_letter_that_only_its_index_knows_keeps_no_other_from_being_buried(tmp_path: Path) -> None:
    queue = await open_queue(tmp_path)
    await queue.put(entries(*VALUES))
    await queue.bury("main", 4, entries(b"4")[0], "why")
    await queue.close()
    database = tmp_path / "queue.db"
    at = root(database, "sqlite_autoindex_dead_1")
    content = database.read_bytes()
    flip_bit(database, content.index(b"main\x04", at) + 4, 1)
    queue = await started(tmp_path)
    await queue.bury("main", 5, entries(b"5")[0], "why")
    assert [letter.entry.value for letter in await dead_letters(queue)] == [b"4", b"5"]
    await queue.close()


async def test_a_letter_whose_content_is_damaged_spoils_no_other(tmp_path: Path) -> None:
    queue = await open_queue(tmp_path)
    for number in (1, 2):
        await queue.bury("ledger", number, entries(b"%d" % number)[0], "why")
    await queue.close()
    alter(tmp_path / "queue.db", "UPDATE dead SET body=x'00' WHERE seq=1")
    (tmp_path / "queue.damaged").write_text("seen in use")
    queue = await started(tmp_path)
    assert [letter.entry.value for letter in await dead_letters(queue)] == [b"2"]
    assert story(queue).unread == ("dead",)
    await queue.close()


async def test_two_wounds_of_one_sector_end_in_a_salvage(tmp_path: Path) -> None:
    database = await closed(tmp_path)
    queue = await open_queue(tmp_path)
    queue._store._db.execute("UPDATE segment SET body=x'00' WHERE id=?", (segment_id("main", 1),))  # noqa: SLF001
    queue._store._db.execute("UPDATE segment SET wall_ms='x' WHERE id=?", (segment_id("main", 3),))  # noqa: SLF001
    with pytest.raises(StorageFailing):
        await queue.peek("main", 0, 1, 1)
    assert queue.failed.done()
    await queue.close()
    queue = await started(database.parent)
    assert [value for _, value in await drain(queue)] == VALUES[2:]
    await queue.close()
