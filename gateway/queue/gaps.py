"""The gap table: what was deleted undelivered and is not told yet. All runs inside the caller's transaction."""

from typing import Any

import apsw

from gateway.queue import lanes
from gateway.queue.schema import LANES, check_numbers
from gateway.queue.segments import Gap


class Gaps:
    def __init__(self, database: apsw.Connection) -> None:
        self._db = database

    def remember(self, gap: Gap) -> None:
        """Adjacent ones of one reason are one row. The next number must survive the deletion of the newest segment.
        Raises apsw.CorruptError."""
        lanes.used(self._db, gap.lane, gap.last)
        self._db.execute(
            "UPDATE gap SET last=?,records=records+?,to_ms=? WHERE id=(SELECT max(id) FROM gap)"
            " AND lane=? AND last=? AND reason=?",
            (gap.last, gap.records, gap.to_ms, gap.lane, gap.first - 1, gap.reason),
        )
        if not self._db.changes():
            self._db.execute(
                "INSERT INTO gap(lane,first,last,records,from_ms,to_ms,reason) VALUES(?,?,?,?,?,?,?)",
                (gap.lane, gap.first, gap.last, gap.records, gap.from_ms, gap.to_ms, gap.reason),
            )

    def all(self) -> list[Gap]:
        """Raises apsw.CorruptError."""
        query = "SELECT lane,first,last,from_ms,to_ms,reason FROM gap ORDER BY id"
        rows: list[Any] = self._db.execute(query).fetchall()
        check_numbers("gap", *(column for row in rows for column in row[1:5]))
        if any(row[0] not in LANES for row in rows):
            raise apsw.CorruptError("a row of table gap can't be read")
        return [Gap(*row) for row in rows]

    def forget(self) -> None:
        self._db.execute("DELETE FROM gap")
