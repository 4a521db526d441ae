"""What the sync needs of a Kafka cluster. Implemented by gateway.sync.kafka and by gateway.testing.sink."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from gateway.errors import SinkRefused, SinkUnavailable
from gateway.sync.record_batch import RecordBatch


class Fenced(SinkUnavailable):
    """Another producer took our transactional id, or our own transaction took longer than its time-out."""


class InvalidTimestamp(SinkUnavailable):
    """The broker finds record times too far from its own clock."""


class Rejected(SinkUnavailable):
    """Kafka will never take these batches as they are; nothing of the transaction was committed."""

    def __init__(self, batches: Sequence["Batch"], too_large: bool, reason: str) -> None:
        super().__init__(reason)
        self.batches = batches
        self.too_large = too_large


class TopicUnusable(SinkRefused):
    """The topic doesn't exist or may not be written; the message says what to do about it."""

    def __init__(self, topic: str, message: str) -> None:
        super().__init__(message)
        self.topic = topic


class Topic(NamedTuple):
    """What decides how records for a topic are built. Times in ms; None: no limit."""

    partitions: int
    behind_ms: int | None
    """How far behind the broker's time a record's timestamp may lie without being deleted soon or refused."""
    ahead_ms: int
    append_time: bool
    batch_bytes: int
    keyed: bool
    """Compacted: records without a key are refused."""


class Batch(NamedTuple):
    """`first` and `last` are the sequence numbers of its outermost records; those between may be in other batches."""

    lane: str
    topic: str
    partition: int
    data: RecordBatch
    first: int
    last: int


class PositionRecord(NamedTuple):
    offset: int
    key: bytes
    value: bytes


class Receipt(NamedTuple):
    """A committed transaction: records per lane by the offsets Kafka returned, its clock, where the position lies."""

    delivered: dict[str, int]
    broker_ms: int
    position: PositionRecord
    bytes_sent: int


class Sink(Protocol):
    """One connection to one cluster. After any error: `close`, then `open` again; nothing else is allowed.

    Every call ends by itself in bounded time. Raises SinkUnavailable and its subclasses.
    """

    async def open(self) -> str:
        """Connect, fence predecessors, finish their transactions; returns the cluster's id."""

    async def positions(self, hint: PositionRecord | None) -> Sequence[PositionRecord]:
        """All committed positions of this gateway id in order, from `hint` on if it is still there, else from the
        earliest. Call after `open`, before the first `deliver`."""

    async def topic(self, name: str) -> Topic:
        """Raises TopicUnusable."""

    async def deliver(self, batches: Sequence[Batch], positions: Sequence[tuple[bytes, bytes]]) -> Receipt:
        """One transaction: batches and the positions' (key, value) records. An error leaves the outcome unknown."""

    async def close(self) -> None:
        """Let go at once, whatever state the cluster is in. Idempotent."""
