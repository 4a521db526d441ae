"""A queue that goes on as another one: all of it or nothing, and nothing else changes."""

import json
import os
import shutil
from pathlib import Path

from gateway.queue import Origin
from tests.queue.rig import copy_as_killed, damaged, drain, entries, open_queue

FRAME_BYTES = 24 + 4096


async def test_the_records_keep_their_numbers_and_the_ledger_tells_it(tmp_path: Path) -> None:
    queue = await open_queue(tmp_path)
    await queue.put(entries(b"1", b"2", b"3"))
    origin = Origin("new", queue.queue_id, {"main": 2, "ledger": 0})
    before = queue.stats()
    await queue.part(origin, text="why")
    await queue.put(entries(b"4"))
    assert (queue.queue_id, queue.origin) == ("new", origin)
    assert queue.stats().lanes["main"].stored == before.lanes["main"].stored + 1
    await queue.close()
    queue = await open_queue(tmp_path)
    assert (queue.queue_id, queue.origin) == ("new", origin)
    queue.advance("main", 2)
    assert await drain(queue) == [(3, b"3"), (4, b"4")]
    [(number, told)] = await drain(queue, "ledger")
    assert number == 1
    assert json.loads(told).items() >= {"kind": "parted", "text": "why", "queue_id": origin.queue_id}.items()
    lanes = queue.stats().lanes
    assert (lanes["main"].stored, lanes["main"].delivered, lanes["main"].pending) == (4, 4, 0)
    await queue.close()


async def test_the_power_goes_at_any_write_of_it(tmp_path: Path) -> None:
    """The log is cut at each of its frames: what a power cut leaves of a transaction."""
    queue = await open_queue(tmp_path / "live")
    old = queue.queue_id
    await queue.put(entries(b"1", b"2"))
    log = tmp_path / "live" / "queue.db-wal"
    before = os.stat(log).st_size
    await queue.part(Origin("new", old, {"main": 1, "ledger": 0}))
    copy_as_killed(tmp_path / "live", tmp_path / "dead")
    await queue.close()
    found = set()
    for size in range(before, os.stat(tmp_path / "dead" / "queue.db-wal").st_size + 1, FRAME_BYTES):
        cut = tmp_path / str(size)
        shutil.copytree(tmp_path / "dead", cut)
        os.truncate(cut / "queue.db-wal", size)
        queue = await open_queue(cut)
        found.add((queue.queue_id, queue.origin is not None, len(await drain(queue, "ledger"))))
        assert await drain(queue) == [(1, b"1"), (2, b"2")]
        await queue.close()
    assert found == {(old, False, 0), ("new", True, 1)}


async def test_an_origin_is_not_inherited_by_a_database_that_is_made_of_a_damaged_one(tmp_path: Path) -> None:
    queue = await open_queue(tmp_path)
    for _ in range(100):
        await queue.put(entries(os.urandom(3000)))
    await queue.part(Origin("new", queue.queue_id, {"main": 50, "ledger": 0}))
    await queue.close()
    queue = await damaged(tmp_path, 60_000, 30_000)
    [story] = [json.loads(told) for _, told in await drain(queue, "ledger") if b"salvage" in told]
    assert story["queue_id"] == "new"
    assert queue.queue_id != "new"
    assert queue.origin is None
    await queue.close()
