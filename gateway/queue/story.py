"""What is told of a database that was damaged: what of it was saved, and what is known to be lost."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from gateway.queue.origin import Salvaged
from gateway.queue.salvaged import numbered

LOST_MAX = 100

UNREAD = {
    "dead": "not all of its dead letters could be read",
    "gap": "not all of what it had dropped, and not told yet, could be read",
    "mark": "not all of its marks could be read: a message that a device sends again may be stored twice",
    "meta": "not all of what it knew by name could be read, such as the board that it was on, or an operator's word",
}
"""By table."""


@dataclass(frozen=True)
class Lost:
    """Numbers `first` to `last`, both included. They were stored between two times (Unix ms): that of the last readable
    record before them, None if there is none, and that of the first one after them, or of the salvage."""

    first: int
    last: int
    from_ms: int | None
    to_ms: int


@dataclass(frozen=True)
class SavedLane:
    """So many `records`, which had numbers from `first` to `last`, were saved. `position` is how far the lane was delivered as far as the database
    knew; None if that could not be read. `lost` are the first LOST_MAX ranges behind it that are not there, `lost_records` counts
    all; some may have been dropped when the queue was full, or delivered. `end` is the last number that left a trace and `end_ms` when
    the last readable record was stored: what came behind, if anything did, nobody can count."""

    records: int
    first: int | None
    last: int | None
    position: int | None
    lost: tuple[Lost, ...]
    lost_records: int
    end: int
    end_ms: int | None

    def pieces(self, queue_id: str) -> list[Salvaged] | None:
        """What the table of salvage says of queue `queue_id`; None if more was lost than is told here."""
        lost = ((one.first, one.last) for one in self.lost)
        pieces = numbered(queue_id, self.first or 1, self.last or 0, lost)
        return pieces if _records(pieces) == self.records else None

    def has_all(self, salvaged: Sequence[Salvaged], queue_id: str) -> bool:
        """Whether the table of salvage has all of queue `queue_id`."""
        return _records([piece for piece in salvaged if piece.queue_id == queue_id]) == self.records


def _records(pieces: Sequence[Salvaged]) -> int:
    return sum(piece.records for piece in pieces)


@dataclass(frozen=True)
class Story:
    """Of queue `queue_id`, whose files are in the folder `quarantine`. `time` is Unix ms. `unread` are tables,
    of those in UNREAD."""

    time: int
    damage: str
    queue_id: str
    quarantine: str
    unread: tuple[str, ...]
    main: SavedLane
    ledger: SavedLane

    @classmethod
    def parse(cls, text: str) -> "Story":
        told = json.loads(text)
        for lane in ("main", "ledger"):
            lost = tuple(Lost(**one) for one in told[lane]["lost"])
            told[lane] = SavedLane(**(told[lane] | {"lost": lost}))
        return cls(**told | {"unread": tuple(told["unread"])})

    def has_all(self, salvaged: Mapping[str, Sequence[Salvaged]]) -> bool:
        """Whether the table of salvage has all that was saved from this queue."""
        return all(told.has_all(salvaged[lane], self.queue_id) for lane, told in self.lanes().items())

    def lanes(self) -> Mapping[str, SavedLane]:
        return {"main": self.main, "ledger": self.ledger}

    def encode(self) -> str:
        return json.dumps(asdict(self), separators=(",", ":"))


class Holes:
    """Numbers that are missing between those that could be read, up to now."""

    def __init__(self, position: int, now_ms: int) -> None:
        self.last = position
        self.last_ms: int | None = None
        self.lost: list[Lost] = []
        self.records = 0
        self._now_ms = now_ms

    def found(self, first: int, last: int, time_ms: int | None) -> None:
        """In order; None if the time can't be read."""
        self._missing(first - 1, time_ms)
        self.last, self.last_ms = max(last, self.last), time_ms or self.last_ms

    def end(self, last: int) -> None:
        self._missing(last, None)
        self.last = max(last, self.last)

    def _missing(self, last: int, time_ms: int | None) -> None:
        if last > self.last:
            self.records += last - self.last
            if len(self.lost) < LOST_MAX:
                self.lost.append(Lost(self.last + 1, last, self.last_ms, time_ms or self._now_ms))
