"""One lane's way to Kafka: what comes next, and how far it is once that is delivered."""

from collections.abc import Mapping, Sequence, Set
from typing import NamedTuple

from gateway.queue import Queue, Segment
from gateway.sync.position import Progress

ALONE_RECORDS = 64
"""Of a batch that Kafka found bad, so many records go one by one in a transaction, until the bad one is known."""


PARKED_MAX = 100
"""Topics of a lane that may be parked: every transaction writes all of them into the lane's position."""


class Take(NamedTuple):
    """What one transaction takes of a lane: what is in `segments`, up to number `through`. Either the front, without
    topics that are `parked` (with their first number here), or, to catch up, only the topic that was parked.
    `topics` are those that records of it are delivered to."""

    lane: str
    after: int
    through: int
    segments: Sequence[Segment]
    topics: Set[str]
    parked: Mapping[str, int]
    only: str | None = None

    def takes(self, topic: str) -> bool:
        return topic == self.only if self.only is not None else topic not in self.parked


def progressed(old: Progress, take: Take, delivered: int) -> Progress:
    """Where the lane is once `take` is committed with so many records. The floor waits until nothing is parked."""
    parked = dict(old.parked)
    frontier = old.frontier
    if take.only is not None:
        parked[take.only] = take.through + 1
        if take.through >= frontier:
            del parked[take.only]
    else:
        frontier = take.through
        parked = {**take.parked, **parked}
    if parked:
        return Progress(old.floor, frontier, parked, old.beyond + delivered)
    return Progress(frontier, frontier)


def up_to(segments: Sequence[Segment], through: int) -> list[Segment]:
    """Without the numbers > `through`."""
    return [
        segment if segment.last <= through else segment.part(0, through - segment.first + 1)
        for segment in segments
        if segment.first <= through
    ]


class Lane:
    """`alone_through`: up to this number records travel one by one, because one of them is bad."""

    def __init__(self, name: str, queue: Queue) -> None:
        self.name = name
        self.alone_through = 0
        self.dead: set[int] = set()
        self.progress = Progress(queue.position(name), queue.position(name))
        self._queue = queue
        self._catching_up = False

    def resume(self, position: int, beyond: Progress | None) -> None:
        """After reconciling: go on after `position`, or as Kafka knows it if something before it is parked."""
        self.progress = beyond or Progress(position, position)
        self.dead = {seq for seq in self._queue.buried(self.name) if seq > position}
        self._queue.advance(self.name, position)
        self._pin_what_is_parked()

    @property
    def front(self) -> int:
        return self.progress.frontier

    @property
    def waiting_bytes(self) -> int:
        return self._queue.pending(self.name)[1]

    @property
    def front_waits(self) -> bool:
        """Whether there is more than what is parked."""
        return self._queue.next_seq(self.name) - 1 > self.front

    def catch_up(self, usable: Set[str]) -> str | None:
        """A parked topic that can be written again; if the front has records too, they take turns."""
        ready = [topic for topic in self.progress.parked if topic in usable]
        self._catching_up = bool(ready) and not (self._catching_up and self.front_waits)
        return ready[0] if self._catching_up else None

    async def read(
        self, after: int, through: int | None, records: int, size: int
    ) -> tuple[int, list[Segment]]:
        """(last number, segments) of what comes after `after`; a gap at the end is passed too."""
        if after < self.alone_through:
            records = min(records, ALONE_RECORDS, self.alone_through - after)
        end = self._queue.next_seq(self.name) - 1 if through is None else through
        segments = await self._queue.peek(self.name, after, records, size, pin=True)
        if through is not None:
            segments = up_to(segments, through)
        return (segments[-1].last if segments else end), segments

    def pin(self, take: Take) -> None:
        self._queue.pin(self.name, max(take.through, self.front))

    def delivered(self, take: Take, count: int) -> None:
        """`take` is committed with so many records."""
        old, new = self.progress, progressed(self.progress, take, count)
        self.progress = new
        if new.floor > old.floor:
            self._queue.advance(self.name, new.floor, old.beyond + count)
            self.dead = {seq for seq in self.dead if seq > new.floor}
        self._pin_what_is_parked()

    async def bury(self, seq: int, reason: str) -> None:
        segments = await self._queue.peek(self.name, seq - 1, 1, 1)
        if not segments or segments[0].first != seq:
            return  # found damaged meanwhile: a gap already, told as one
        await self._queue.bury(self.name, seq, segments[0].entries[0], reason)
        self.dead.add(seq)

    def _pin_what_is_parked(self) -> None:
        if self.progress.parked:
            self._queue.pin(self.name, self.front)
        else:
            self._queue.unpin(self.name)
