"""The table of dead letters: records that can't be delivered, for the operator. All runs inside the caller's transaction."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import apsw

from gateway.codec import decode, encode
from gateway.queue import checked, lanes
from gateway.queue.origin import Salvaged
from gateway.queue.schema import LANES
from gateway.queue.segments import Segment
from gateway.queue.state import Buried, DeadLetter

LETTERS_MAX = 10_000
SHARE_MAX = 0.01
"""Of the cap: what dead letters may take; the newest always may."""

TOO_MANY = """
SELECT id,lane,seq,time_ms,reason,size FROM (
    SELECT *, length(body) AS size, row_number() OVER newer AS number, sum(length(body)) OVER newer AS total
    FROM dead WINDOW newer AS (ORDER BY id DESC)
) WHERE number>1 AND (number>? OR total>?) ORDER BY id
"""

IN_INDEX = "SELECT lane,seq FROM dead INDEXED BY sqlite_autoindex_dead_1 ORDER BY lane,seq"


class Dead:
    def __init__(self, database: apsw.Connection, max_bytes: int) -> None:
        self._db = database
        self._bytes_max = int(max_bytes * SHARE_MAX)

    def bury(self, segment: Segment, time_ms: int, reason: str) -> None:
        """A segment of one record. Once is enough."""
        self._db.execute(
            "INSERT OR IGNORE INTO dead(lane,seq,time_ms,reason,sum,body) VALUES(?,?,?,?,?,?)",
            _checked((segment.lane, segment.first, time_ms, reason), encode(segment.entries)),
        )

    def exhume(self, ids: Sequence[int]) -> None:
        for row_id in ids:
            self._db.execute("DELETE FROM dead WHERE id=?", (row_id,))

    def take_over(self, rows: Sequence[Any], queue_id: str, pieces: Mapping[str, Sequence[Salvaged]]) -> None:
        """Another database's, whose records are saved. One that stands for a saved record gets its new number, or the
        record would be delivered beside it; the others get negative ones, which no record of this queue has."""
        for row_id, lane, seq, time_ms, reason, body in rows:
            if seq > 0:
                reason = f"{reason} (number {seq} of queue {queue_id})"
                numbers = (piece.number(seq) for piece in pieces.get(lane, ()) if piece.queue_id == queue_id)
                seq = next(filter(None, numbers), -row_id)
            row = (row_id, *_checked((lane, seq, time_ms, reason), body))
            self._db.execute("INSERT OR REPLACE INTO dead VALUES(?,?,?,?,?,?,?)", row)

    def surplus(self) -> list[Buried]:
        """Those beyond the caps, oldest first. One that the position has not passed stays: it is the record itself."""
        many = [Buried(*row) for row in self._rows(TOO_MANY, (LETTERS_MAX, self._bytes_max))]
        states = lanes.load(self._db) if many else {}
        return [one for one in many if one.lane in states and one.seq <= states[one.lane].position]

    def oldest(self, limit: int) -> list[Buried]:
        """In order."""
        query = "SELECT id,lane,seq,time_ms,reason,length(body) FROM dead ORDER BY id LIMIT ?"
        return [Buried(*row) for row in self._rows(query, (limit,))]

    def letters(self, ids: Sequence[int]) -> list[DeadLetter]:
        """Raises DecodeError."""
        query = "SELECT id,lane,seq,time_ms,reason,body FROM dead WHERE id=?"
        return [
            DeadLetter(row_id, lane, seq, time_ms, reason, decode(body)[0])
            for chosen in sorted(set(ids))
            for row_id, lane, seq, time_ms, reason, body in self._rows(query, (chosen,))
        ]

    def numbers(self) -> Mapping[str, list[int]]:
        """By lane. Raises apsw.CorruptError, also where the index knows others: it says whether one is buried."""
        rows = checked.load(self._db, "dead", "id", "lane,seq,time_ms,reason,sum")
        if sorted(row[:2] for row in rows) != self._rows(IN_INDEX, ()):
            raise apsw.CorruptError("the index of table dead has other rows")
        return {lane: [seq for name, seq, *_ in rows if name == lane] for lane in LANES}

    def _rows(self, sql: str, bindings: tuple[object, ...]) -> Any:
        return self._db.execute(sql, cast(Any, bindings)).fetchall()


def _checked(row: tuple[str, int, int, str], body: bytes) -> tuple[Any, ...]:
    """The body has a checksum of its own, and is not read where only numbers are wanted."""
    return (*row, checked.checksum(row), body)
