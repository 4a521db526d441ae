"""The laws that a queue must keep after a power cut, seen from outside: open it, deliver all it has, count."""

import itertools
import json
import re
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from gateway.clock import Clock
from gateway.codec import Entry, Shape
from gateway.queue import LANES, Queue, QueueSettings
from gateway.sync.position import Key, Position, Progress, run_of
from gateway.sync.reconcile import Local, Seen, reconcile
from tests.crash.promises import Event, Promises

CAP_BYTES = 256 << 10
GATEWAY = "plant"
SCOPE = "mqtt/floor/qos2"
NOTE = "sync.hint"
SHAPE = Shape("telemetry", b"dev-1", (("tg.device", b"dev-1"),))


class Broken(AssertionError):
    """A law is."""


class Told(NamedTuple):
    """What the ledger says of main: numbers that were dropped, and dead letters that made room."""

    dropped: set[int]
    forgotten: set[int]


def settings(when_full: str) -> QueueSettings:
    return QueueSettings(
        max_bytes=CAP_BYTES,
        min_free_bytes=0,
        when_full=when_full,  # type: ignore[arg-type]
    )


def law(holds: bool, text: str) -> None:
    if not holds:
        raise Broken(text)


async def reconciled(queue: Queue, promises: Promises) -> None:
    """As the sync does it after a connect: Kafka's position decides."""
    kafka = {lane: cluster for lane, cluster in promises.kafka.items() if cluster.run}
    seen = {
        Key(GATEWAY, queue.queue_id, lane): Seen(
            0, Position(Progress(one.position, one.position), one.run, (), None)
        )
        for lane, one in kafka.items()
    }
    for lane in LANES:
        local = Local(
            lane,
            queue.queue_id,
            queue.runs(lane),
            queue.next_seq(lane),
            queue.position(lane),
            fresh=lane not in kafka,
        )
        verdict = reconcile(local, seen, GATEWAY)
        law(verdict.hold is None and verdict.note is None, f"held: {verdict.hold or verdict.note}")
        law(
            verdict.position == promises.kafka[lane].position,
            f"{lane}: goes on after {verdict.position}, Kafka has {promises.kafka[lane].position}",
        )
        queue.advance(lane, verdict.position)


async def fetch(queue: Queue, lane: str, after: int, records: int) -> tuple[int, dict[int, Entry]]:
    """What one transaction takes, pinned: its last number, and the records that are not dead letters."""
    segments = await queue.peek(lane, after, records, 1 << 20, pin=True)
    for segment in segments:
        law(segment.run != "unknown", f"{lane}: {segment.first} was given by no run")
    dead = set(queue.buried(lane))
    found = {
        segment.first + index: entry
        for segment in segments
        for index, entry in enumerate(segment.entries)
        if segment.first + index not in dead
    }
    return (segments[-1].last if segments else after), found


async def drain(queue: Queue, lane: str, promise: Callable[[Event], None], records: int = 1000) -> None:
    while True:
        last, found = await fetch(queue, lane, queue.position(lane), records)
        if last == queue.position(lane):
            return
        values = {number: entry.value for number, entry in found.items()}
        run = run_of(last, queue.runs(lane))
        promise(partial(Promises.deliver, lane=lane, position=last, run=run, values=values))
        queue.advance(lane, last, len(values))
        queue.unpin(lane)


async def examine(
    folder: Path,
    promises: Promises,
    when_full: str,
    clock: Clock,
    promise: Callable[[Event], None],
    vfs: str | None = None,
) -> None:
    """Raises Broken. `promise` notes what is delivered on the way, in `promises` too."""
    queue = await Queue.open(folder / "queue.db", settings(when_full), clock, vfs=vfs)
    try:
        await _obeys(queue, promises, promise)
    finally:
        await queue.close()


async def _obeys(queue: Queue, promises: Promises, promise: Callable[[Event], None]) -> None:
    law(queue.stats().salvage is None, f"salvaged: {queue.stats().salvage}")
    if promises.queue_id is not None:
        law(queue.queue_id == promises.queue_id, "another queue id")
    stored = queue.next_seq("main") - 1
    law(stored >= promises.acknowledged, f"acknowledged {promises.acknowledged}, stored {stored}")
    law(stored <= len(promises.values), f"offered {len(promises.values)}, stored {stored}")
    _puts_are_whole(queue, stored, promises)
    law(queue.load(NOTE) in promises.notes, f"{NOTE} is {queue.load(NOTE)}, not one of {promises.notes}")
    await reconciled(queue, promises)
    await _balanced(queue)
    before = {lane: set(cluster.values) for lane, cluster in promises.kafka.items()}
    for lane in LANES:
        await drain(queue, lane, promise)
    await queue.put([])  # and with it what was dropped is told
    await drain(queue, "ledger", promise)
    for lane in LANES:
        new = set(promises.kafka[lane].values) - before[lane]
        law(not new or min(new) > max(before[lane], default=0), f"{lane}: delivered out of order")
    await _accounted(queue, stored, promises)


def _puts_are_whole(queue: Queue, stored: int, promises: Promises) -> None:
    """A put's records and marks are there together or not at all, as if all puts behind one had never been."""
    possible = [
        count
        for count in range(promises.kept, len(promises.puts) + 1)
        if (promises.puts[count - 1].through if count else 0) == stored
    ]
    marks = queue.recall(SCOPE)
    law(bool(possible), f"number {stored} lies within a put, or an acknowledged one is not whole")
    law(
        any(promises.marks_after(count) == marks for count in possible),
        f"marks {marks}, but records up to {stored} are stored and {promises.kept} puts acknowledged: "
        f"{promises.marks_after(possible[0])}",
    )


async def _balanced(queue: Queue) -> None:
    for lane in LANES:
        stats, counted = None, None
        while stats != queue.stats().lanes[lane]:  # a commit came in between
            stats = queue.stats().lanes[lane]
            counted = await queue.count_pending(lane)
        assert stats is not None
        assert counted is not None
        law(counted.records == stats.pending, f"{lane}: {counted.records} can be read, {stats}")
        law(
            stats.stored == stats.pending + stats.delivered + stats.dropped + stats.dead,
            f"{lane} is not balanced: {stats}",
        )


async def _accounted(queue: Queue, stored: int, promises: Promises) -> None:
    """Every number has one fate, and what was delivered is what was offered under that number."""
    delivered = promises.kafka["main"].values
    wrong = [number for number, value in delivered.items() if value != promises.values[number - 1]]
    law(not wrong, f"other content under the numbers {wrong}")
    told = _told(promises.kafka["ledger"].values.values())
    letters = await queue.dead([one.id for one in await queue.dead_list(1000)])
    dead = {one.seq for one in letters}
    law(
        all(one.entry.value == promises.values[one.seq - 1] for one in letters),
        "a dead letter has other content",
    )
    again = {old for number, old in promises.retries.items() if number <= stored}
    fates = [set(delivered), told.dropped, dead, again, told.forgotten]
    numbers = sorted(number for fate in fates for number in fate)
    if numbers != list(range(1, stored + 1)):
        twice = sorted({one for one, other in itertools.pairwise(numbers) if one == other})
        missing = sorted(set(range(1, stored + 1)) - set(numbers))
        raise Broken(f"of {stored} numbers {missing} are nowhere, {twice} in two places")
    stats = queue.stats().lanes["main"]
    expected = (stored, 0, len(delivered), len(told.dropped), len(dead | again | told.forgotten))
    counted = (stats.stored, stats.pending, stats.delivered, stats.dropped, stats.dead)
    law(counted == expected, f"(stored, pending, delivered, dropped, dead) is {counted}, really {expected}")
    law(promises.dead <= dead | again | told.forgotten, "a dead letter is gone")
    ledger = list(promises.kafka["ledger"].values.values())
    kept = [value for put in promises.puts[: promises.kept] for value in put.ledger]
    law(all(ledger.count(value) == 1 for value in kept), "a record of the ledger is missing or twice there")
    numbers = sorted(promises.kafka["ledger"].values)
    law(numbers == list(range(1, queue.next_seq("ledger"))), "the ledger's numbers are not continuous")


def _told(ledger: Iterable[bytes]) -> Told:
    told = Told(set(), set())
    for value in ledger:
        match json.loads(value):
            case {"kind": "dropped", "lane": "main", "first": first, "last": last}:
                told.dropped.update(range(first, last + 1))
            case {"kind": "note", "text": text}:
                told.forgotten.update(int(number) for number in re.findall(r"main/(\d+)", text))
    return told
