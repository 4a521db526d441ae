"""What Kafka says is delivered against what the disk says: every step 5 of the protocol, and what only an operator may
decide. K is Kafka's position, L the disk's."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import pytest

from gateway.queue import Run, Salvaged
from gateway.sync.position import Key, Position, Progress, decode, encode, position_at
from gateway.sync.reconcile import Assume, Local, Seen, predecessors, reconcile, rival

RUNS = (Run("r1", "main", 1), Run("r2", "main", 101))
MINE = Key("gw", "queue", "main")


def local(**changes: Any) -> Local:
    """Numbers 1 to 150 were given, by r1 up to 100, then by r2; the first 40 are known to be delivered."""
    return Local("main", "queue", RUNS, next_seq=151, position=40)._replace(**changes)


def kafka(progress: Progress | int, runs: tuple[Run, ...] = RUNS) -> Mapping[Key, Seen]:
    if isinstance(progress, int):
        progress = Progress(progress, progress)
    return {MINE: Seen(7, decode(encode(position_at(progress, runs, None))))}


class Case(NamedTuple):
    local: Local
    seen: Mapping[Key, Seen]
    position: int | None
    """None: held."""
    assume: Assume | None = None


OTHERS = (Run("r1", "main", 1), Run("elsewhere", "main", 51))
SALVAGED = (Salvaged("old", 11, 30, 1), Salvaged("old", 61, 10, 31))


def old(seq: int) -> Mapping[Key, Seen]:
    return {Key("gw", "old", "main"): Seen(3, Position(Progress(seq, seq), "r0", (), None))}


CASES = {
    "a: confirmed and not yet noted": Case(local(), kafka(100), 100),
    "a: nothing new": Case(local(), kafka(40), 40),
    "a: in doubt, all of it was committed": Case(local(), kafka(150), 150),
    "a: in doubt, nothing was": Case(local(position=0), kafka(0), 0),
    "a': the tail was lost": Case(local(next_seq=61, runs=RUNS[:1]), kafka(80), None),
    "a': and its numbers given again": Case(
        local(next_seq=151, runs=(RUNS[0], Run("r2", "main", 61))), kafka(80, RUNS[:1]), None
    ),
    "a': behind what is parked": Case(
        local(runs=(RUNS[0], Run("r2", "main", 61))), kafka(Progress(50, 80, {"t": 51}, 20), RUNS[:1]), None
    ),
    "b: never sent": Case(local(position=0), {}, 0),
    "c: the positions are gone, nothing in doubt": Case(local(), {}, 40),
    "c: in doubt": Case(local(certain=False), {}, None),
    "c: in doubt, taken as lost": Case(local(certain=False), {}, 40, "lost"),
    "c: in doubt, taken as delivered": Case(local(certain=False), {}, 100, "delivered"),
    "d: an older copy of the disk": Case(local(), kafka(90, OTHERS), None),
    "d: whatever is said": Case(local(), kafka(90, OTHERS), None, "lost"),
    "the cluster forgot what it had confirmed": Case(local(), kafka(30), None),
    "and that is said to be so": Case(local(), kafka(30), 40, "lost"),
    "moved: the new place knows nothing": Case(local(moved=True), {}, 40),
    "moved: the new place knows less": Case(local(moved=True), kafka(30), 40),
    "salvaged: nothing had been delivered": Case(local(position=0, salvaged=SALVAGED), old(10), 0),
    "salvaged: a part": Case(local(position=0, salvaged=SALVAGED), old(15), 5),
    "salvaged: to the end of a piece": Case(local(position=0, salvaged=SALVAGED), old(45), 30),
    "salvaged: all": Case(local(position=0, salvaged=SALVAGED), old(99), 40),
    "salvaged: another's position": Case(local(position=0, salvaged=SALVAGED), kafka(0), 0),
}


@pytest.mark.parametrize("name", CASES)
def test_where_a_lane_goes_on(name: str) -> None:
    case = CASES[name]
    verdict = reconcile(case.local, case.seen, "gw", case.assume)
    assert (None if verdict.hold else verdict.position) == case.position, verdict


def test_what_is_beyond_a_parked_topic_is_not_sent_again() -> None:
    progress = Progress(50, 120, {"t": 51}, 60)
    verdict = reconcile(local(), kafka(progress), "gw")
    assert (verdict.hold, verdict.position, verdict.beyond) == (None, 50, progress)


def test_another_queue_that_wrote_after_ours_is_a_rival() -> None:
    theirs = Key("gw", "other", "main")
    before, after = Seen(6, kafka(1)[MINE].position), Seen(9, kafka(1)[MINE].position)
    assert rival({theirs: after}, "queue", -1) is None  # we have sent nothing yet
    assert rival({**kafka(40), theirs: before}, "queue", -1) is None
    assert rival({**kafka(40), theirs: after}, "queue", -1) == "other"
    assert rival({**kafka(40), theirs: after}, "queue", 9) is None  # an operator has seen it


def test_queues_that_are_gone_are_told_once_and_salvaged_ones_not() -> None:
    assert predecessors(old(15), "queue", ()) == {"old": {"main": 15}}
    assert predecessors(old(15), "queue", SALVAGED) == {}
    assert predecessors({**old(15), **kafka(0)}, "queue", ()) == {}
