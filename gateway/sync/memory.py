"""What the sync remembers between runs, in the queue's database: few and rarely written values."""

import json
from typing import Any, NamedTuple

from gateway.queue import LANES, Queue
from gateway.sync.reconcile import Assume
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
    """An operator's word: what is found now is right, and what was in doubt is delivered or lost."""

    assume: Assume | None


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
    def settled(self) -> bool:
        """Whether the positions on disk are exact: no transaction was under way when the last run ended."""
        return bool(self._load("settled") == self._positions())

    async def set_settled(self, settled: bool) -> None:
        value = self._positions() if settled else None
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
    def topics(self) -> frozenset[str]:
        """Topics of the lane main that the ledger has been told of."""
        stored = self._load("topics") or [None, []]
        return frozenset(stored[1]) if stored[0] == self._queue.queue_id else frozenset()

    async def set_topics(self, topics: frozenset[str]) -> None:
        await self._store("topics", [self._queue.queue_id, sorted(topics)])

    @property
    def accepted_offset(self) -> int:
        stored = self._load("accepted_offset")
        return -1 if stored is None else int(stored)

    async def set_accepted_offset(self, offset: int) -> None:
        await self._store("accepted_offset", offset)

    @property
    def adoption(self) -> Adoption | None:
        stored = self._load("adoption")
        return None if stored is None else Adoption(*stored)

    async def set_adoption(self, adoption: Adoption | None) -> None:
        if adoption != self.adoption:
            await self._store("adoption", adoption)

    def _positions(self) -> list[Any]:
        return [self._queue.queue_id, *(self._queue.position(lane) for lane in LANES)]

    def _load(self, name: str) -> Any:
        stored = self._queue.load(f"sync.{name}")
        return None if stored is None else json.loads(stored)

    async def _store(self, name: str, value: Any) -> None:
        await self._queue.store(f"sync.{name}", json.dumps(value))


async def adopt(queue: Queue, assume: Assume | None) -> None:
    """`tidegate adopt` while no gateway runs; a running one is told through Sync.adopt."""
    await Memory(queue).set_adoption(Adoption(assume))
