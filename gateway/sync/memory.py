"""What the sync remembers between runs, in the queue's database: few and rarely written values."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from gateway.queue import LANES, Queue
from gateway.sync.lineage import family
from gateway.sync.position import Progress
from gateway.sync.reconcile import Answer, Assume
from gateway.sync.sink import PositionRecord


class Place(NamedTuple):
    """Where a queue's records go. Another one is never taken up silently."""

    cluster: str
    gateway_id: str
    positions_topic: str
    delivery: str

    def changes(self, now: "Place") -> str:
        pairs = zip(("cluster", "gateway id", "positions topic", "delivery"), self, now, strict=True)
        return ", ".join(f"{name} was {old!r}, is {new!r}" for name, old, new in pairs if old != new)


class Adoption(NamedTuple):
    """An operator's word. "fork": this database is a copy, and its gateway a new one. Anything else: what is found now
    is right, and what was in doubt is delivered or lost. `earlier` is {lane: last number} of queue `queue_id` that had been
    given before the run in which it was said: what is given later was not meant."""

    answer: Answer | None
    queue_id: str
    earlier: Mapping[str, int]

    @property
    def assume(self) -> Assume | None:
        return None if self.answer == "fork" else self.answer


class Memory:
    def __init__(self, queue: Queue) -> None:
        self._queue = queue

    @property
    def place(self) -> Place | None:
        stored = self._load("place")
        return None if stored is None else Place(*stored)

    async def set_place(self, place: Place) -> None:
        if place != self.place:
            await self._store("place", place)

    @property
    def hardware_id(self) -> str | None:
        stored = self._load("hardware")
        return None if stored is None else str(stored)

    async def set_hardware_id(self, hardware_id: str) -> None:
        if hardware_id != self.hardware_id:
            await self._store("hardware", hardware_id)

    @property
    def copied(self) -> Mapping[str, int] | None:
        """The last number of each lane that another board gave, if this database is another board's."""
        queue_id, copied = self.copied_in or (None, None)
        return copied if queue_id == self._queue.queue_id else None

    @property
    def copied_in(self) -> tuple[str, Mapping[str, int]] | None:
        """The same with the queue id whose numbers they are: a damaged database may have been saved since."""
        stored = self._load("copied")
        return None if stored is None else (stored[0], dict(stored[1]))

    async def set_copied(self, copied: Mapping[str, int] | None) -> None:
        value = None if copied is None else (self._queue.queue_id, copied)
        if value != self.copied_in:
            await self._store("copied", value)

    @property
    def settled(self) -> Mapping[str, Progress] | None:
        """How far each lane was when the last run ended, if no transaction was under way then."""
        stored = self._load("settled")
        if stored is None or stored[0] != self._queue.queue_id:
            return None
        lanes = {lane: Progress(*progress) for lane, progress in stored[1].items()}
        return lanes if all(lanes[lane].floor == self._queue.position(lane) for lane in LANES) else None

    async def set_settled(self, lanes: Mapping[str, Progress] | None) -> None:
        value = None
        if lanes is not None:
            told = {lane: [*one[:2], dict(one.parked), one.beyond] for lane, one in lanes.items()}
            value = [self._queue.queue_id, told]
        if value != self._load("settled"):
            await self._store("settled", value)

    @property
    def hint(self) -> PositionRecord | None:
        stored = self._load("hint")
        return None if stored is None else PositionRecord(stored[0], stored[1].encode(), stored[2].encode())

    async def set_hint(self, hint: PositionRecord | None) -> None:
        stored = None if hint is None else [hint.offset, hint.key.decode(), hint.value.decode()]
        if stored != self._load("hint"):
            await self._store("hint", stored)

    @property
    def topics(self) -> Mapping[str, int]:
        """Topics of the lane main that the ledger has been told of, and how many partitions they had."""
        queue_id, topics = self._load("topics") or [None, {}]
        return dict(topics) if queue_id == self._queue.queue_id else {}

    async def set_topics(self, topics: Mapping[str, int]) -> None:
        await self._store("topics", [self._queue.queue_id, topics])

    @property
    def sent(self) -> bool:
        """Whether this queue may ever have sent something."""
        return self.sent_as == self._queue.queue_id

    @property
    def sent_as(self) -> str | None:
        """The last queue id under which this database may have sent something; it may have been damaged and saved since."""
        stored = self._load("sent")
        return None if stored is None else str(stored)

    async def set_sent(self) -> None:
        if not self.sent:
            await self._store("sent", self._queue.queue_id)

    @property
    def parked(self) -> bool:
        """Whether Kafka may have records of this queue behind its position, because of a topic that is parked."""
        return bool(self._load("parked"))

    async def set_parked(self, parked: bool) -> None:
        if parked != self.parked:
            await self._store("parked", parked)

    @property
    def rival(self) -> bool:
        """Whether another gateway was seen to deliver as we do, and nobody has decided since."""
        return bool(self._load("rival"))

    async def set_rival(self, rival: bool) -> None:
        if rival != self.rival:
            await self._store("rival", rival)

    @property
    def accepted_offset(self) -> int:
        stored = self._load("accepted_offset")
        return -1 if stored is None else int(stored)

    async def set_accepted_offset(self, offset: int) -> None:
        await self._store("accepted_offset", offset)

    @property
    def adoption(self) -> Adoption | None:
        """None, too, for what was said of a queue that was damaged since: its numbers are others now."""
        stored = self._load("adoption")
        adoption = None if stored is None else Adoption(*stored)
        if adoption is None or family(adoption.queue_id) == family(self._queue.queue_id):
            return adoption
        return adoption if adoption.answer == "fork" else None

    async def adopt(self, answer: Answer | None) -> None:
        earlier = {lane: self._queue.runs(lane)[-1].first - 1 for lane in LANES}
        await self._store("adoption", Adoption(answer, self._queue.queue_id, earlier))

    async def forget_adoption(self) -> None:
        if self._load("adoption") is not None:
            await self._store("adoption", None)

    def _load(self, name: str) -> Any:
        stored = self._queue.load(f"sync.{name}")
        return None if stored is None else json.loads(stored)

    async def _store(self, name: str, value: Any) -> None:
        await self._queue.store(f"sync.{name}", json.dumps(value))
