"""The lane table: how far each lane has come."""

from collections.abc import Iterable, Sequence
from dataclasses import astuple, replace
from typing import Any

import apsw

from gateway.queue import checked
from gateway.queue.schema import LANES
from gateway.queue.state import LaneState


def put(database: apsw.Connection, lane: str, state: LaneState) -> None:
    checked.put(database, "lane", (lane, *astuple(state)))


def load(database: apsw.Connection) -> dict[str, LaneState]:
    """Raises apsw.CorruptError."""
    lanes = states(checked.load(database, "lane", "name"))
    if lanes.keys() != set(LANES):
        raise apsw.CorruptError("a row of table lane can't be read")
    return lanes


def states(rows: Iterable[Sequence[Any]]) -> dict[str, LaneState]:
    """Of rows without their checksums."""
    return {lane: LaneState(*numbers) for lane, *numbers in rows}


def used(database: apsw.Connection, lane: str, through: int) -> None:
    """Numbers up to `through` were given, though no segment may say so any more. Raises apsw.CorruptError."""
    state = load(database)[lane]
    if through >= state.next_seq:
        put(database, lane, replace(state, next_seq=through + 1))


def dropped(database: apsw.Connection, lane: str, records: int) -> None:
    """So many more. Raises apsw.CorruptError."""
    state = load(database)[lane]
    put(database, lane, replace(state, dropped=state.dropped + records))
