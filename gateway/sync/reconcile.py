"""After every connect: what Kafka says is delivered (K) against what the queue says (L). Pure.

Kafka decides wherever the two can both be true; that settles every transaction whose outcome was unknown, both ways.
What can't both be true is held: nothing is sent until an operator has decided.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from gateway.queue import Run, Salvaged
from gateway.sync.position import Key, Position, Progress, run_of

Assume = Literal["delivered", "lost"]


class Local(NamedTuple):
    """One lane as the disk has it."""

    lane: str
    queue_id: str
    runs: Sequence[Run]
    next_seq: int
    position: int
    salvaged: Sequence[Salvaged] = ()
    settled: Progress | None = None
    """How far the lane was when the last run ended, if no transaction was under way then: nothing is in doubt."""
    fresh: bool = False
    """Nothing of this queue was ever sent."""
    moved: bool = False
    """The cluster, gateway id or positions topic is another one than before, and that was agreed to."""


class Verdict(NamedTuple):
    """Go on after `position`, or don't if `hold` says why. `note` is for the operator, and for the ledger.
    `beyond` is what Kafka has behind the position although something before it is parked."""

    position: int
    hold: str | None = None
    note: str | None = None
    beyond: Progress | None = None


class Seen(NamedTuple):
    """Kafka's latest position of one lane of one queue of this gateway id."""

    offset: int
    position: Position


def reconcile(
    local: Local, seen: Mapping[Key, Seen], gateway_id: str, assume: Assume | None = None
) -> Verdict:
    """`assume` is what an operator said about records whose delivery nobody can know."""
    mine = seen.get(Key(gateway_id, local.queue_id, local.lane))
    if mine is None:
        return _without(local, seen, gateway_id, assume)
    seq, run = mine.position.seq, mine.position.run
    highest = mine.position.progress.frontier
    if highest > 0 and not any(known.run_id == run for known in local.runs):
        return Verdict(
            local.position,
            f"lane {local.lane}: Kafka has this queue's records up to {highest}, given by a run ({run}) this disk knows "
            "nothing of: the database is an older copy, or a copy of it runs elsewhere. Move the records with "
            "`tidegate queue export` into a gateway with a new database.",
        )
    if highest >= local.next_seq or (highest > 0 and run_of(highest, local.runs) != run):
        return Verdict(
            local.position,
            f"lane {local.lane}: Kafka has record {highest} of run {run}, the disk lost it after it was delivered: the "
            "disk doesn't keep what it says it wrote. Replace it; move the records with `tidegate queue export` "
            "into a gateway with a new database.",
        )
    if seq >= local.position or local.moved:
        progress = local.settled if local.moved else mine.position.progress
        return Verdict(max(seq, local.position), beyond=_beyond(progress))
    verdict = Verdict(
        local.position,
        note=f"lane {local.lane}: records {seq + 1} to {local.position} were confirmed by Kafka, and Kafka knows "
        "nothing of them now",
    )
    if assume is None:
        return verdict._replace(
            hold=f"{verdict.note}: the cluster lost what it had confirmed (restored from a copy, unclean leader "
            "election). `tidegate adopt --assume lost` goes on behind them."
        )
    return verdict


def _without(local: Local, seen: Mapping[Key, Seen], gateway_id: str, assume: Assume | None) -> Verdict:
    if local.fresh and not local.moved:
        return Verdict(_covered(local, seen, gateway_id))
    if assume == "delivered":
        through = max(local.position, local.runs[-1].first - 1)
        return Verdict(
            through, note=f"lane {local.lane}: records {local.position + 1} to {through} taken as delivered"
        )
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


def _beyond(progress: Progress | None) -> Progress | None:
    return progress if progress is not None and progress.parked else None


def _covered(local: Local, seen: Mapping[Key, Seen], gateway_id: str) -> int:
    """Records saved from a damaged database may be delivered already, under their old numbers: always a prefix."""
    position = 0
    for saved in sorted(local.salvaged, key=lambda saved: saved.first):
        old = seen.get(Key(gateway_id, saved.queue_id, local.lane))
        delivered = 0 if old is None else min(saved.records, old.position.seq - saved.old_first + 1)
        if delivered > 0:
            position = saved.first + delivered - 1
        if delivered < saved.records:
            break
    return position


def predecessors(
    seen: Mapping[Key, Seen], queue_id: str, salvaged: Iterable[Salvaged]
) -> dict[str, dict[str, int]]:
    """Queues that sent under this gateway id before ours did: {queue id: {lane: last number}}.

    Empty if our own queue is known. Their databases are lost, unless salvaged; their numbers are never used again.
    """
    if any(key.queue_id == queue_id for key in seen):
        return {}
    saved = {record.queue_id for record in salvaged}
    lost: dict[str, dict[str, int]] = {}
    for key, latest in seen.items():
        if key.queue_id not in saved:
            lost.setdefault(key.queue_id, {})[key.lane] = latest.position.seq
    return lost


def rival(seen: Mapping[Key, Seen], queue_id: str, accepted_offset: int) -> str | None:
    """Another queue that wrote a position after our last one: somebody else sends under our gateway id.

    Positions up to `accepted_offset` an operator has seen and accepted.
    """
    ours = [latest.offset for key, latest in seen.items() if key.queue_id == queue_id]
    if not ours:
        return None
    after = max(accepted_offset, *ours)
    others = {latest.offset: key.queue_id for key, latest in seen.items() if key.queue_id != queue_id}
    newest = max(others, default=-1)
    return others[newest] if newest > after else None
