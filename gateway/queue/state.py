"""What passes between the loop's side and the SQLite thread."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from gateway.codec import Entry
from gateway.driver import Mark, MarkKey
from gateway.errors import StorageFailing
from gateway.limits import RECORD_OVERHEAD_BYTES
from gateway.queue.origin import Origin, Salvaged
from gateway.queue.segments import Gap
from gateway.queue.story import Story

FULL_BYTES = 2 << 20
"""A group of so many bytes in memory is committed without waiting for the interval's end."""


class StorageDamaged(StorageFailing):
    """What lies on the disk is not what was written; the next start sets it aside and saves what it can."""


@dataclass
class LaneState:
    """What a lane has come to. `position`: all up to it is delivered, dead or dropped."""

    next_seq: int = 1
    position: int = 0
    delivered: int = 0
    dropped: int = 0
    dead: int = 0


class Buried(NamedTuple):
    """A dead letter but for its content. `size` is what it takes on the disk."""

    id: int
    lane: str
    seq: int
    time_ms: int
    reason: str
    size: int


class DeadLetter(NamedTuple):
    """`id` is what `retry` takes."""

    id: int
    lane: str
    seq: int
    time_ms: int
    reason: str
    entry: Entry


@dataclass
class Group:
    """What one transaction writes."""

    entries: dict[str, list[Entry]] = field(default_factory=dict)
    marks: list[tuple[Mark, int] | MarkKey] = field(default_factory=list)
    confirm: dict[str, LaneState] = field(default_factory=dict)
    age_s: int | None = None
    """The running time, where it is to be written."""
    evict_after: int | None = None
    exhume: list[int] = field(default_factory=list)
    bytes: int = 0
    records: int = 0
    known: Mapping[str, int] | None = None
    """The positions that Kafka told first in this process; None before."""
    room: int = 0
    """Bytes to make room for although they aren't here yet."""
    settle: bool = False
    origin: Origin | None = None
    """From this transaction on the queue is another one."""

    @property
    def full(self) -> bool:
        return self.bytes + RECORD_OVERHEAD_BYTES * self.records >= FULL_BYTES


@dataclass
class Outcome:
    """What a transaction did, for the loop's side."""

    next_seq: dict[str, int]
    evicted: list[Gap]
    dropped: dict[str, int]
    settled: bool = False
    used_bytes: int = 0
    reusable_bytes: int = 0
    disk_free_bytes: int = 0
    ample: bool = False
    """Devices' records may come again after the disk was full."""

    def lowers_floor(self, size: int, min_free_bytes: int) -> bool:
        """Whether `size` more would take of what must stay free on the disk. Pages that SQLite keeps take nothing."""
        growth = size - self.reusable_bytes
        return growth >= 0 and growth > self.disk_free_bytes - min_free_bytes


class Loaded(NamedTuple):
    """What is on the disk. `holes` are (first, last) numbers behind the position that are gone; marks are
    {(scope, key): (value, expiry)}; sizes are payload bytes; of what was saved the nearest queue's comes first, and `story` tells of that."""

    meta: dict[str, str]
    lanes: dict[str, LaneState]
    holes: dict[str, list[tuple[int, int]]]
    sizes: dict[str, int]
    marks: dict[tuple[str, bytes], tuple[bytes, int]]
    salvaged: Mapping[str, list[Salvaged]]
    story: Story | None
