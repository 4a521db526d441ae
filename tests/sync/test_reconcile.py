"""What becomes of what was in doubt: each case as an operator would find it, and what the gateway then does or says."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.queue import Run, Salvaged
from gateway.sync.lineage import Seen, union
from gateway.sync.position import UNCOUNTED, Key, Position, Progress
from gateway.sync.reconcile import Assume, Local, predecessors, reconcile, rival

US = "plant"
RUNS = (Run("r1", "main", 1), Run("r2", "main", 101), Run("r3", "main", 201))
"""Three lives of the process: r1 gave 1 to 100, r2 101 to 200, r3 the rest."""


def kafka(
    seq: int,
    run: str,
    offset: int = 0,
    *,
    frontier: int | None = None,
    parked: Mapping[str, int] | None = None,
    beyond: int = 0,
    runs: Sequence[tuple[str, int]] | None = None,
) -> Seen:
    """`run` gave the last number; `runs` are all that Kafka knows of, if they aren't those of the disk up to it."""
    progress = Progress(seq, seq if frontier is None else frontier, parked or {}, beyond)
    if runs is None:
        known = [(one.run_id, one.first) for one in RUNS]
        runs = next((known[: index + 1] for index, one in enumerate(known) if one[0] == run), [(run, 1)])
    return Seen(offset, Position(progress, run, runs, None))


def disk(position: int, stored: int = 300, **more: Any) -> Local:
    known: dict[str, Any] = {"runs": RUNS, "fresh": position == 0} | more
    return Local("main", "ours", next_seq=stored + 1, position=position, **known)


class Case(NamedTuple):
    """`says` is in what holds the gateway, or, if it goes on after `goes_on`, in its note; None: not a word."""

    sees: str
    local: Local
    mine: Seen | None
    goes_on: int | None
    says: str | None = None
    assume: Assume | None = None
    others: Mapping[str, Seen] = {}
    beyond: Progress | None = None
    parted: bool = False


PARKED: dict[str, Any] = {"frontier": 270, "parked": {"closed": 251}, "beyond": 12}

OLDER = disk(150)
XS = [("r3", 201), *((f"x{life}", 301 + 100 * life) for life in range(16))]
"""What became of the database after an image of it was taken: many short lives."""

CASES = [
    Case("a: all is as the disk says", disk(250), kafka(250, "r3"), 250),
    Case("a: the last transaction was committed, its answer lost", disk(250), kafka(260, "r3"), 260),
    Case("a: killed before the position of an earlier run was confirmed", disk(90), kafka(150, "r2"), 150),
    Case("a: the last number of a run, and the first of the next", disk(90), kafka(200, "r2"), 200),
    Case("a: nothing but the position was ever sent", disk(0), kafka(0, "r1"), 0),
    Case(
        "a: one topic is closed, the others are ahead of it",
        disk(250),
        kafka(250, "r3", **PARKED),
        250,
        beyond=Progress(250, 270, {"closed": 251}, 12),
    ),
    Case(
        "a': the disk lost its end after it was delivered",
        disk(250, 255),
        kafka(256, "r3"),
        255,
        "and Kafka has not, goes on as a new queue",
        parted=True,
    ),
    Case("a': Kafka has all but one that the disk has", disk(250, 256), kafka(256, "r3"), 256),
    Case(
        "a': the disk lost its end, which lay beyond a closed topic",
        disk(250, 269),
        kafka(250, "r3", **PARKED),
        250,
        "behind 250",
        beyond=Progress(250, 269, {"closed": 251}, UNCOUNTED),
        parted=True,
    ),
    Case(
        "a': the disk lost its end, which began before a second topic was closed",
        disk(250, 259),
        kafka(250, "r3", frontier=270, parked={"closed": 251, "later": 265}, beyond=12),
        250,
        "behind 250",
        beyond=Progress(250, 259, {"closed": 251}, UNCOUNTED),
        parted=True,
    ),
    Case(
        "a': the disk lost its end, with all that waits for the closed topic",
        disk(240, 250),
        kafka(250, "r3", **PARKED),
        250,
        "behind 250",
        parted=True,
    ),
    Case(
        "a': it lost its end, and went on in another run",
        disk(90),
        kafka(150, "r1"),
        100,
        "behind 100",
        parted=True,
    ),
    Case("b: a new gateway", disk(0), None, 0),
    Case(
        "b: a new database, an older one delivered before", disk(0), None, 0, others={"old": kafka(77, "x")}
    ),
    Case(
        "c: the positions topic was deleted after a clean stop",
        disk(250, settled=Progress(250, 250)),
        None,
        250,
        "are gone",
    ),
    Case(
        "c: the positions topic was deleted after a clean stop, one topic was closed",
        disk(250, settled=Progress(250, 270, {"closed": 251}, 12)),
        None,
        250,
        "are gone",
        beyond=Progress(250, 270, {"closed": 251}, 12),
    ),
    Case(
        "c: the positions topic was deleted, and nothing waits that could be in doubt",
        disk(300),
        None,
        300,
        "are gone",
    ),
    Case(
        "c: deleted within seconds after the first records were sent, and then the power went",
        disk(0, fresh=False),
        None,
        None,
        "300 waiting records",
    ),
    Case(
        "c: the positions topic was deleted, a transaction in doubt",
        disk(250),
        None,
        None,
        "50 waiting records",
    ),
    Case("c: the operator says it was lost", disk(250), None, 250, "went on from the disk's", "lost"),
    Case(
        "c: the operator says it was delivered",
        disk(150),
        None,
        200,
        "151 to 200 taken as delivered",
        "delivered",
    ),
    Case(
        "c: delivered, but all waiting is of this run",
        disk(250),
        None,
        250,
        "taken as delivered",
        "delivered",
    ),
    Case(
        "d: a copy of the card went on elsewhere",
        disk(250),
        kafka(260, "x", runs=[("r1", 1), ("r2", 101), ("r3", 201), ("x", 255)]),
        254,
        "behind 254",
        parted=True,
    ),
    Case(
        "d: an older image was put back, and went on in a new run before it connected",
        disk(150, 205),
        kafka(250, "x", runs=[("r2", 101), ("x", 181)]),
        180,
        "behind 180",
        parted=True,
    ),
    Case(
        "d: all that the older image holds was delivered",
        OLDER,
        kafka(900, "x6", runs=XS[:8]),
        300,
        "behind 300",
        parted=True,
    ),
    Case(
        "d: the image is too old for what Kafka remembers",
        OLDER,
        kafka(1800, "x15", runs=XS[9:]),
        None,
        "up to 300 was",
    ),
    Case(
        "d: too old, the operator sends",
        OLDER,
        kafka(1800, "x15", runs=XS[9:]),
        150,
        "behind 150",
        "lost",
        parted=True,
    ),
    Case(
        "d: too old, the operator skips",
        OLDER,
        kafka(1800, "x15", runs=XS[9:]),
        200,
        "behind 200",
        "delivered",
        parted=True,
    ),
    Case(
        "d: the image had sent nothing",
        disk(0, 10),
        kafka(20, "x", runs=[("x", 1)]),
        0,
        "behind 0",
        parted=True,
    ),
    Case(
        "d: Kafka lost what it had confirmed before the copy went on",
        disk(250),
        kafka(260, "x", runs=[("r1", 1), ("x", 101)]),
        None,
        "records 101 to 250 were confirmed",
    ),
    Case(
        "d: an older image is put back for the second time: its first life went on as another queue",
        disk(150),
        kafka(150, "r2"),
        260,
        "behind 260",
        others={"ours.b": kafka(260, "r3")},
        parted=True,
    ),
    Case(
        "d: the same, and it had never sent under its own id",
        disk(0),
        None,
        260,
        "behind 260",
        others={"ours.b": kafka(260, "r3")},
        parted=True,
    ),
    Case(
        "d: another branch parted from us before",
        disk(150),
        kafka(210, "r3"),
        210,
        others={"ours.b": kafka(400, "y", runs=[("r1", 1), ("y", 50)])},
    ),
    Case(
        "d: another branch has a closed topic, and is ahead of us",
        disk(150),
        kafka(210, "r3"),
        250,
        "behind 250",
        others={"ours.b": kafka(250, "r3", **PARKED)},
        beyond=Progress(250, 270, {"closed": 251}, UNCOUNTED),
        parted=True,
    ),
    Case(
        "d: we went on from another branch, with a closed topic that could be written again meanwhile",
        disk(250),
        kafka(250, "r3", frontier=290, parked={"closed": 260}, beyond=30),
        250,
        others={"ours.b": kafka(250, "r3", **PARKED)},
        beyond=Progress(250, 290, {"closed": 260}, 30),
    ),
    Case(
        "d: we have a closed topic, and another branch is ahead of it",
        disk(150),
        kafka(250, "r3", **PARKED),
        260,
        "behind 260",
        others={"ours.b": kafka(260, "r3")},
        beyond=Progress(260, 270, {"closed": 261}, UNCOUNTED),
        parted=True,
    ),
    Case(
        "d: we have a closed topic, another branch has another: between them they delivered all",
        disk(150),
        kafka(250, "r3", **PARKED),
        270,
        "behind 270",
        others={"ours.b": kafka(250, "r3", frontier=270, parked={"other": 251}, beyond=8)},
        parted=True,
    ),
    Case(
        "d: all that we passed waits for our closed topic, and another branch is ahead of it",
        disk(150),
        kafka(250, "r3", frontier=270, parked={"closed": 251}, beyond=0),
        260,
        "behind 260",
        others={"ours.b": kafka(260, "r3")},
        beyond=Progress(260, 270, {"closed": 261}, UNCOUNTED),
        parted=True,
    ),
    Case(
        "d: another branch ended before the first record that waits for our closed topic",
        disk(150),
        kafka(250, "r3", frontier=270, parked={"closed": 261}, beyond=18),
        250,
        others={"ours.b": kafka(260, "r3")},
        beyond=Progress(250, 270, {"closed": 261}, 18),
    ),
    Case(
        "d: we went on from another branch, and no transaction came of it yet",
        disk(250, parted=True),
        None,
        250,
        others={"ours.b": kafka(250, "r3", **PARKED)},
        beyond=Progress(250, 270, {"closed": 251}, UNCOUNTED),
    ),
    Case(
        "d: Kafka lost what it had confirmed, and an older branch has nothing more than we",
        disk(250),
        kafka(240, "r3", frontier=270, parked={"closed": 241}, beyond=12),
        None,
        "records 241 to 250 were confirmed",
        others={"ours.b": kafka(100, "r1")},
    ),
    Case(
        "d: a new database is no relative",
        disk(150),
        kafka(210, "r3"),
        210,
        others={"theirs": kafka(400, "y")},
    ),
    Case(
        "the cluster was restored from an older copy",
        disk(250),
        kafka(240, "r3"),
        None,
        "records 241 to 250 were confirmed",
    ),
    Case(
        "the cluster was restored, the operator goes on",
        disk(250),
        kafka(240, "r3"),
        250,
        "Kafka knows nothing of them now",
        "lost",
    ),
    Case(
        "moved to a cluster that knows nothing of us",
        disk(250, moved=True),
        None,
        250,
        "goes on at another place",
    ),
    Case("moved to a cluster, nothing sent yet", disk(0, moved=True), None, 0, "goes on at another place"),
    Case("moved back to a cluster where we were before", disk(250, moved=True), kafka(120, "r2"), 250),
    Case(
        "moved back to where a topic was closed: what it lacks was sent elsewhere",
        disk(250, moved=True),
        kafka(120, "r2", frontier=150, parked={"closed": 121}),
        250,
    ),
    Case(
        "moved while a topic was closed: what others had already doesn't go to the new place",
        disk(250, moved=True, settled=Progress(250, 270, {"closed": 251}, 12)),
        None,
        250,
        "goes on at another place",
        beyond=Progress(250, 270, {"closed": 251}, 12),
    ),
    Case(
        "moved, and what was in doubt counts as delivered",
        disk(150, moved=True),
        None,
        200,
        "151 to 200 taken as delivered",
        "delivered",
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.sees)
def test_the_gateway_goes_on_or_is_held(case: Case) -> None:
    seen = {Key(US, queue, "main"): one for queue, one in case.others.items()}
    if case.mine is not None:
        seen[Key(US, "ours", "main")] = case.mine
    verdict = reconcile(case.local, seen, US, case.assume)
    if case.goes_on is None:
        assert verdict.hold is not None
        assert case.says is not None
        assert case.says in verdict.hold
    else:
        assert verdict.hold is None
        assert verdict.position == case.goes_on
        assert (case.says or "") in (verdict.note or "")
        assert (verdict.note is None) == (case.says is None)
        assert verdict.beyond == case.beyond
        assert verdict.parted == case.parted


SAVED = (Salvaged("old", 11, 10, 1), Salvaged("old", 41, 10, 11))
"""Of the damaged database 11 to 20 and 41 to 50 could be read; they are 1 to 20 now."""


@pytest.mark.parametrize(
    ("sees", "delivered", "saved", "goes_on"),
    [
        ("the damaged queue had delivered less than what was saved", 10, SAVED, 0),
        ("it had delivered a part of the first piece", 14, SAVED, 4),
        ("the first piece, to its end", 20, SAVED, 10),
        ("all up to the middle of what couldn't be read", 30, SAVED, 10),
        ("a part of the second piece", 43, SAVED, 13),
        ("all that was saved, and more", 60, SAVED, 20),
        ("nothing is known of it in Kafka", None, SAVED, 0),
        ("the pieces are told in another order", 43, SAVED[::-1], 13),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_was_saved_of_a_damaged_database_is_not_delivered_again(
    sees: str, delivered: int | None, saved: Sequence[Salvaged], goes_on: int
) -> None:
    seen = {} if delivered is None else {Key(US, "old", "main"): kafka(delivered, "gone")}
    assert reconcile(disk(0, salvaged=saved), seen, US).position == goes_on


@pytest.mark.parametrize(("nearer", "goes_on"), [(None, 13), (15, 15)])
def test_of_two_damaged_queues_the_nearest_that_kafka_knows_decides(nearer: int | None, goes_on: int) -> None:
    """Ours was saved from "nearer", whole, which had been saved from "old". "nearer" may never have been connected."""
    seen = {Key(US, "old", "main"): kafka(43, "gone")}
    if nearer is not None:
        seen[Key(US, "nearer", "main")] = kafka(nearer, "gone")
    verdict = reconcile(disk(0, salvaged=(Salvaged("nearer", 1, 25, 1), *SAVED)), seen, US)
    assert verdict.position == goes_on
    assert set(verdict.by) == {"old" if nearer is None else "nearer"}


@pytest.mark.parametrize(
    ("salvaged", "known", "held"),
    [
        ((), ("old",), False),
        ((), ("old", "nearer"), False),
        ((Salvaged("nearer", 1, 25, 1),), ("nearer", "old"), False),
        ((Salvaged("nearer", 1, 25, 1),), ("old",), True),
        ((Salvaged("nearer", 1, 25, 1), *SAVED), ("old",), True),
        ((Salvaged("nearer", 1, 25, 1),), ("old.branch",), True),
        ((Salvaged("nearer", 1, 25, 1),), ("other",), False),
        ((Salvaged("nearer", 1, 25, 1),), (), False),
    ],
)
def test_lost_numbers_matter_where_something_was_saved_and_only_their_queue_is_known(
    salvaged: Sequence[Salvaged], known: Sequence[str], held: bool
) -> None:
    seen = {Key(US, queue_id, "main"): kafka(10, "r1") for queue_id in known}
    verdict = reconcile(disk(0, salvaged=salvaged, unmapped=("old",)), seen, US)
    assert (verdict.hold is not None) == held


@pytest.mark.parametrize(("closed", "first"), [(16, 6), (30, 11)])
def test_what_was_saved_while_a_topic_was_closed_goes_on_behind_it(closed: int, first: int) -> None:
    """The old queue had delivered up to 43 but what waits for the closed topic from `closed` on: here it is `first`."""
    old = kafka(closed - 1, "gone", frontier=43, parked={"closed": closed}, beyond=5)
    verdict = reconcile(disk(0, salvaged=SAVED), {Key(US, "old", "main"): old}, US)
    beyond = Progress(first - 1, 13, {"closed": first}, UNCOUNTED)
    assert (verdict.position, verdict.beyond, verdict.by) == (first - 1, beyond, {"old": beyond})


def test_it_is_told_how_far_each_branch_delivered() -> None:
    ours, theirs = kafka(250, "r3", **PARKED), kafka(260, "r3")
    early = kafka(400, "y", runs=[("r1", 1), ("y", 50)])
    seen = {
        Key(US, name, "main"): one for name, one in (("ours", ours), ("ours.b", theirs), ("ours.c", early))
    }
    by = reconcile(disk(150), seen, US).by
    assert by == {"ours": ours.position.progress, "ours.b": Progress(260, 260)}


def test_what_an_operator_takes_as_delivered_is_told_of_our_queue() -> None:
    verdict = reconcile(
        disk(150), {Key(US, "ours", "main"): kafka(500, "x", runs=[("x9", 450)])}, US, "delivered"
    )
    assert (verdict.position, verdict.by) == (200, {"ours": Progress(200, 200)})


PROGRESS = st.builds(
    lambda floor, more, waits: Progress(
        floor,
        floor + more,
        parked := {topic: floor + at for topic, at in waits.items() if at <= more},
        UNCOUNTED if parked else 0,
    ),
    st.integers(0, 6),
    st.integers(0, 6),
    st.dictionaries(st.sampled_from("ab"), st.integers(1, 6)),
)


def delivered(progress: Progress) -> set[tuple[int, str]]:
    """Of a lane whose every number could be of any topic."""
    return {
        (number, topic)
        for number in range(1, progress.frontier + 1)
        for topic in "abc"
        if number < progress.parked.get(topic, number + 1)
    }


@given(st.lists(PROGRESS, max_size=4))
def test_what_several_delivered_is_the_union_of_what_each_did(known: list[Progress]) -> None:
    every = union(known)
    assert delivered(every) == {one for progress in known for one in delivered(progress)}
    assert all(first > every.floor for first in every.parked.values())


@pytest.mark.parametrize(
    ("sees", "accepted", "offsets", "found"),
    [
        ("nobody wrote yet", -1, {}, None),
        ("we are alone", -1, {"ours": 5}, None),
        ("an earlier database of ours, before us", -1, {"old": 3, "ours": 5}, None),
        ("we never wrote: whoever did was before us", -1, {"old": 3, "older": 2}, None),
        ("another one wrote after us", -1, {"ours": 5, "theirs": 8}, "theirs"),
        ("two others wrote after us: the latest is named", -1, {"ours": 5, "a": 8, "b": 7}, "a"),
        ("an operator has seen it", 8, {"ours": 5, "theirs": 8}, None),
        ("it wrote again after an operator had seen it", 8, {"ours": 5, "theirs": 9}, "theirs"),
        ("we wrote last", -1, {"theirs": 8, "ours": 9}, None),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_another_gateway_with_our_id_is_noticed(
    sees: str, accepted: int, offsets: Mapping[str, int], found: str | None
) -> None:
    seen = {Key(US, queue, "main"): kafka(1, "r1", offset) for queue, offset in offsets.items()}
    assert rival(seen, "ours", (), accepted, lambda _: False) == found


def test_our_latest_position_of_any_lane_counts() -> None:
    seen = {
        Key(US, "ours", "main"): kafka(1, "r1", 2),
        Key(US, "theirs", "main"): kafka(1, "x", 4),
        Key(US, "ours", "ledger"): kafka(1, "r1", 6),
    }
    assert rival(seen, "ours", (), -1, lambda _: False) is None


def test_databases_that_are_gone_are_named_until_ours_is_known() -> None:
    old = {Key(US, "old", "main"): kafka(70, "x", 1), Key(US, "old", "ledger"): kafka(3, "x", 2)}
    saved = {Key(US, "damaged", "main"): kafka(90, "y", 3)}
    ours = {Key(US, "ours", "main"): kafka(0, "r1", 4)}
    assert predecessors(old | saved, "ours", {"damaged"}) == {"old": {"main": 70, "ledger": 3}}
    assert predecessors(old | saved | ours, "ours", {"damaged"}) == {}
