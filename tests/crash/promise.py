"""What devices and Kafka were told up to an operation, and whether a queue that starts from an image keeps it."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from gateway.codec import Entry, Shape
from gateway.queue import LANES, Queue
from gateway.sync.lineage import Seen
from gateway.sync.position import Key, Progress, position_at
from gateway.sync.reconcile import Local, reconcile

GATEWAY = "plant"
SHAPE = Shape("telemetry", b"dev-1", (("tg.device", b"dev-1"),))
SCOPE = "floor"


class TestClock:
    """Goes only when it is told to."""

    __test__ = False

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def wall_ms(self) -> int:
        return 1_700_000_000_000 + int(self.now_s * 1000)

    def monotonic(self) -> float:
        return self.now_s

    def boottime_ms(self) -> int:
        return int(self.now_s * 1000)


class Broken(AssertionError):
    """A promise that was not kept."""


def law(kept: bool, text: str) -> None:
    if not kept:
        raise Broken(text)


@dataclass(eq=False)
class Step:
    """What one call asked of the queue; on disk whole or not at all, and after all steps begun before it. `marks` are
    key: value, None for forgotten; `values` are those of `store`; `buried` and `exhumed` numbers of dead letters."""

    bodies: list[bytes] = field(default_factory=list)
    ledger: list[bytes] = field(default_factory=list)
    marks: dict[bytes, bytes | None] = field(default_factory=dict)
    values: dict[str, str] = field(default_factory=dict)
    buried: list[int] = field(default_factory=list)
    exhumed: list[int] = field(default_factory=list)


class Opened(NamedTuple):
    """The queue is open: from here on its identity is known, and that of the calls under way so many are on disk."""

    queue_id: str
    kept: int


class Begun(NamedTuple):
    step: Step


class Done(NamedTuple):
    """The device was told."""

    step: Step


class Refusal(NamedTuple):
    """The device was told to come again."""

    step: Step


class Transaction(NamedTuple):
    """Kafka has it."""

    lane: str
    records: Mapping[int, Entry]
    position: int
    run: str


Remark = Opened | Begun | Done | Refusal | Transaction


class State:
    """What steps add up to."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.ledger: list[bytes] = []
        self.marks: dict[bytes, bytes] = {}
        self.values: dict[str, str] = {}
        self.buried: set[int] = set()

    def add(self, step: Step) -> None:
        self.bodies += step.bodies
        self.ledger += step.ledger
        self.values |= step.values
        self.buried |= set(step.buried)
        for key, value in step.marks.items():
            self.marks.pop(key, None)
            if value is not None:
                self.marks[key] = value

    def after(self, steps: Iterable[Step]) -> "State":
        later = State()
        later.bodies, later.ledger = list(self.bodies), list(self.ledger)
        later.marks, later.values, later.buried = dict(self.marks), dict(self.values), set(self.buried)
        for step in steps:
            later.add(step)
        return later

    def is_in(self, queue: Queue) -> bool:
        return (
            len(self.bodies) == queue.next_seq("main") - 1
            and self.marks == queue.recall(SCOPE)
            and all(queue.load(key) == value for key, value in self.values.items())
        )


class Promise:
    def __init__(self) -> None:
        self.queue_id: str | None = None
        self.kafka: dict[str, dict[int, Entry]] = {lane: {} for lane in LANES}
        self._positions: dict[str, tuple[int, str]] = {}
        self._told = State()
        self._open: list[Step] = []
        self.exhumed: set[int] = set()
        self.version = 0
        """Goes up with everything that binds the gateway."""

    @property
    def acknowledged(self) -> int:
        return len(self._told.bodies)

    def happens(self, remark: Remark) -> None:
        self.version += not isinstance(remark, Begun)
        match remark:
            case Opened(queue_id, kept):
                self.queue_id = queue_id
                self._told, self._open = self._told.after(self._open[:kept]), []
            case Begun(step):
                self._open.append(step)
                self.exhumed |= set(step.exhumed)
            case Done(step):
                while step in self._open:
                    self._told.add(self._open.pop(0))
            case Refusal(step):
                self._open.remove(step)
            case Transaction(lane, records, position, run):
                law(not self.kafka[lane].keys() & records.keys(), f"{lane}: delivered twice while it ran")
                self.kafka[lane].update(records)
                self._positions[lane] = (position, run)

    def copy(self) -> "Promise":
        twin = Promise()
        twin.queue_id, twin.exhumed = self.queue_id, set(self.exhumed)
        twin.kafka = {lane: dict(records) for lane, records in self.kafka.items()}
        twin._positions = dict(self._positions)
        twin._told, twin._open = self._told.after([]), list(self._open)
        return twin

    def opened(self, queue: Queue) -> Opened:
        """Which of the steps that were under way are there."""
        if self.queue_id is not None:
            law(queue.queue_id == self.queue_id, "another queue id")
        law(queue.stats().salvage is None, "a power cut was taken for damage")
        for count in range(len(self._open) + 1):
            if self._told.after(self._open[:count]).is_in(queue):
                return Opened(queue.queue_id, count)
        raise Broken(
            f"records, marks and values are of no moment between {len(self._told.bodies)} told records and "
            f"{len(self._open)} calls under way: {queue.next_seq('main') - 1} records, {queue.recall(SCOPE)}"
        )

    async def resume(self, queue: Queue) -> None:
        """As the sync does once it is connected."""
        positions = {}
        for lane in LANES:
            local = Local(lane, queue.queue_id, queue.runs(lane), queue.next_seq(lane), queue.position(lane))
            seen = {}
            if lane in self._positions:
                seq, run = self._positions[lane]
                position = position_at(Progress(seq, seq), queue.runs(lane), None)._replace(run=run)
                seen[Key(GATEWAY, queue.queue_id, lane)] = Seen(0, position)
            local = local._replace(fresh=not seen)
            law(bool(seen) or local.position == 0, f"{lane}: the disk is ahead of Kafka")
            verdict = reconcile(local, seen, GATEWAY)
            law(verdict.hold is None, f"{lane}: {verdict.hold}")
            positions[lane] = verdict.position
        for lane, number in positions.items():
            queue.advance(lane, number)
        await queue.put([])

    async def is_kept_by(self, queue: Queue, clock: TestClock) -> None:
        """Drains the queue. Raises Broken."""
        self.happens(self.opened(queue))
        await self.resume(queue)
        found = {lane: dict(records) for lane, records in self.kafka.items()}
        await self._drain(queue, "main", found["main"])
        clock.now_s += 61  # by then what was dropped is told
        await queue.put([])
        await self._drain(queue, "ledger", found["ledger"])
        await self._look_at(queue, found)
        await _goes_on(queue, max(found["main"], default=0))

    async def _drain(self, queue: Queue, lane: str, found: dict[int, Entry]) -> None:
        while segments := await queue.peek(lane, queue.position(lane), 1000, 1 << 20, pin=True):
            records = {
                segment.first + index: entry
                for segment in segments
                for index, entry in enumerate(segment.entries)
            }
            law(not found.keys() & records.keys(), f"{lane}: delivered twice")
            dead = set(queue.buried(lane)) & records.keys()
            found.update({number: entry for number, entry in records.items() if number not in dead})
            queue.advance(lane, segments[-1].last, len(records) - len(dead))
            queue.unpin(lane)
        queue.advance(lane, queue.next_seq(lane) - 1)

    async def _look_at(self, queue: Queue, found: Mapping[str, Mapping[int, Entry]]) -> None:
        state, main, ledger = self._told, found["main"], found["ledger"]
        offered = dict(enumerate(state.bodies, 1))
        wrong = [number for number, entry in main.items() if offered.get(number) != entry.value]
        law(not wrong, f"numbers of other records: {wrong[:5]}")
        statements = [json.loads(entry.value) for entry in ledger.values() if entry.value.startswith(b"{")]
        dropped = [
            number
            for told in statements
            if told["kind"] == "dropped"
            for number in range(told["first"], told["last"] + 1)
        ]
        letters = [letter.seq for letter in await queue.dead_list(10_000)]
        forgotten = [
            number for told in statements if told["kind"] == "note" for number in _named(told["text"])
        ]
        retried = [
            int(value.removeprefix(b"main/"))
            for entry in main.values()
            for name, value in entry.shape.headers
            if name == "tg.retry"
        ]
        law(len(set(dropped)) == len(dropped), "told as dropped twice")
        law(len(set(retried)) == len(retried), "tried again twice")
        law(not set(letters) & set(retried), "tried again, and still with the dead letters")
        dead = set(letters) | set(forgotten) | set(retried)
        dead |= self.exhumed - dead - main.keys() - set(dropped)  # tried again, and that was dropped
        law(not main.keys() & dead, "delivered, and with the dead letters")
        law(not main.keys() & set(dropped), "delivered, and told as dropped")
        law(not dead & set(dropped), "with the dead letters, and told as dropped")
        lost = offered.keys() - main.keys() - dead - set(dropped)
        law(not lost, f"lost: {sorted(lost)[:5]}")
        law(state.buried <= dead | main.keys(), "a dead letter is lost")
        said = {entry.value for entry in ledger.values()}
        law(set(state.ledger) <= said, "a record of the ledger is lost")
        law(sorted(ledger) == list(range(1, queue.next_seq("ledger"))), "the ledger's numbers have gaps")
        stats = queue.stats().lanes["main"]
        counted = (stats.stored, stats.pending, stats.delivered, stats.dropped, stats.dead)
        truth = (len(offered), 0, len(main), len(dropped), len(dead))
        law(
            counted == truth,
            f"stored, pending, delivered, dropped, dead: {counted} are counted, {truth} are true",
        )


async def _goes_on(queue: Queue, highest: int) -> None:
    number = queue.next_seq("main")
    law(number > highest, "a number that Kafka has would be given again")
    await queue.put([Entry(SHAPE, 0, b"goes on")])
    [segment] = await queue.peek("main", number - 1, 1, 1)
    law((segment.first, segment.entries[0].value) == (number, b"goes on"), "collection does not go on")


def _named(text: str) -> list[int]:
    """Of a note like `...: main/1, main/3`."""
    return [
        int(name.removeprefix("main/")) for name in text.rpartition(": ")[2].split(", ") if "main/" in name
    ]
