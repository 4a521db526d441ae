"""A Kafka cluster in memory, and the Sink on it: what the sync can be put through without a broker.

What a MemoryCluster holds is committed and survives every gateway. Its faults are those of Kafka that the sync must
tell apart: a transaction that fails, one whose answer is lost, one that hangs (`pause`, `resume`), a connection that
is refused, a topic that is missing (not in `topics`) or may not be written, a record or a batch that the topic will
never take, positions that are gone (clear `positions`), and a cluster that is an older `copy` of itself.
"""

import asyncio
import copy
import enum
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c

from gateway.clock import Clock, SystemClock
from gateway.errors import SinkUnavailable
from gateway.sync.sink import Batch, Fenced, PositionRecord, Receipt, Rejected, Topic, TopicUnusable


class Fault(enum.Enum):
    FAILS = "the transaction fails before it is committed"
    UNANSWERED = "the transaction is committed, and its answer is lost"


class MemoryRecord(NamedTuple):
    timestamp_ms: int | None
    key: bytes | None
    value: bytes | None
    headers: Mapping[str, bytes]


@dataclass
class MemoryTopic:
    """`batch_bytes` is what Kafka says its limit is, `batch_bytes_max` what it takes."""

    partitions: int = 1
    writable: bool = True
    keyed: bool = False
    batch_bytes: int = 512 << 10
    batch_bytes_max: int = 1 << 20
    logs: dict[int, list[MemoryRecord]] = field(default_factory=dict)

    def records(self) -> list[MemoryRecord]:
        """Partition by partition, each in order."""
        return [record for _, log in sorted(self.logs.items()) for record in log]


class MemoryCluster:
    """`faults` befall the next transactions, `refusals` the next attempts to open, both in order."""

    def __init__(self, cluster_id: str = "memory", clock: Clock | None = None) -> None:
        self.cluster_id = cluster_id
        self.topics: dict[str, MemoryTopic] = {}
        self.positions: list[PositionRecord] = []
        self.faults: deque[Fault] = deque()
        self.refusals: deque[SinkUnavailable] = deque()
        self.epochs: Counter[str] = Counter()
        self.transactions = 0
        self.clock = clock or SystemClock()
        self._answers = asyncio.Event()
        self._answers.set()

    def pause(self) -> None:
        """From here on every transaction hangs: at the point where its fault strikes, or before it is committed."""
        self._answers.clear()

    def resume(self) -> None:
        self._answers.set()

    async def answer(self, within_s: float) -> None:
        try:
            await asyncio.wait_for(self._answers.wait(), within_s)
        except TimeoutError as error:
            raise SinkUnavailable("delivering: no answer in time") from error

    def copy(self) -> "MemoryCluster":
        """With what is committed now, and without faults: to be the cluster some time later."""
        twin = MemoryCluster(self.cluster_id, self.clock)
        twin.topics, twin.positions = copy.deepcopy(self.topics), list(self.positions)
        twin.epochs = self.epochs.copy()
        return twin

    def commit(self, batches: Sequence[Batch], positions: Sequence[tuple[bytes, bytes]]) -> PositionRecord:
        for batch in batches:
            self.topics[batch.topic].logs.setdefault(batch.partition, []).extend(_records(batch))
        offset = len(self.positions)
        self.positions += [PositionRecord(offset + index, *one) for index, one in enumerate(positions)]
        self.transactions += 1
        return self.positions[offset]


class MemorySink:
    """Satisfies gateway.sync.sink.Sink. `timeout_s` is how long a transaction may hang."""

    def __init__(self, cluster: MemoryCluster, gateway_id: str, timeout_s: float = 20.0) -> None:
        self._cluster = cluster
        self._gateway_id = gateway_id
        self._timeout_s = timeout_s
        self._epoch: int | None = None
        self._failed = False

    async def open(self) -> str:
        if self._epoch is not None:
            raise AssertionError("opened twice without close")
        if self._cluster.refusals:
            raise self._cluster.refusals.popleft()
        self._cluster.epochs[self._gateway_id] += 1
        self._epoch = self._cluster.epochs[self._gateway_id]
        return self._cluster.cluster_id

    async def positions(self, hint: PositionRecord | None) -> Sequence[PositionRecord]:
        self._check()
        start = hint.offset if hint is not None and hint in self._cluster.positions else 0
        prefix = f"{self._gateway_id}/".encode()
        return [one for one in self._cluster.positions[start:] if one.key.startswith(prefix)]

    async def topic(self, name: str) -> Topic:
        self._check()
        topic = self._cluster.topics.get(name)
        if topic is None:
            raise TopicUnusable(name, f"topic {name} doesn't exist")
        return Topic(topic.partitions, None, 1 << 62, False, topic.batch_bytes, topic.keyed)

    async def deliver(self, batches: Sequence[Batch], positions: Sequence[tuple[bytes, bytes]]) -> Receipt:
        self._check()
        self._failed = True
        fault = self._cluster.faults.popleft() if self._cluster.faults else None
        if fault is not Fault.UNANSWERED:
            await self._cluster.answer(self._timeout_s)
        self._check_epoch()
        if fault is Fault.FAILS:
            raise SinkUnavailable("delivering: the connection was lost")
        self._look_at(batches)
        position = self._cluster.commit(batches, positions)
        if fault is Fault.UNANSWERED:
            await self._cluster.answer(self._timeout_s)
            raise SinkUnavailable("delivering: the connection was lost")
        self._failed = False
        delivered: Counter[str] = Counter()
        for batch in batches:
            delivered[batch.lane] += batch.data.records
        size = sum(batch.data.size for batch in batches)
        return Receipt(dict(delivered), self._cluster.clock.wall_ms(), position, size)

    async def close(self) -> None:
        self._epoch, self._failed = None, False

    def _check(self) -> None:
        if self._failed:
            raise AssertionError("used again after an error without close")
        if self._epoch is None:
            raise SinkUnavailable("not connected")
        self._check_epoch()

    def _check_epoch(self) -> None:
        if self._epoch != self._cluster.epochs[self._gateway_id]:
            raise Fenced("another producer has our transactional id")

    def _look_at(self, batches: Sequence[Batch]) -> None:
        """As Kafka does, before anything is visible. Raises TopicUnusable, Rejected."""
        topics = self._cluster.topics
        for batch in batches:
            if batch.topic not in topics or not topics[batch.topic].writable:
                raise TopicUnusable(batch.topic, f"not authorised for topic {batch.topic}")
        large = [one for one in batches if one.data.size > topics[one.topic].batch_bytes_max]
        keyed = [one for one in batches if topics[one.topic].keyed]
        keyless = [one for one in keyed if any(record.key is None for record in _records(one))]
        if large or keyless:
            raise Rejected(large or keyless, bool(large), "too large" if large else "a record has no key")


def _records(batch: Batch) -> list[MemoryRecord]:
    """As a consumer reads them from the batch's bytes."""
    log = MemoryRecords(batch.data.encode((-1, -1), -1, None, False, calc_crc32c))
    found = log.next_batch()
    if found is None or not found.validate_crc() or log.has_next():
        raise AssertionError("not one whole record batch")
    return [MemoryRecord(one.timestamp, one.key, one.value, dict(one.headers)) for one in found]
