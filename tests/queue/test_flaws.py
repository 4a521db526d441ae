"""Single rows that make no sense: found at the start, set aside, and all records saved."""

from pathlib import Path

import pytest

from gateway.driver import Mark
from gateway.errors import StorageFailing
from gateway.queue import UNREAD
from tests.queue.rig import alter, drain, entries, open_queue


@pytest.mark.parametrize(
    "flaw",
    [
        "UPDATE lane SET position='x' WHERE name='main'",
        "UPDATE lane SET next_seq=x'00' WHERE name='main'",
        "UPDATE lane SET next_seq=next_seq|1<<45 WHERE name='main'",
        "UPDATE lane SET position=1000 WHERE name='main'",
        "UPDATE lane SET name=cast(x'ff' AS TEXT) WHERE name='main'",
        "DELETE FROM lane WHERE name='main'",
        "UPDATE segment SET wall_ms='x'",
        "INSERT INTO mark VALUES('s','1',2,'x',0)",
        "INSERT INTO dead VALUES(2,'main','x',1,'why',0,'')",
        "UPDATE meta SET value=substr(value,1,10)||'?'||substr(value,12) WHERE key='queue_id'",
    ],
)
async def test_numbers_that_are_none_are_set_aside_and_all_records_saved(tmp_path: Path, flaw: str) -> None:
    queue = await open_queue(tmp_path)
    await queue.put(entries(b"1", b"2", b"3"))
    await queue.close()
    alter(tmp_path / "queue.db", flaw)
    (tmp_path / "queue.damaged").write_text("seen in use")
    queue = await open_queue(tmp_path)
    assert [body for _, body in await drain(queue)] == [b"1", b"2", b"3"]
    story = queue.stats().salvage
    assert story is not None
    assert story.main.lost == ()
    await queue.close()


@pytest.mark.parametrize(
    ("flaw", "table"),
    [
        ("UPDATE lane SET position='x' WHERE name='main'", "lane"),
        ("UPDATE lane SET next_seq=next_seq|1<<45 WHERE name='main'", "lane"),
        ("UPDATE lane SET dropped=1 WHERE name='ledger'", "lane"),
        ("UPDATE segment SET count='x'", "segment"),
        ("UPDATE meta SET value=value||'.' WHERE key='queue_id'", "meta"),
        ("UPDATE run SET main=x'00'", "run"),
        ("UPDATE run SET main=main+1", "run"),
        ("UPDATE run SET run_id=upper(run_id)||'x'", "run"),
        ("INSERT INTO gap VALUES(1,'main',1,1,1,1,'queue full: oldest dropped',0,7)", "gap"),
        ("UPDATE mark SET value=x'00'", "mark"),
        ("UPDATE mark SET expires_s=expires_s+1", "mark"),
        ("UPDATE dead SET seq=seq+1", "dead"),
        ("UPDATE dead SET lane='main'", "dead"),
    ],
)
async def test_a_row_that_makes_no_sense_is_found_at_start(tmp_path: Path, flaw: str, table: str) -> None:
    queue = await open_queue(tmp_path)
    await queue.put(entries(b"1"), remember=[Mark("scope", b"key", b"value", 3600)])
    await queue.bury("ledger", 1, entries(b"dead")[0], "why")
    await queue.close()
    alter(tmp_path / "queue.db", flaw)
    with pytest.raises(StorageFailing, match=f"a row of table {table} can't be read"):
        await open_queue(tmp_path)
    queue = await open_queue(tmp_path)
    assert [body for _, body in await drain(queue)] == [b"1"]
    story = queue.stats().salvage
    assert story is not None
    assert story.unread == ((table,) if table in UNREAD else ())
    await queue.close()


async def test_a_first_start_that_was_interrupted_is_no_damage(tmp_path: Path) -> None:
    """Power was cut twice: a log is left that holds nothing, and no database."""
    queue = await open_queue(tmp_path / "other")
    header = (tmp_path / "other/queue.db-wal").read_bytes()[:32]
    await queue.close()
    (tmp_path / "queue.lock").write_bytes(b"")
    (tmp_path / "queue.db-wal").write_bytes(header)
    queue = await open_queue(tmp_path)
    assert queue.stats().salvage is None
    await queue.put(entries(b"1"))
    await queue.close()
