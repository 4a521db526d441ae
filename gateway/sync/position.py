"""Position records: how far a lane of a queue is delivered. Written in the transaction that delivers."""

import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from gateway.errors import SinkHeld
from gateway.queue import Run, are_numbers

RUNS_TAIL = 8
UNCOUNTED = -1


class Key(NamedTuple):
    gateway_id: str
    queue_id: str
    lane: str


class Progress(NamedTuple):
    """How far a lane is delivered: all up to `floor`, and beyond it all up to `frontier` but what is `parked`:
    {topic that can't be written: its first undelivered number}. `beyond` counts what is delivered beyond the floor, if it is not UNCOUNTED."""

    floor: int
    frontier: int
    parked: Mapping[str, int] = MappingProxyType({})
    beyond: int = 0


class Position(NamedTuple):
    """`run` is the run that gave the number `progress.frontier`; `runs` are the latest ones up to it, as (run id, first
    number): by them a copy of the database finds where it and the original parted."""

    progress: Progress
    run: str
    runs: Sequence[tuple[str, int]]
    hardware_id: str | None

    @property
    def seq(self) -> int:
        return self.progress.floor


def run_of(seq: int, runs: Sequence[Run]) -> str:
    """The run that gave `seq`: the latest whose first number isn't beyond it."""
    return next((run.run_id for run in reversed(runs) if run.first <= seq), runs[0].run_id)


def position_at(progress: Progress, runs: Sequence[Run], hardware_id: str | None) -> Position:
    seq = progress.frontier
    tail = [(run.run_id, run.first) for run in runs if run.first <= max(seq, runs[0].first)][-RUNS_TAIL:]
    return Position(progress, run_of(seq, runs), tail, hardware_id)


def encode_key(key: Key) -> bytes:
    return "/".join(key).encode()


def encode(position: Position) -> bytes:
    floor, frontier, parked, beyond = position.progress
    body = {"seq": floor, "run": position.run, "runs": position.runs, "hw": position.hardware_id}
    if parked:
        body |= {"frontier": frontier, "parked": dict(parked), "beyond": beyond}
    return json.dumps(body, separators=(",", ":")).encode()


def decode_key(key: bytes) -> Key | None:
    """None for keys that aren't ours."""
    parts = key.decode(errors="replace").rsplit("/", 2)
    return Key(*parts) if len(parts) == 3 else None


def decode(value: bytes) -> Position:
    """Raises SinkHeld for what no tidegate wrote: others may write to that topic, too."""
    try:
        body = json.loads(value)
        seq, parked = body["seq"], body.get("parked", {})
        progress = Progress(seq, body.get("frontier", seq), dict(parked), body.get("beyond", 0))
        position = Position(progress, body["run"], [(run, first) for run, first in body["runs"]], body["hw"])
        if not _is_possible(position):
            raise ValueError("its numbers contradict each other")
        return position
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise SinkHeld(f"a position of this gateway in Kafka can't be read: {value[:80]!r}") from error


def _is_possible(position: Position) -> bool:
    floor, frontier, parked, beyond = position.progress
    firsts = [first for _, first in position.runs]
    names = [position.run, *(run for run, _ in position.runs), position.hardware_id or ""]
    return (
        are_numbers(floor, frontier, beyond, *parked.values(), *firsts)
        and all(isinstance(name, str) for name in names)
        and floor <= frontier
        and all(floor < first <= frontier for first in parked.values())
        and firsts != []
    )
