"""What a driver, the sync and an operator see of the queue, over real files."""

import asyncio
import json
import logging
import os
import threading
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import apsw
import pytest

from gateway.clock import SystemClock
from gateway.codec import Entry
from gateway.driver import Mark, MarkKey
from gateway.errors import QueueFull, StorageError, TooLarge
from gateway.limits import RECORD_BYTES_MAX
from gateway.queue import Queue, Segment
from gateway.queue.recent import Recent
from gateway.queue.store import RUNS_MAX
from tests.queue.rig import copy_as_killed, damaged, dead_letters, drain, entries, open_queue, settings


async def test_what_was_put_comes_back_in_order_after_a_kill(tmp_path: Path) -> None:
    queue = await open_queue(tmp_path / "a")
    for index in range(200):
        await queue.put(entries(b"%d" % index))
    copy_as_killed(tmp_path / "a", tmp_path / "b")
    await queue.close()
    queue = await open_queue(tmp_path / "b")
    assert await drain(queue) == [(index + 1, b"%d" % index) for index in range(200)]
    await queue.close()


async def test_numbers_are_never_given_twice(tmp_path: Path) -> None:
    seen: set[int] = set()
    for _ in range(3):
        queue = await open_queue(tmp_path)
        await queue.put(entries(b"x", b"y"))
        numbers = {number for number, _ in await drain(queue)}
        assert not numbers & seen
        seen |= numbers
        await queue.close()
    assert seen == {1, 2, 3, 4, 5, 6}


async def test_records_that_nobody_waits_for_are_on_disk_after_the_interval_or_a_clean_stop(
    tmp_path: Path,
) -> None:
    queue = await open_queue(tmp_path, unacked_interval=0.05)
    await asyncio.wait_for(queue.put(entries(b"rides"), waits=False), 5)
    assert queue.next_seq("main") == 2
    await queue.close()
    queue = await open_queue(tmp_path)
    late = queue.put(entries(b"stop"), waits=False)
    assert not late.done()
    await queue.close()
    assert late.done()
    queue = await open_queue(tmp_path)
    assert [body for _, body in await drain(queue)] == [b"rides", b"stop"]
    await queue.close()


async def test_many_records_that_nobody_waits_for_do_not_wait_for_the_interval(tmp_path: Path) -> None:
    queue = await open_queue(tmp_path, unacked_interval=60.0)
    puts = [queue.put(entries(bytes(50_000)), waits=False) for _ in range(50)]
    await asyncio.wait_for(puts[-1], 10)
    await queue.close()


async def test_records_without_a_body_take_memory_too(tmp_path: Path) -> None:
    queue = await open_queue(tmp_path)
    gate = threading.Event()
    disk = asyncio.ensure_future(queue._call(gate.wait))  # noqa: SLF001 it stands still
    empty = entries(*[b""] * 10_000)
    for _ in range(6):
        queue.put(empty)
    with pytest.raises(QueueFull, match="slower"):
        queue.put(empty)
    gate.set()
    await disk
    await queue.close()


def test_the_newest_records_are_kept_within_a_bound_however_small_they_are() -> None:
    recent = Recent()
    for index in range(200):
        recent.add(Segment.of("main", 1 + 1000 * index, "run", entries(*[b"1"] * 1000)))
    kept = recent.segments()
    assert sum(len(segment.entries) for segment in kept) < 50_000
    assert kept[-1].last == 200_000


async def test_a_cancelled_caller_does_not_cancel_its_neighbours(tmp_path: Path) -> None:
    queue = await open_queue(tmp_path, commit_interval=0.05)
    await queue.put(entries(b"0"))
    first, second = queue.put(entries(b"1")), queue.put(entries(b"2"))
    first.cancel()
    await asyncio.wait_for(second, 5)
    assert [body for _, body in await drain(queue)] == [b"0", b"1", b"2"]
    await queue.close()


async def test_marks_live_in_the_transaction_of_their_records(tmp_path: Path) -> None:
    queue = await open_queue(tmp_path / "a")
    await queue.put(entries(b"x"), remember=[Mark("s", b"1", b"one", 60), Mark("s", b"2", b"two", 60)])
    both = [
        queue.put([], forget=[MarkKey("s", b"1")]),
        queue.put([], remember=[Mark("s", b"1", b"again", 60)]),
    ]
    await asyncio.gather(*both)  # in one group, in this order
    await queue.put([], forget=[MarkKey("s", b"2")])
    copy_as_killed(tmp_path / "a", tmp_path / "b")
    await queue.close()
    queue = await open_queue(tmp_path / "b")
    assert queue.recall("s") == {b"1": b"again"}
    assert queue.recall("other") == {}
    await queue.close()


class LaterClock(SystemClock):
    ahead = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead


async def test_marks_that_are_too_old_make_room_on_the_disk_too(tmp_path: Path) -> None:
    clock = LaterClock()
    queue = await Queue.open(tmp_path / "queue.db", settings(), clock)
    await queue.put([], remember=[Mark("s", b"%d" % number, b"old", 60) for number in range(10)])
    clock.ahead = 62.0
    first = queue.put([], remember=[Mark("s", b"a", b"new", 60), Mark("s", b"b", b"new", 60)])
    while not queue.committing_s():  # noqa: ASYNC110
        await asyncio.sleep(0)
    await asyncio.gather(first, queue.put([], remember=[Mark("s", b"0", b"in use again", 60)]))
    await queue.put([], remember=[Mark("s", letter, b"new", 60) for letter in (b"c", b"d", b"e")])
    await queue.put([])
    await queue.put([], remember=[Mark("gone", b"x", b"of a driver that is not there any more", 1)])
    fresh = {b"a", b"b", b"c", b"d", b"e", b"0"}
    assert set(queue.recall("s")) == fresh
    await queue.close()
    queue = await Queue.open(tmp_path / "queue.db", settings(), clock)
    clock.ahead += 30.0
    for lane in ("main", "ledger"):
        queue.advance(lane, 0)
    await queue.close()
    await (await open_queue(tmp_path)).close()
    assert {
        key for (key,) in apsw.Connection(str(tmp_path / "queue.db")).execute("SELECT key FROM mark")
    } == fresh


async def test_marks_leave_a_small_queue_room_for_records(tmp_path: Path) -> None:
    queue = await open_queue(tmp_path, max_bytes=4 << 20)
    await queue.put([], remember=[Mark("numbers", b"sent", b"17", 10**6)])
    keys = [b"%05d" % number for number in range(30_000)]
    for start in range(0, len(keys), 1000):
        await queue.put([], remember=[Mark("keys", key, bytes(200), 10**6) for key in keys[start:][:1000]])
    await queue.put(entries(b"goes on"))
    kept = queue.recall("keys")
    assert list(kept) == keys[-len(kept) :]
    assert (4 << 20) / 16 < len(kept) * 200 < (4 << 20) / 8
    await queue.put([])
    await queue.close()
    queue = await open_queue(tmp_path, max_bytes=4 << 20)
    assert queue.recall("keys").keys() == kept.keys()
    assert queue.recall("numbers") == {b"sent": b"17"}
    await queue.close()


async def test_a_second_process_is_refused_with_a_sentence(tmp_path: Path) -> None:
    queue = await open_queue(tmp_path)
    with pytest.raises(StorageError, match="in use by another tidegate"):
        await open_queue(tmp_path)
    await queue.close()


async def test_too_large_is_refused_before_anything_joins(tmp_path: Path) -> None:
    queue = await open_queue(tmp_path)
    with pytest.raises(TooLarge):
        queue.put(entries(b"small", b"x" * (RECORD_BYTES_MAX + 1)))
    assert queue.stats().lanes["main"].stored == 0
    await queue.close()


async def test_at_the_cap_devices_are_refused_until_records_are_delivered(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gateway.queue")
    queue = await open_queue(tmp_path, max_bytes=2 << 20)
    accepted = 0
    while queue.stats().refusing is None:
        try:
            await queue.put(entries(os.urandom(50_000)))
            accepted += 1
        except QueueFull:
            break
    assert accepted > 10
    assert "cap" in (queue.stats().refusing or "")
    for _ in range(3):
        with pytest.raises(QueueFull):
            queue.put(entries(bytes(50_000)))
    await queue.put([], remember=[Mark("s", b"k", b"", 60)])  # a PUBREL must still get through
    assert len(await drain(queue)) == accepted
    async with asyncio.timeout(10):
        while True:
            try:
                await queue.put(entries(b"room again"))
                break
            except QueueFull:
                await asyncio.sleep(0.01)
    assert queue.stats().refusing is None
    assert caplog.messages == [
        "devices are refused: the queue is at its cap of 2097152 bytes",
        "devices are accepted again",
    ]
    await queue.close()


async def test_what_is_free_on_the_disk_is_told_as_it_is_now(tmp_path: Path) -> None:
    queue = await open_queue(tmp_path / "queue")
    before = queue.stats().disk_free_bytes
    with (tmp_path / "others").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, 256 << 20)
    assert queue.stats().disk_free_bytes < before - (128 << 20)
    await queue.close()


async def test_drop_oldest_spares_the_pin_and_tells_the_ledger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = await open_queue(tmp_path, max_bytes=2 << 20, when_full="drop_oldest")
    for lane in ("main", "ledger"):
        queue.advance(lane, 0)
    for _ in range(10):
        await queue.put(entries(os.urandom(50_000)))
    queue.pin("main", 5)
    for _ in range(60):
        await queue.put(entries(os.urandom(50_000)))
    numbers = [number for number, _ in await drain(queue)]
    assert numbers[:5] == [1, 2, 3, 4, 5]
    missing = sorted(set(range(1, 71)) - set(numbers))
    assert missing == list(range(6, 6 + len(missing)))
    monkeypatch.setattr("gateway.queue.queue.SETTLE_INTERVAL_S", 0.0)
    await queue.put(entries(b"the settlement rides along"))
    told = [json.loads(value) for _, value in await drain(queue, "ledger")]
    assert len(told) == 2  # the first at once, the others together
    ranges = [number for gap in told for number in range(gap["first"], gap["last"] + 1)]
    assert ranges == missing
    stats = queue.stats().lanes["main"]
    assert (stats.dropped, stats.stored) == (len(missing), 71)
    assert stats.stored == stats.pending + stats.delivered + stats.dropped + stats.dead
    await queue.close()


async def test_drop_oldest_takes_no_more_of_a_disk_that_others_filled(tmp_path: Path) -> None:
    queue = await open_queue(tmp_path)
    for _ in range(40):
        await queue.put(entries(os.urandom(50_000)))
    await queue.close()
    before = (tmp_path / "queue.db").stat().st_size
    queue = await open_queue(tmp_path, min_free_bytes=1 << 60, when_full="drop_oldest")
    for lane in ("main", "ledger"):
        queue.advance(lane, 0)
    for _ in range(30):
        await queue.put(entries(os.urandom(50_000)))
    assert [number for number, _ in await drain(queue)][-1] == 70
    assert 28 <= queue.stats().lanes["main"].dropped <= 32
    await queue.close()
    assert (tmp_path / "queue.db").stat().st_size < before + 500_000


async def test_devices_are_accepted_again_once_the_disk_has_room(tmp_path: Path) -> None:
    """Nothing is delivered meanwhile: only a look at the disk can tell."""
    others = tmp_path / "others"
    with others.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, 256 << 20)
    disk = os.statvfs(tmp_path)
    floor = disk.f_bavail * disk.f_frsize + (128 << 20)
    queue = await open_queue(tmp_path / "queue", min_free_bytes=floor)
    with pytest.raises(QueueFull, match="would stay free"):
        await queue.put(entries(b"1"))
    others.unlink()
    async with asyncio.timeout(10):
        while True:
            try:
                await queue.put(entries(b"1"))
                break
            except QueueFull:
                await asyncio.sleep(0.05)
    await queue.close()


async def test_small_segments_of_an_outage_are_merged(tmp_path: Path) -> None:
    queue = await open_queue(tmp_path)
    for index in range(150):
        await queue.put(entries(b"%d" % index))
    rows, _ = await queue._call(queue._store.read, "main", 0, 1000, 1 << 20)  # noqa: SLF001
    assert len(rows) < 50
    await queue.close()
    queue = await open_queue(tmp_path)
    assert await queue.count_pending("main") == (150, 150)
    assert [number for number, _ in await drain(queue)] == list(range(1, 151))
    await queue.close()


async def test_dead_letters_wait_and_can_be_tried_again(tmp_path: Path) -> None:
    queue = await open_queue(tmp_path)
    await queue.put(entries(b"good", b"bad", b"good too"))
    bad = (await queue.peek("main", 1, 1, 1))[0].entries[0]
    for _ in range(2):  # the transaction after the first try failed
        await queue.bury("main", 2, bad, "record too large")
    [letter] = await dead_letters(queue)
    assert await queue.retry([letter.id]) == 0  # not passed yet: it would be there twice
    assert queue.buried("main") == (2,)
    queue.advance("main", 3, 2)
    assert queue.buried("main") == ()
    stats = queue.stats().lanes["main"]
    assert (stats.stored, stats.delivered, stats.dead, stats.pending) == (3, 2, 1, 0)
    await queue.close()
    queue = await open_queue(tmp_path)
    [letter] = await dead_letters(queue)
    assert (letter.seq, letter.reason, letter.entry.value) == (2, "record too large", b"bad")
    assert sorted(await asyncio.gather(*(queue.retry([letter.id]) for _ in range(2)))) == [0, 1]
    assert await dead_letters(queue) == []
    [segment] = await queue.peek("main", 3, 10, 1000)
    assert ("tg.retry", b"main/2") in segment.entries[0].shape.headers
    await queue.close()


async def test_dead_letters_make_room_for_newer_ones_and_the_ledger_says_which(tmp_path: Path) -> None:
    queue = await open_queue(tmp_path, max_bytes=4 << 20)
    for lane in ("main", "ledger"):
        queue.advance(lane, 0)
    large = entries(*(os.urandom(15_000) for _ in range(5)))
    await queue.put(large)
    for seq, entry in enumerate(large[:4], 1):
        await queue.bury("main", seq, entry, "too large")
    assert [one.seq for one in await queue.dead_list(10)] == [1, 2, 3, 4]  # not passed: they are the records
    queue.advance("main", 4, 0)
    await queue.close()
    queue = await open_queue(tmp_path, max_bytes=4 << 20)
    await queue.bury("main", 5, large[4], "too large")
    assert [one.seq for one in await queue.dead_list(10)] == [4, 5]
    [(_, told)] = await drain(queue, "ledger")
    assert json.loads(told)["text"].endswith("made room for newer ones: main/1, main/2, main/3")
    stats = queue.stats().lanes["main"]
    assert (stats.dead, stats.pending, stats.dropped) == (5, 0, 0)
    await queue.close()


async def test_the_log_tells_once_a_minute_that_dead_letters_make_room(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = LaterClock()
    queue = await Queue.open(tmp_path / "queue.db", settings(max_bytes=4 << 20), clock)
    for lane in ("main", "ledger"):
        queue.advance(lane, 0)
    large = entries(*(os.urandom(25_000) for _ in range(8)))
    await queue.put(large)
    queue.advance("main", 8, 0)
    clock.ahead = 61.0
    await queue.put([])
    for seq, entry in enumerate(large, 1):
        clock.ahead = 61.0 if seq < 8 else 122.0
        await queue.bury("main", seq, entry, "too large")
    text = "the oldest dead letters made room for newer ones: main/"
    told = [message for message in caplog.messages if "made room" in message]
    assert len(told) == 2
    assert told[0].startswith(text)
    assert told[1].endswith(" times since this was told last)")
    await queue.close()


class CutBeforeTheLedgerIsTold(Queue):
    """Copies its files at the last moment at which the ledger doesn't say yet what is to be told."""

    copy_to: Path

    def put(self, entries: Sequence[Entry], *, lane: str = "main", **more: Any) -> asyncio.Future[None]:
        if lane == "ledger":
            copy_as_killed(self.copy_to.with_name("a"), self.copy_to)
        return super().put(entries, lane=lane, **more)


async def test_a_dead_letter_that_makes_room_goes_with_the_note_that_tells_it(tmp_path: Path) -> None:
    queue = await open_queue(tmp_path / "a", max_bytes=4 << 20)
    large = entries(*(os.urandom(15_000) for _ in range(4)))
    await queue.put(large)
    for seq, entry in enumerate(large[:3], 1):
        await queue.bury("main", seq, entry, "too large")
    queue.advance("main", 3, 0)
    await queue.close()
    CutBeforeTheLedgerIsTold.copy_to = tmp_path / "b"
    path = tmp_path / "a" / "queue.db"
    queue = await CutBeforeTheLedgerIsTold.open(path, settings(max_bytes=4 << 20), SystemClock())
    await queue.bury("main", 4, large[3], "too large")
    await queue.close()
    queue = await open_queue(tmp_path / "b", max_bytes=4 << 20)
    assert [one.seq for one in await queue.dead_list(10)] == [1, 2, 3, 4]
    await queue.close()


async def test_a_lost_confirmation_is_made_good_by_the_position_in_kafka(tmp_path: Path) -> None:
    queue = await open_queue(tmp_path / "a")
    await queue.put(entries(b"a", b"b", b"c"))
    copy_as_killed(tmp_path / "a", tmp_path / "b")
    await queue.close()
    queue = await open_queue(tmp_path / "b")
    queue.advance("main", 2)
    stats = queue.stats().lanes["main"]
    assert (stats.delivered, stats.pending) == (2, 1)
    assert await drain(queue) == [(3, b"c")]
    await queue.close()


@pytest.mark.slow
async def test_runs_are_known_as_long_as_their_records_wait_and_only_so_many_beyond(tmp_path: Path) -> None:
    """A gateway that starts again and again in an outage: an unknown run in Kafka's position would stop it."""
    queue = await open_queue(tmp_path)
    await queue.put(entries(b"delivered"))
    queue.advance("main", 1)
    before = queue.run_id
    await queue.close()
    runs = []
    for _ in range(RUNS_MAX + 20):
        queue = await open_queue(tmp_path)
        runs.append(queue.run_id)
        await queue.put(entries(b"waits"))
        await queue.close()
    queue = await open_queue(tmp_path)
    assert [run.run_id for run in queue.runs("main")] == [before, *runs, queue.run_id]
    queue.advance("main", RUNS_MAX + 21)
    await queue.put(entries(b"one more"))
    await queue.close()
    queue = await open_queue(tmp_path)
    assert len(queue.runs("main")) == RUNS_MAX
    await queue.close()


@pytest.mark.parametrize(("offset", "size"), [(0, 100), (8192, 4096), (60_000, 30_000)])
async def test_what_is_damaged_is_set_aside_and_the_rest_saved(
    tmp_path: Path, offset: int, size: int
) -> None:
    queue = await open_queue(tmp_path)
    bodies = [b"%d" % index + os.urandom(3000) for index in range(100)]
    for body in bodies:
        await queue.put(entries(body))
    old = queue.queue_id
    await queue.close()
    queue = await damaged(tmp_path, offset, size)
    assert queue.queue_id != old
    story = queue.stats().salvage
    assert story is not None
    found = await drain(queue)
    assert {body for _, body in found} <= set(bodies)
    assert story.main.records == len(found)
    assert story.queue_id == old
    lost = {number for one in story.main.lost for number in range(one.first, one.last + 1)}
    assert len(lost) == story.main.lost_records
    if story.main.position is not None:
        assert lost == {
            number for number, body in enumerate(bodies, 1) if body not in {one for _, one in found}
        }
    for piece in queue.past.salvaged("main"):
        assert piece.queue_id == old
        kept = [body for number, body in found if piece.first <= number < piece.first + piece.records]
        assert kept == bodies[piece.old_first - 1 : piece.old_first - 1 + piece.records]
    await queue.put(entries(b"collection goes on"))
    assert (tmp_path / "quarantine").is_dir()
    await queue.close()
    queue = await open_queue(tmp_path)
    assert [body for _, body in await drain(queue)] == [b"collection goes on"]
    await queue.close()


async def test_the_running_time_of_marks_goes_on_in_an_outage(tmp_path: Path) -> None:
    """Nothing is confirmed then; without it each power cut would set them back, and the newest be forgotten first."""
    clock = LaterClock()
    queue = await Queue.open(tmp_path / "live/queue.db", settings(), clock)
    for number in (1, 2):
        clock.ahead += 86_400
        await queue.put(entries(b"1"), remember=[Mark("coap", b"%d" % number, b"v", 247)])
    copy_as_killed(tmp_path / "live", tmp_path / "killed")
    await queue.close()
    queue = await open_queue(tmp_path / "killed")
    assert list(queue.recall("coap")) == [b"2"]
    await queue.close()


async def test_a_queue_larger_than_the_memory_can_be_saved(tmp_path: Path) -> None:
    queue = await open_queue(tmp_path)
    for _ in range(100):
        await queue.put(entries(os.urandom(200_000)))
    await queue.close()
    tracemalloc.start()
    queue = await damaged(tmp_path, 60_000, 3_000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert queue.stats().lanes["main"].stored == 99
    assert peak < 5_000_000
    await queue.close()


async def test_dead_letters_of_a_damaged_queue_never_stand_for_records_of_the_new_one(tmp_path: Path) -> None:
    queue = await open_queue(tmp_path)
    await queue.put(entries(*(b"%d" % index for index in range(5))))
    entry = (await queue.peek("main", 4, 1, 1))[0].entries[0]
    await queue.bury("main", 5, entry, "record too large")
    queue.advance("main", 5, 4)
    for _ in range(40):
        await queue.put(entries(os.urandom(3000)))
    await queue.close()
    queue = await damaged(tmp_path, 60_000, 30_000)
    [letter] = await dead_letters(queue)
    assert letter.seq < 0
    assert "number 5 of queue" in letter.reason
    await queue.bury("main", 5, entry, "another one")
    assert {one.seq for one in await dead_letters(queue)} == {letter.seq, 5}
    await queue.close()


async def test_what_came_after_a_record_that_found_no_room_is_not_stored_before_it(tmp_path: Path) -> None:
    queue = await open_queue(tmp_path)

    def limit(pages: int) -> None:
        queue._store._db.execute(f"PRAGMA max_page_count={pages}")  # noqa: SLF001

    await queue._call(limit, 1)  # noqa: SLF001 SQLite keeps what is in use
    first = queue.put(entries(b"first" + os.urandom(5000)))
    while queue._committing is None:  # noqa: SLF001, ASYNC110
        await asyncio.sleep(0)
    second = queue.put(entries(b"second"))
    await queue._call(limit, 1 << 30)  # noqa: SLF001 there is room again before the second is committed
    for future in (first, second):
        with pytest.raises(QueueFull):
            await future
    while True:
        try:
            await asyncio.gather(queue.put(entries(b"first")), queue.put(entries(b"second")))
            break
        except QueueFull:
            await asyncio.sleep(0.05)
    assert [value for _, value in await drain(queue)] == [b"first", b"second"]
    await queue.close()


async def test_one_large_commit_does_not_fill_a_small_queue_for_good(tmp_path: Path) -> None:
    """The log grew to the size of the commit; it counts as used space, and it must shrink again."""
    queue = await open_queue(tmp_path, max_bytes=4 << 20)
    queue.advance("ledger", 0)
    for _ in range(3):
        try:
            await asyncio.gather(*(queue.put(entries(os.urandom(500_000))) for _ in range(4)))
        except QueueFull:  # what is delivered goes with the next commit
            await queue.put([])
        await drain(queue)
        await queue.put([])
        await queue.put([])
    assert queue.stats().used_bytes < 3 << 20
    await queue.close()


async def test_good_records_behind_a_damaged_segment_are_read(tmp_path: Path) -> None:
    """Nothing to read would be taken for the end of the lane, and the position would pass them."""
    before = SystemClock().wall_ms()
    queue = await open_queue(tmp_path)
    for start in (0, 1000):
        await queue.put(entries(*(b"%d" % number for number in range(start, start + 1000))))
    await queue.close()
    database = apsw.Connection(str(tmp_path / "queue.db"))
    database.execute("UPDATE segment SET body=zeroblob(length(body)) WHERE id=(SELECT min(id) FROM segment)")
    database.close()
    queue = await open_queue(tmp_path)
    [segment] = await queue.peek("main", 0, 10, 1000)
    assert (segment.first, segment.entries[0].value) == (1001, b"1000")
    for lane in ("main", "ledger"):
        queue.advance(lane, 0)
    await queue.put([])
    [told] = [json.loads(text) for _, text in await drain(queue, "ledger")]
    assert (told["first"], told["last"]) == (1, 1000)
    assert before <= told["from_ms"] <= told["to_ms"] <= SystemClock().wall_ms()
    await queue.close()
