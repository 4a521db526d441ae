"""Log matching, as in Raft and KIP-101: which of a disk's records Kafka has, whoever delivered them. Pure.

The records of a lane are a log, and the runs that gave their numbers say which log. Copies of one database share a
beginning and part where they went on in runs of their own. A database that has parted from what Kafka has goes on as
a new queue of the same family, and its records keep their numbers: so every position of a family can be compared with
every disk of it, and what is delivered is the union of the beginnings that the disk shares with each of them.
"""

import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from gateway.queue import Run
from gateway.sync.position import UNCOUNTED, Key, Position, Progress

SEPARATOR = "."


class Seen(NamedTuple):
    """Kafka's latest position of one lane of one queue of this gateway id."""

    offset: int
    position: Position


def family(queue_id: str) -> str:
    """The same for all queues that began as one database."""
    return queue_id.partition(SEPARATOR)[0]


def branch(queue_id: str) -> str:
    """A new queue id of the same family."""
    return f"{family(queue_id)}{SEPARATOR}{secrets.token_hex(4)}"


def shared(runs: Sequence[Run], next_seq: int, position: Position) -> int | None:
    """The last number that a disk has in common with what the position's queue delivered; None if nobody can know.

    Both lists are in order; the position's may lack its beginning. In their last common run both logs are the same up
    to where the first of them ended. All that either has behind it was given by runs that the other doesn't have.
    """
    frontier = position.progress.frontier
    numbers = {run.run_id: index for index, run in enumerate(runs)}
    end = frontier
    for run_id, first in reversed(position.runs):
        index = numbers.get(run_id)
        if index is not None:
            ours = runs[index + 1].first - 1 if index + 1 < len(runs) else next_seq - 1
            return min(ours, end)
        end = min(end, first - 1)
    return 0 if frontier == 0 or position.runs[0][1] == 1 else None


def clipped(progress: Progress, through: int, after: int) -> Progress:
    """What of `progress` is behind `after` and up to `through`; how much that is beyond its floor is not counted."""
    floor, frontier = max(progress.floor, after), min(progress.frontier, through)
    parked = {topic: max(first, floor + 1) for topic, first in progress.parked.items() if first <= frontier}
    if parked and frontier > floor:
        return Progress(floor, frontier, parked, UNCOUNTED)
    return Progress(max(after, frontier), max(after, frontier))


def includes(progress: Progress, other: Progress) -> bool:
    """Whether all that `other` says is delivered is so in `progress`, too."""
    return other.frontier <= progress.frontier and all(
        other.parked.get(topic, other.frontier + 1) <= first for topic, first in progress.parked.items()
    )


def union(known: Iterable[Progress]) -> Progress:
    """All that any of them says is delivered."""
    every = list(known)
    floor = max((one.floor for one in every), default=0)
    frontier = max((one.frontier for one in every), default=0)
    parked = {}
    for topic in {topic for one in every for topic in one.parked}:
        first = max(min(one.frontier + 1, one.parked.get(topic, one.frontier + 1)) for one in every)
        if first <= frontier:
            parked[topic] = first
    return Progress(floor, frontier, parked, UNCOUNTED) if parked else Progress(frontier, frontier)


def relatives(seen: Mapping[Key, Seen], queue_id: str, lane: str) -> Iterator[tuple[str, Seen]]:
    """(queue id, position) of this lane in every queue of the family, our own too."""
    for key, latest in seen.items():
        if key.lane == lane and family(key.queue_id) == family(queue_id):
            yield key.queue_id, latest
