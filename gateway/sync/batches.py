"""From segments to batches, one per lane, topic and partition: headers added, times clamped, keys hashed.

This is the hot loop of the sync: what records share is prepared once per shape, and a record costs one call.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from gateway.codec import Entry, Shape
from gateway.queue import Segment
from gateway.sync.record_batch import RecordBatch, Template, template
from gateway.sync.sink import Batch, Topic

Partitioner = Callable[[bytes, int], int]

YIELD_RECORDS = 1024
"""Records built before other tasks of the loop get their turn."""

SHAPES_MAX = 8192
"""Whose headers stay encoded from one transaction to the next."""

TRUE_TIME = "tg.time"


class Identity(NamedTuple):
    """What every record of this process carries in its headers."""

    gateway_id: str
    queue_id: str

    @lru_cache(16)  # noqa: B019 one identity a process
    def headers(self, lane: str, run: str) -> tuple[tuple[str, bytes], ...]:
        return (
            ("tg.gateway", self.gateway_id.encode()),
            ("tg.queue", self.queue_id.encode()),
            ("tg.run", run.encode()),
            ("tg.lane", lane.encode()),
        )

    @lru_cache(SHAPES_MAX)  # noqa: B019
    def shared(self, lane: str, run: str, shape: Shape) -> Template:
        return template(shape.key, (*shape.headers, *self.headers(lane, run)))


class _Open:
    """A batch that still takes records."""

    __slots__ = ("data", "first", "last")

    def __init__(self, data: RecordBatch, first: int) -> None:
        self.data = data
        self.first = self.last = first


class _Target(NamedTuple):
    """Where records of a shape go, and what all of them share."""

    topic: str
    partition: int
    shared: Template
    earliest_ms: int
    latest_ms: int


class Batches:
    """Builds one transaction. `topics` must know every topic of the segments; `batch_bytes` may lower their limits.

    Records of `alone` (lane, first, last) get batches of their own, so that Kafka's answer names the bad one.
    """

    def __init__(
        self,
        identity: Identity,
        topics: Mapping[str, Topic],
        broker_ms: int,
        partition: Partitioner,
        *,
        batch_bytes: Mapping[str, int],
        keyless: int,
    ) -> None:
        self._identity = identity
        self._topics = topics
        self._broker_ms = broker_ms
        self._partition = partition
        self._batch_bytes = batch_bytes
        self._keyless = keyless
        self._targets: dict[tuple[str, Shape], _Target] = {}
        # By the shape's id, which the shape kept here keeps from being given to another one.
        self._prepared: dict[int, tuple[Shape, _Target, _Open]] = {}
        self._prepared_for = ("", "")
        self._open: dict[tuple[str, str, int], _Open] = {}
        self._done: dict[tuple[str, str, int], list[Batch]] = {}

    async def add(
        self, segment: Segment, skip: frozenset[int], alone_through: int, takes: Callable[[str], bool]
    ) -> None:
        """Add a segment's records for the topics it `takes`, but not the numbers of `skip`; up to number
        `alone_through`, each gets its own batch."""
        for start in range(0, len(segment.entries), YIELD_RECORDS):
            entries = segment.entries[start : start + YIELD_RECORDS]
            first = segment.first + start
            if skip or first <= alone_through:
                self._add_singly(segment.lane, segment.run, first, entries, skip, alone_through, takes)
            else:
                self._add(segment.lane, segment.run, first, entries, takes)
            await asyncio.sleep(0)

    def finish(self) -> list[Batch]:
        """All batches; those of one partition in order, partitions by turns, so that they travel side by side."""
        for place in list(self._open):
            self._close(place)
        queues = [iter(batches) for batches in self._done.values()]
        return list(_by_turns(queues))

    def _add(
        self, lane: str, run: str, first: int, entries: Sequence[Entry], takes: Callable[[str], bool]
    ) -> None:
        if (lane, run) != self._prepared_for:
            self._prepared_for = (lane, run)
            self._prepared.clear()
        prepared = self._prepared
        seq = first
        for shape, time_ms, value in entries:
            found = prepared.get(id(shape))
            if found is None:
                if not takes(shape.topic):
                    seq += 1
                    continue
                target = self._target(lane, run, shape)
                batch = self._batch(lane, target, seq)
                found = prepared[id(shape)] = (shape, target, batch)
            _, target, batch = found
            if target.earliest_ms <= time_ms <= target.latest_ms and batch.data.append(
                time_ms, target.shared, value, seq
            ):
                batch.last = seq
                seq += 1
                continue
            self._append(lane, run, shape, target, seq, time_ms, value)
            prepared.clear()
            seq += 1

    def _add_singly(
        self,
        lane: str,
        run: str,
        first: int,
        entries: Sequence[Entry],
        skip: frozenset[int],
        alone_through: int,
        takes: Callable[[str], bool],
    ) -> None:
        for seq, (shape, time_ms, value) in enumerate(entries, first):
            if seq in skip or not takes(shape.topic):
                continue
            target = self._target(lane, run, shape)
            if seq <= alone_through:
                self._close((lane, target.topic, target.partition))
            self._append(lane, run, shape, target, seq, time_ms, value)
            if seq <= alone_through:
                self._close((lane, target.topic, target.partition))

    def _append(
        self, lane: str, run: str, shape: Shape, target: _Target, seq: int, time_ms: int, value: bytes
    ) -> None:
        """Like the hot loop, for a record that is out of its time limits or perhaps the first of a new batch."""
        shared = target.shared
        timestamp = min(max(time_ms, target.earliest_ms), target.latest_ms)
        if timestamp != time_ms:
            headers = (*shape.headers, *self._identity.headers(lane, run), (TRUE_TIME, b"%d" % time_ms))
            shared = template(shape.key, headers)
            timestamp = max(timestamp, 0) if target.earliest_ms <= target.latest_ms else self._broker_ms
        batch = self._batch(lane, target, seq)
        if not batch.data.append(timestamp, shared, value, seq):
            self._close((lane, target.topic, target.partition))
            batch = self._batch(lane, target, seq)
            batch.data.append(timestamp, shared, value, seq)
        batch.last = seq

    def _batch(self, lane: str, target: _Target, seq: int) -> _Open:
        place = (lane, target.topic, target.partition)
        batch = self._open.get(place)
        if batch is None:
            size = self._batch_bytes.get(target.topic, self._topics[target.topic].batch_bytes)
            batch = self._open[place] = _Open(RecordBatch(size), seq)
        elif batch.data.records == 0:
            batch.first = seq
        return batch

    def _close(self, place: tuple[str, str, int]) -> None:
        self._prepared.clear()
        batch = self._open.pop(place, None)
        if batch is not None and batch.data.records:
            self._done.setdefault(place, []).append(Batch(*place, batch.data, batch.first, batch.last))

    def _target(self, lane: str, run: str, shape: Shape) -> _Target:
        found = self._targets.get((run, shape))
        if found is None:
            found = self._targets[(run, shape)] = self._make_target(lane, run, shape)
        return found

    def _make_target(self, lane: str, run: str, shape: Shape) -> _Target:
        topic = self._topics[shape.topic]
        key = shape.key
        partition = (
            self._keyless if key is None else self._partition(key, topic.partitions)
        ) % topic.partitions
        earliest = 0 if topic.behind_ms is None else max(0, self._broker_ms - topic.behind_ms)
        latest = self._broker_ms + topic.ahead_ms
        if topic.append_time:  # the broker overwrites the timestamp: no time is inside the limits
            earliest = latest + 1
        return _Target(shape.topic, partition, self._identity.shared(lane, run, shape), earliest, latest)


def _by_turns(queues: Sequence[Iterator[Batch]]) -> Iterator[Batch]:
    waiting = list(queues)
    while waiting:
        still = []
        for queue in waiting:
            batch = next(queue, None)
            if batch is not None:
                yield batch
                still.append(queue)
        waiting = still
