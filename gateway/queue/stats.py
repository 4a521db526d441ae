"""What the queue says about itself."""

from dataclasses import dataclass


@dataclass(frozen=True)
class LaneStats:
    """Conservation: stored = pending + delivered + dropped + dead, where dropped includes the provisional ones."""

    stored: int
    stored_this_run: int
    position: int
    pending: int
    pending_bytes: int
    delivered: int
    dropped: int
    dead: int


@dataclass(frozen=True)
class QueueStats:
    lanes: dict[str, LaneStats]
    used_bytes: int
    max_bytes: int
    disk_free_bytes: int
    commits: int
    salvage: str | None
    refusing: str | None
