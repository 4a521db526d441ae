"""What an audit found."""

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from gateway.audit.numbers import Range


class Cause(enum.StrEnum):
    DROPPED = "dropped"
    """The queue was full, or its disk damaged: the gateway said so in the ledger."""
    DEAD = "dead letter"
    """Kafka would never take the record: it lies with the gateway's dead letters, says the ledger."""
    SALVAGED = "salvaged"
    """Delivered under another queue id before that queue's database was damaged."""
    DAMAGED = "damaged"
    """Undelivered when its queue's database was damaged, and not to be read any more."""
    EXPIRED = "expired"
    """Kafka itself may have deleted it: the topic's retention or compaction."""
    UNEXPLAINED = "unexplained"


class Missing(NamedTuple):
    """Numbers that are not in Kafka, `first` to `last`, both included; `reason` is for people."""

    first: int
    last: int
    cause: Cause
    reason: str


class Clash(NamedTuple):
    """Two runs gave the same numbers: this queue's database was copied, and both copies sent."""

    run: str
    other: str
    numbers: Range


@dataclass(frozen=True)
class Lane:
    """One lane of one queue. Judged are the numbers 1 to `judged`: what the position in Kafka says is delivered; and
    those that a damaged database is known to have lost.

    `missing` and `twice` are the first RANGES_MAX ranges; `counts` and `twice_records` count all.
    """

    gateway: str
    queue: str
    lane: str
    judged: int
    records: int
    missing: Sequence[Missing]
    counts: Mapping[Cause, int]
    twice: Sequence[Range]
    twice_records: int
    clashes: Sequence[Clash]
    notes: Sequence[str]

    @property
    def complete(self) -> bool:
        return not self.counts

    @property
    def sound(self) -> bool:
        """All that is missing is explained, and nothing is there twice."""
        return not (self.counts.get(Cause.UNEXPLAINED) or self.twice or self.clashes)


@dataclass(frozen=True)
class Report:
    """`problems` are what kept the audit from seeing all, a sentence each. `foreign` counts records that carry no
    gateway's headers. `intervals` is the most that was held at once, in `interval_bytes` bytes."""

    lanes: Sequence[Lane]
    problems: Sequence[str]
    records: int
    foreign: int
    intervals: int
    interval_bytes: int

    @property
    def sound(self) -> bool:
        return not self.problems and all(lane.sound for lane in self.lanes)

    @property
    def exit_code(self) -> int:
        return 0 if self.sound else 1
