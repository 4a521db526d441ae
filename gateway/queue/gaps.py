"""The gap table: what was deleted undelivered and is not told yet. All runs inside the caller's transaction."""

import apsw

from gateway.queue import checked, lanes
from gateway.queue.segments import Gap


class Gaps:
    def __init__(self, database: apsw.Connection) -> None:
        self._db = database

    def remember(self, gap: Gap) -> None:
        """Adjacent ones of one reason are one row. The next number must survive the deletion of the newest segment.
        Raises apsw.CorruptError."""
        lanes.used(self._db, gap.lane, gap.last)
        row_id, newest = next(iter(self._rows("id DESC LIMIT 1")), (0, None))
        if newest is not None and newest.joins(gap):
            gap = gap._replace(first=newest.first, from_ms=newest.from_ms)
        else:
            row_id += 1
        checked.put(self._db, "gap", (row_id, *gap))

    def all(self) -> list[Gap]:
        """Raises apsw.CorruptError."""
        return [gap for _, gap in self._rows("id")]

    def forget(self) -> None:
        self._db.execute("DELETE FROM gap")

    def _rows(self, order: str) -> list[tuple[int, Gap]]:
        return [(row_id, Gap(*columns)) for row_id, *columns in checked.load(self._db, "gap", order)]
