"""The salvage table: which numbers saved records had in a damaged queue, and in those that it had been saved from itself.

Nobody may have been connected in between: then only the first queue's position in Kafka says what is delivered.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import apsw

from gateway.queue import checked
from gateway.queue.origin import Salvaged
from gateway.queue.schema import LANES


def put(database: apsw.Connection, lane: str, pieces: Iterable[Salvaged]) -> None:
    for piece in pieces:
        checked.put(database, "salvage", (lane, *piece))


def load(database: apsw.Connection) -> Mapping[str, list[Salvaged]]:
    """By lane, the nearest queue's first. Raises apsw.CorruptError."""
    return by_lane(checked.load(database, "salvage", "rowid"))


def by_lane(rows: Iterable[Sequence[Any]]) -> Mapping[str, list[Salvaged]]:
    """Of rows without their checksums."""
    pieces: dict[str, list[Salvaged]] = {lane: [] for lane in LANES}
    for lane, *piece in rows:
        pieces[lane].append(Salvaged(*piece))
    return pieces


def by_queue(pieces: Iterable[Salvaged]) -> dict[str, list[Salvaged]]:
    """The nearest first, each in the order of its numbers."""
    queues: dict[str, list[Salvaged]] = {}
    for piece in pieces:
        queues.setdefault(piece.queue_id, []).append(piece)
    return queues


def numbered(queue_id: str, first: int, last: int, lost: Iterable[tuple[int, int]]) -> list[Salvaged]:
    """Of `first` to `last` of a queue all were saved but the ranges `lost`, in order: they are numbered from 1 on."""
    pieces: list[Salvaged] = []
    begin, following = first, 1
    for gone, through in (*lost, (last + 1, last + 1)):
        records = min(gone, last + 1) - begin
        if records > 0:
            pieces.append(Salvaged(queue_id, begin, records, following))
            following += records
        begin = max(begin, through + 1)
    return pieces


def carried(pieces: Sequence[Salvaged], earlier: Sequence[Salvaged]) -> Iterator[Salvaged]:
    """What `pieces` of a queue had been before, where `earlier` says it of that queue. Both are in order."""
    begin = 0
    for piece in pieces:
        end = piece.old_first + piece.records
        while begin < len(earlier) and _end(earlier[begin]) <= piece.old_first:
            begin += 1
        for one in earlier[begin:]:
            if one.first >= end:
                break
            first, stop = max(one.first, piece.old_first), min(_end(one), end)
            yield Salvaged(
                one.queue_id,
                one.old_first + first - one.first,
                stop - first,
                piece.first + first - piece.old_first,
            )


def _end(piece: Salvaged) -> int:
    return piece.first + piece.records
