"""The gap table: what was deleted undelivered, until it is told and the position has passed it. A number that is missing for no
reason that stands here was lost by the disk. All runs inside the caller's transaction."""

from collections.abc import Iterable, Sequence

import apsw

from gateway.queue import checked, lanes
from gateway.queue.ranges import Range, include, overlap
from gateway.queue.segments import Gap


def numbers(lane: str, gaps: Iterable[Gap]) -> list[Range]:
    """Those of the lane that stand in `gaps`."""
    deleted: list[Range] = []
    for gap in gaps:
        if gap.lane == lane:
            include(deleted, gap.first, gap.last)
    return deleted


class Gaps:
    def __init__(self, database: apsw.Connection) -> None:
        self._db = database

    def remember(self, gap: Gap) -> None:
        """Adjacent ones of one reason are one row. The next number must survive the deletion of the newest segment.
        Raises apsw.CorruptError."""
        lanes.used(self._db, gap.lane, gap.last)
        row_id, newest, told = next(iter(self._rows("id DESC LIMIT 1")), (0, None, 1))
        if newest is not None and not told and newest.joins(gap):
            gap = gap._replace(first=newest.first, from_ms=newest.from_ms)
        else:
            row_id += 1
        self._put(row_id, gap, 0)

    def untold(self) -> list[Gap]:
        """Raises apsw.CorruptError."""
        return [gap for _, gap, told in self._rows("id") if not told]

    def check(self, lane: str, holes: Sequence[Range]) -> None:
        """Raises apsw.CorruptError for numbers that are missing and should not be."""
        deleted = numbers(lane, [gap for _, gap, _ in self._rows("first")])
        for first, last in holes:
            if overlap(deleted, first - 1, last) <= last - first:
                raise apsw.CorruptError(f"of the numbers {first} to {last} rows of table segment are missing")

    def tell(self) -> None:
        """All are told now; what is adjacent becomes one."""
        joined: list[Gap] = []
        for gap in sorted(gap for _, gap, _ in self._rows("id")):
            if joined and (joined[-1].lane, joined[-1].last + 1) == (gap.lane, gap.first):
                gap = joined.pop()._replace(last=gap.last, to_ms=gap.to_ms)
            joined.append(gap)
        self._db.execute("DELETE FROM gap")
        for row_id, gap in enumerate(joined, 1):
            self._put(row_id, gap, 1)

    def forget(self, lane: str, position: int) -> None:
        """What is told, and passed."""
        self._db.execute("DELETE FROM gap WHERE lane=? AND last<=? AND told=1", (lane, position))

    def _put(self, row_id: int, gap: Gap, told: int) -> None:
        checked.put(self._db, "gap", (row_id, *gap, told))

    def _rows(self, order: str) -> Sequence[tuple[int, Gap, int]]:
        return [
            (row_id, Gap(*columns), told) for row_id, *columns, told in checked.load(self._db, "gap", order)
        ]
