"""The lane table: how far each lane has come, with a checksum a row. One flipped bit would be believed otherwise."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple, replace

import apsw

from gateway.queue.schema import LANES, checksum
from gateway.queue.state import LaneState


def put(database: apsw.Connection, lane: str, state: LaneState) -> None:
    row = (lane, *astuple(state))
    database.execute("INSERT OR REPLACE INTO lane VALUES(?,?,?,?,?,?,?)", (*row, checksum(row)))


def load(database: apsw.Connection) -> dict[str, LaneState]:
    """Raises apsw.CorruptError."""
    lanes = dict(sound(database.execute("SELECT * FROM lane")))
    if lanes.keys() != set(LANES):
        raise apsw.CorruptError("a row of table lane can't be read")
    return lanes


def sound(rows: Iterable[Sequence[object]]) -> Iterator[tuple[str, LaneState]]:
    """Those whose checksum is right: they are what was written."""
    for *row, found in rows:
        lane, *numbers = row
        if lane in LANES and found == checksum(row):
            yield str(lane), LaneState(*numbers)  # type: ignore[arg-type]


def used(database: apsw.Connection, lane: str, through: int) -> None:
    """Numbers up to `through` were given, though no segment may say so any more. Raises apsw.CorruptError."""
    state = load(database)[lane]
    if through >= state.next_seq:
        put(database, lane, replace(state, next_seq=through + 1))


def dropped(database: apsw.Connection, lane: str, records: int) -> None:
    """So many more. Raises apsw.CorruptError."""
    state = load(database)[lane]
    put(database, lane, replace(state, dropped=state.dropped + records))
