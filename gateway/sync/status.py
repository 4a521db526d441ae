"""What the sync says about itself."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from gateway.queue import LANES


class LinkState(enum.StrEnum):
    CONNECTING = "connecting"
    LIVE = "live"
    DOWN = "down"
    HELD = "held"


@dataclass
class Sent:
    """What Kafka has committed of this process, records by lane: over new settings, which end a sync and begin another."""

    records: dict[str, int] = field(default_factory=lambda: dict.fromkeys(LANES, 0))
    bytes: int = 0
    transactions: int = 0


@dataclass(frozen=True)
class SyncStatus:
    """`since_s` is the time since the last change of `state`; `alarm` is what an operator must act upon; `parked` are
    topics that can't be written, with the reason, and `beyond` is how many records of others Kafka has that the position has not
    passed because of them; `delivered` counts records of this process by lane."""

    state: LinkState
    since_s: float
    error: str | None
    alarm: str | None
    parked: Mapping[str, str]
    beyond: int
    delivered: Mapping[str, int]
    records_per_s: float
    bytes_sent: int
    transactions: int
