"""After every connect: what Kafka says is delivered (K) against what the queue says (L). Pure.

Kafka decides wherever the two can both be true; that settles every transaction whose outcome was unknown, both ways.
Where the disk has parted from what Kafka has, log matching says what of it is delivered (gateway.sync.lineage). What
nobody can know is held: nothing is sent until an operator has decided.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Literal, NamedTuple

from gateway.queue import Former, Run, Salvaged, by_queue
from gateway.sync.lineage import Seen, clipped, family, includes, relatives, shared, union
from gateway.sync.position import UNCOUNTED, Key, Progress

Assume = Literal["delivered", "lost"]
Answer = Assume | Literal["fork"]

LOST_BY_CLUSTER = (
    ": the cluster lost what it had confirmed (restored from a copy, unclean leader election). `tidegate adopt --assume "
    "lost` goes on behind them."
)

OLDER_COPY = "an older copy of a database that delivered more"
DAMAGED_AGAIN = (
    "a database that was damaged, and damage has since then taken away which of its records these are"
)


class Local(NamedTuple):
    """One lane as the disk has it."""

    lane: str
    queue_id: str
    runs: Sequence[Run]
    next_seq: int
    position: int
    salvaged: Sequence[Salvaged] = ()
    formers: Mapping[str, Former] = MappingProxyType({})
    """Of those that it was saved from, whose runs are known."""
    unmapped: Sequence[str] = ()
    """Those of whose records nobody knows which wait here."""
    settled: Progress | None = None
    """How far the lane was when the last run ended, if no transaction was under way then: nothing is in doubt."""
    fresh: bool = False
    """Nothing of this queue was ever sent."""
    parted: bool = False
    """This queue went on from another one, which is told, and nothing happened to it since."""
    moved: bool = False
    """The cluster, gateway id or positions topic is another one than before, and that was agreed to."""
    earlier: int | None = None
    """The last number that had been given before the run in which an operator spoke; None if nobody did."""

    @property
    def given_earlier(self) -> int:
        return self.runs[-1].first - 1 if self.earlier is None else self.earlier


class Verdict(NamedTuple):
    """Go on after `position`, or don't if `hold` says why. `note` is for the operator, and for the ledger.
    `beyond` is what Kafka has behind the position although something before it is parked. `parted`: what the disk has
    behind the position is not what Kafka has there, so it must go on as another queue."""

    position: int
    hold: str | None = None
    note: str | None = None
    beyond: Progress | None = None
    parted: bool = False
    by: Mapping[str, Progress] = MappingProxyType({})
    """Queues that delivered what lies before the position, or beyond, and how far each of them did."""


def reconcile(
    local: Local, seen: Mapping[Key, Seen], gateway_id: str, assume: Assume | None = None
) -> Verdict:
    """`assume` is what an operator said about records whose delivery nobody can know."""
    mine = seen.get(Key(gateway_id, local.queue_id, local.lane))
    parting = _parting(local, mine, seen, assume)
    if parting is not None:
        return parting
    if mine is None:
        return _without(local, seen, gateway_id, assume)
    seq = mine.position.seq
    if seq >= local.position or local.moved:
        progress = local.settled if local.moved else mine.position.progress
        return Verdict(max(seq, local.position), beyond=_beyond(progress))
    verdict = Verdict(local.position, note=_lost_by_cluster(local, seq))
    if assume is None:
        return verdict._replace(hold=f"{verdict.note}{LOST_BY_CLUSTER}")
    return verdict


def _parting(
    local: Local, mine: Seen | None, seen: Mapping[Key, Seen], assume: Assume | None
) -> Verdict | None:
    """None if our own position alone says what of the disk is delivered. Else the disk is an older image or a copy of
    one that delivered more, or it lost its end after that was delivered."""
    ours = None if mine is None else shared(local.runs, local.next_seq, mine.position)
    parted = mine is not None and ours != mine.position.progress.frontier
    known: dict[str, Progress] = {}
    unknown = 0
    for queue_id, (_, position) in relatives(seen, local.queue_id, local.lane):
        through = shared(local.runs, local.next_seq, position)
        if through is None:
            unknown = max(unknown, position.runs[0][1] - 1)
        else:
            whole = queue_id == local.queue_id and not parted
            known[queue_id] = (
                position.progress if whole else clipped(position.progress, through, local.position)
            )
    best = union(known.values())
    if best.frontier <= local.position:
        best = Progress(local.position, local.position)
    own = known.get(local.queue_id, Progress(local.position, local.position))
    ahead = {name: one for name, one in known.items() if one.frontier > local.position}
    alone = all(includes(own, other) for other in ahead.values())
    unknown = min(unknown, local.next_seq - 1)
    if not parted and unknown <= best.floor and alone:
        return None
    if unknown > best.floor and assume is None:
        return Verdict(
            local.position,
            f"lane {local.lane}: this database is an older copy of one that delivered more, and how much of what waits "
            f"here up to {unknown} was delivered nobody can know. `tidegate adopt --assume lost` sends what waits "
            f"behind {best.floor} (some perhaps twice), `--assume delivered` skips what earlier runs stored (some "
            "perhaps never sent).",
        )
    if parted and ours is not None and ours < local.position and not local.moved and assume is None:
        return Verdict(local.position, _lost_by_cluster(local, ours) + LOST_BY_CLUSTER)
    by = {local.queue_id: own} | ahead
    if assume == "delivered":
        through = max(best.frontier, local.given_earlier)
        best = Progress(through, through)
        by = {local.queue_id: best}
    if local.parted and best.floor == local.position:
        return Verdict(local.position, beyond=_beyond(best))
    return Verdict(
        best.floor,
        note=f"lane {local.lane}: Kafka has records that this disk lost after they were delivered, or never had: an older "
        f"image of it was put back, or it doesn't keep what it says it wrote. What it has behind {best.floor}, and Kafka "
        "has not, goes on as a new queue",
        beyond=_beyond(best),
        parted=True,
        by=by,
    )


def _without(local: Local, seen: Mapping[Key, Seen], gateway_id: str, assume: Assume | None) -> Verdict:
    if local.fresh and not local.moved:
        saved, by, unknown = _saved(local, seen, gateway_id)
        if unknown is not None and assume is None:
            return Verdict(
                local.position,
                f"lane {local.lane}: what waits was saved from {unknown}, and how much of it was delivered nobody can "
                "know. `tidegate adopt --assume lost` sends it (some perhaps twice), `--assume delivered` skips what earlier "
                "runs stored (some perhaps never sent).",
            )
        if unknown is not None and assume == "delivered":
            return _taken_as_delivered(local)
        if saved.frontier <= local.position:
            return Verdict(local.position)
        return Verdict(max(local.position, saved.floor), beyond=_beyond(saved), by={by: saved})
    if assume == "delivered":
        return _taken_as_delivered(local)
    if local.moved:
        return Verdict(
            local.position,
            note=f"lane {local.lane}: goes on at another place after {local.position}",
            beyond=_beyond(local.settled),
        )
    in_doubt = local.next_seq - 1 - local.position
    if in_doubt == 0 or local.settled is not None or assume == "lost":
        return Verdict(
            local.position,
            note=f"lane {local.lane}: Kafka's positions of this gateway are gone; went on from the disk's, "
            f"{local.position}",
            beyond=_beyond(local.settled),
        )
    return Verdict(
        local.position,
        f"lane {local.lane}: Kafka's positions of this gateway are gone, and whether some of the first of {in_doubt} "
        "waiting records were delivered is unknown. `tidegate adopt --assume lost` sends them (some perhaps twice), "
        "`--assume delivered` skips what earlier runs stored (some perhaps never sent).",
    )


def _taken_as_delivered(local: Local) -> Verdict:
    through = max(local.position, local.given_earlier)
    return Verdict(
        through, note=f"lane {local.lane}: records {local.position + 1} to {through} taken as delivered"
    )


def _lost_by_cluster(local: Local, through: int) -> str:
    return (
        f"lane {local.lane}: records {through + 1} to {local.position} were confirmed by Kafka, and Kafka knows "
        "nothing of them now"
    )


def _beyond(progress: Progress | None) -> Progress | None:
    return progress if progress is not None and progress.parked else None


def _saved(local: Local, seen: Mapping[Key, Seen], gateway_id: str) -> tuple[Progress, str, str | None]:
    """What is delivered of records saved from a damaged database, by which queue, and if more may be, of what database
    they are. The nearest queue that Kafka knows has reconciled itself with those before it."""
    lost = {family(queue_id) for queue_id in local.unmapped}
    for queue_id, pieces in by_queue(local.salvaged).items():
        former = local.formers.get(queue_id)
        unmapped = DAMAGED_AGAIN if family(queue_id) in lost else None
        own = seen.get(Key(gateway_id, queue_id, local.lane))
        if former is not None:
            positions = [position for _, (_, position) in relatives(seen, queue_id, local.lane)]
            ends = [shared(former.runs, former.next_seq, position) for position in positions]
            known = [
                clipped(position.progress, end, 0)
                for position, end in zip(positions, ends, strict=True)
                if end is not None
            ]
            if positions:
                older = OLDER_COPY if None in ends else None
                return _saved_of(pieces, union(known)), queue_id, unmapped or older
        elif own is not None:  # without its runs: by its numbers
            return _saved_of(pieces, own.position.progress), queue_id, unmapped
    sent = any(key.lane == local.lane and family(key.queue_id) in lost for key in seen)
    return Progress(0, 0), "", DAMAGED_AGAIN if local.salvaged and sent else None


def _saved_of(pieces: Sequence[Salvaged], progress: Progress) -> Progress:
    floor, frontier = (_saved_up_to(pieces, number) for number in progress[:2])
    parked = {topic: 1 + _saved_up_to(pieces, first - 1) for topic, first in progress.parked.items()}
    behind = {topic: first for topic, first in parked.items() if first <= frontier}
    return Progress(floor, frontier, behind, UNCOUNTED) if behind else Progress(frontier, frontier)


def _saved_up_to(pieces: Sequence[Salvaged], number: int) -> int:
    """The last of the new numbers whose old one is not beyond `number`."""
    through = 0
    for saved in pieces:
        count = min(saved.records, number - saved.old_first + 1)
        if count > 0:
            through = max(through, saved.first + count - 1)
    return through


def predecessors(
    seen: Mapping[Key, Seen], queue_id: str, saved: Collection[str]
) -> dict[str, dict[str, int]]:
    """Queues that sent under this gateway id before ours did: {queue id: {lane: last number}}.

    Empty if one of our own family is known. Their databases are lost, unless ours was `saved` from them; their numbers are
    never used again.
    """
    if any(family(key.queue_id) == family(queue_id) for key in seen):
        return {}
    known = {family(saved_id) for saved_id in saved}
    lost: dict[str, dict[str, int]] = {}
    for key, latest in seen.items():
        if family(key.queue_id) not in known:
            lost.setdefault(key.queue_id, {})[key.lane] = latest.position.seq
    return lost


def rival(
    seen: Mapping[Key, Seen],
    queue_id: str,
    saved: Collection[str],
    accepted_offset: int,
    stranger: Callable[[Seen], bool],
) -> str | None:
    """Another queue that wrote a position after our last one: somebody else sends under our gateway id. One of our own
    family may be what this board did before an older image was put back, unless it is by a `stranger`.

    Positions up to `accepted_offset` an operator has seen and accepted. Those of queues that ours was `saved` from are ours.
    """
    ours = [latest.offset for key, latest in seen.items() if key.queue_id in (queue_id, *saved)]
    if not ours:
        return None
    after = max(accepted_offset, *ours)
    others = {
        latest.offset: key.queue_id
        for key, latest in seen.items()
        if key.queue_id not in (queue_id, *saved)
        and (family(key.queue_id) != family(queue_id) or stranger(latest))
    }
    newest = max(others, default=-1)
    return others[newest] if newest > after else None
