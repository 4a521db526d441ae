"""Where this gateway stands, found after every connect: at the right place, on its own board, alone, and how far."""

import logging
import secrets
from collections.abc import Mapping

from gateway.errors import SinkHeld
from gateway.queue import LANES, Origin, Queue
from gateway.sync.lane import up_to
from gateway.sync.lineage import Seen, branch
from gateway.sync.memory import Adoption, Memory, Place
from gateway.sync.position import UNCOUNTED, Key, Progress
from gateway.sync.reconcile import Local, Verdict, reconcile, rival

_log = logging.getLogger(__name__)


class Standing:
    """`sent` says whether this process has delivered something: what others delivered since is a live rival's.
    `replaces` is the board that this one is known to replace."""

    def __init__(
        self, queue: Queue, memory: Memory, gateway_id: str, board: str | None, replaces: str | None
    ) -> None:
        self._queue = queue
        self._memory = memory
        self._gateway_id = gateway_id
        self._board = board
        self._replaces = replaces
        self.sent = False
        self.parted: str | None = None
        """What was found wrong with the disk in this process's life, though it could go on."""

    def pin_what_is_in_doubt(self) -> None:
        """Behind a parked record nobody knows what of earlier runs is delivered until Kafka says it."""
        if self._memory.parked:
            self._queue.pin("main", self._queue.next_seq("main") - 1)

    async def note_board(self) -> None:
        """At start, without a network: what lies behind this was given by this board, though the database is another's."""
        others = self._board is not None and self._memory.hardware_id not in (None, self._board)
        if not others:
            await self._memory.set_copied(None)
        elif self._memory.copied is None and not self._forked:
            await self._memory.set_copied({lane: self._came_along(lane) for lane in LANES})

    @property
    def _forked(self) -> bool:
        """Whether the parting of a fork is on the disk, though perhaps nothing was sent since."""
        origin, copied = self._queue.origin, self._memory.copied_in
        return origin is not None and copied is not None and copied[0] == origin.queue_id

    def _came_along(self, lane: str) -> int:
        """All before this run; or, of a damaged database that was saved meanwhile, what had come along in that one."""
        if self._memory.copied_in is None:
            return self._queue.runs(lane)[-1].first - 1
        queue_id, copied = self._memory.copied_in
        saved = [one for one in self._queue.past.salvaged(lane) if one.queue_id == queue_id]
        return sum(max(0, min(one.records, copied[lane] - one.old_first + 1)) for one in saved)

    def check_place(self, now: Place, adoption: Adoption | None) -> bool:
        """Whether what waits goes to another place than before, as was agreed to. Raises SinkHeld."""
        known = self._memory.hardware_id
        here = (None, self._board, self._replaces)
        others = self._board is not None and known not in here and not self._forked
        if adoption is not None and adoption.answer == "fork":
            wrong = self.why_no_fork()
            if wrong is not None:
                raise SinkHeld(wrong)
        if others and adoption is None:
            raise SinkHeld(
                f"this database was written on another board ({known}, this is {self._board}): a moved or a copied card. "
                "If the other board is out of service, `tidegate adopt` goes on here as the same gateway; if it runs, "
                "give this one a gateway.id of its own and say `tidegate fork`"
            )
        before = self._memory.place
        empty = all(self._queue.pending(lane)[0] == 0 for lane in LANES) and self._memory.settled is not None
        moved = before is not None and before[:3] != now[:3]
        if before not in (None, now) and not empty and adoption is None:
            raise SinkHeld(
                f"records wait that were accepted for another place: {before.changes(now)}. Change it back until "
                "they are delivered, or `tidegate adopt` sends them to the new one."
            )
        return moved

    def why_no_fork(self) -> str | None:
        """None if this database is a copy of another board's, and this gateway has an id of its own."""
        place = self._memory.place
        if self._forked:
            return None
        if self._memory.copied is None:
            return "`tidegate fork` is for a card that was copied from another board; this database is this board's own"
        if place is None or place.gateway_id == self._gateway_id:
            return f"before `tidegate fork` this board needs a gateway.id of its own: {self._gateway_id!r} is the other's"
        return None

    async def judge(
        self, seen: Mapping[Key, Seen], moved: bool, adoption: Adoption | None
    ) -> Mapping[str, Verdict]:
        """Where each lane goes on, {lane: verdict}. Raises SinkHeld where nobody can know."""
        if adoption is not None and adoption.answer == "fork":
            return await self._fork()
        past = self._queue.past
        saved = past.queue_ids()
        other = rival(seen, self._queue.queue_id, saved, self._memory.accepted_offset, self._is_stranger)
        assume = adoption.assume if adoption is not None else None
        # Of what was saved from a queue that had sent, Kafka must know something, or nobody knows what was delivered.
        sent_as = self._memory.sent_as
        unknown = sent_as in saved and not any(key.queue_id in saved for key in seen)
        settled = self._memory.settled
        origin = self._queue.origin
        verdicts = {}
        for name in LANES:
            begins = 0 if origin is None else origin.through[name]
            local = Local(
                lane=name,
                queue_id=self._queue.queue_id,
                runs=self._queue.runs(name),
                next_seq=self._queue.next_seq(name),
                position=max(begins, self._queue.position(name)),
                salvaged=past.salvaged(name),
                formers=past.formers(name),
                unmapped=past.maybe({key.queue_id for key in seen if key.gateway_id == self._gateway_id}),
                earlier=adoption.earlier.get(name) if adoption is not None else None,
                settled=settled[name] if settled is not None else None,
                fresh=not self._memory.sent and not unknown,
                parted=origin is not None and not self._memory.sent,
                moved=moved,
            )
            verdict = verdicts[name] = reconcile(local, seen, self._gateway_id, assume)
            mine = seen.get(Key(self._gateway_id, self._queue.queue_id, name))
            if verdict.parted and mine is not None and mine.offset > self._memory.accepted_offset:
                other = other or (self._queue.queue_id if self._is_stranger(mine) else None)
        if other is not None:
            await self._memory.set_rival(True)
            raise SinkHeld(
                f"another gateway delivers as {self._gateway_id!r} (its queue is {other}): give one of "
                "them another gateway.id, or, if that queue is gone for good, `tidegate adopt`"
            )
        for verdict in verdicts.values():
            if verdict.hold is not None:
                raise SinkHeld(verdict.hold)
        await self._memory.set_rival(False)
        for name, verdict in verdicts.items():
            if verdict.beyond is not None and verdict.beyond.beyond == UNCOUNTED:
                verdicts[name] = verdict._replace(beyond=await self._counted(name, verdict.beyond))
        if any(verdict.parted for verdict in verdicts.values()):
            await self._part(verdicts)
        return verdicts

    def _is_stranger(self, latest: Seen) -> bool:
        """Whether a position that is news to us can't be what this board itself did before our database was put back."""
        board = latest.position.hardware_id
        return (
            self.sent
            or self._memory.rival
            or (None not in (board, self._board) and board not in (self._board, self._replaces))
        )

    async def _fork(self) -> Mapping[str, Verdict]:
        """What the other board stored is the other's to deliver; what was collected here is a new queue's."""
        origin = self._queue.origin
        if self._forked and origin is not None:
            return {
                lane: Verdict(max(origin.through[lane], self._queue.position(lane)), parted=True)
                for lane in LANES
            }
        copied = self._memory.copied or {}
        through = {lane: max(copied.get(lane, 0), self._queue.position(lane)) for lane in LANES}
        old = self._queue.queue_id
        note = f"a copy of queue {old} goes on here as another gateway's: what waited in it is left to the original"
        _log.warning("%s", note)
        lanes = {lane: {old: (number, number)} for lane, number in through.items()}
        await self._queue.part(Origin(secrets.token_hex(8), old, through), lanes=lanes, text=note)
        return {lane: Verdict(number, parted=True) for lane, number in through.items()}

    async def _part(self, verdicts: Mapping[str, Verdict]) -> None:
        old = self._queue.queue_id
        through = {lane: verdict.position for lane, verdict in verdicts.items()}
        lanes = {}
        for lane, verdict in verdicts.items():
            by = verdict.by or {old: verdict.beyond or Progress(verdict.position, verdict.position)}
            lanes[lane] = {name: (progress.floor, progress.frontier) for name, progress in by.items()}
        self.parted = "; ".join(
            verdict.note for verdict in verdicts.values() if verdict.parted and verdict.note
        )
        await self._queue.part(Origin(branch(old), old, through), lanes=lanes, text=self.parted)
        _log.warning("queue %s goes on as %s", old, self._queue.queue_id)

    async def _counted(self, lane: str, progress: Progress) -> Progress:
        """With the number of records that were delivered beyond the floor."""
        after, beyond = progress.floor, 0
        dead = set(self._queue.buried(lane))
        while after < progress.frontier:
            segments = up_to(await self._queue.peek(lane, after, 1000, 1 << 20), progress.frontier)
            for segment in segments:
                for seq, entry in enumerate(segment.entries, segment.first):
                    parked = progress.parked.get(entry.shape.topic)
                    beyond += seq not in dead and (parked is None or seq < parked)
            after = segments[-1].last if segments else progress.frontier
        return progress._replace(beyond=beyond)
