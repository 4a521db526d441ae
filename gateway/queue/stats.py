"""What the queue says about itself."""

from dataclasses import dataclass

from gateway.queue.state import LaneState
from gateway.queue.story import Story


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
    """`slowest_commit_s` is of this process."""

    lanes: dict[str, LaneStats]
    used_bytes: int
    max_bytes: int
    disk_free_bytes: int
    commits: int
    slowest_commit_s: float
    salvage: Story | None
    refusing: str | None


def lane_stats(
    state: LaneState, pending: int, size: int, buried: int, run_first: int, settled: bool
) -> LaneStats:
    """`size` is of what is pending. Until the gaps are `settled`, what is neither stored nor passed counts as dropped."""
    stored = state.next_seq - 1
    return LaneStats(
        stored=stored,
        stored_this_run=state.next_seq - run_first,
        position=state.position,
        pending=pending,
        pending_bytes=size,
        delivered=state.delivered,
        dropped=state.dropped if settled else stored - pending - state.delivered - state.dead - buried,
        dead=state.dead + buried,
    )
