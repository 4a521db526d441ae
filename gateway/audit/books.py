"""The audit without I/O: positions, statements of the ledger and records go in, in any order; findings come out.

A lane's numbers are judged from 1 to the position that Kafka held when the audit began: all up to it was committed
before the records were read, so what isn't among them is missing. Records behind the position count only if they are
there twice. A queue that went on from another is judged from where the two parted. A number may be missing for a reason
that the ledger tells, or because Kafka deleted it: a partition that lost its beginning to retention can only have held
numbers below the first that it still has of this lane, and below the first number anywhere in the lane whose record is
too young to be deleted. Records saved from a damaged database have new numbers, in the order of the old ones: one that
is missing is looked for under its old number, in the queue that it was saved from, and in those before that one.
"""

import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

from gateway.audit.numbers import INTERVAL_BYTES, Numbers, Range, joined, within, without
from gateway.audit.report import Cause, Clash, Lane, Missing, Report
from gateway.errors import CommandError
from gateway.queue import UNREAD, Salvaged, numbered

INTERVALS_MAX = 8_000_000
"""128 MB. A million records a partition that is read ahead of the others need at most as many."""

LOOK_RECORDS = 65_536
RANGES_MAX = 1000
NOTES_MAX = 100
RUNS_MAX = 10_000
LANES_MAX = 200_000
PROBLEMS_MAX = 100
SALVAGES_MAX = 100
"""In a row."""

EX_DATAERR = 65

TOLD = {"dropped": Cause.DROPPED, "dead": Cause.DEAD}
ORIGIN = ("tg.queue", "tg.lane", "tg.gateway", "tg.run")
NUMBER_MAX = (1 << 63) - 1
"""SQLite's and Kafka's: no gateway gives a larger one."""

UNREADABLE = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)
"""What is raised by what no gateway wrote: anybody who may write to a topic may put anything there."""

Headers = Sequence[tuple[str, bytes | None]]
Place = tuple[str, int]
"""(topic, partition)"""


class _Reason(NamedTuple):
    cause: Cause
    text: str


class _Parting(NamedTuple):
    """A queue went on from `queue`, where all up to `through` is judged; up to `frontier` some was delivered there, too."""

    queue: str
    through: int
    frontier: int


@dataclass
class _Account:
    """What is known of one lane of one queue."""

    gateway: str = "?"
    positions: dict[str, int] = field(default_factory=dict)
    seen: Numbers = field(default_factory=Numbers)
    runs: dict[str, Range] = field(default_factory=dict)
    topics: dict[str, int] = field(default_factory=dict)
    partitions: dict[str, int] = field(default_factory=dict)
    floors: dict[Place, int] = field(default_factory=dict)
    young: dict[str, int] = field(default_factory=dict)
    reasons: dict[_Reason, list[Range]] = field(default_factory=dict)
    damaged: list[tuple[_Reason, Range]] = field(default_factory=list)
    parked: list[str] = field(default_factory=list)
    partings: list[_Parting] = field(default_factory=list)
    saved: dict[str, list[Salvaged]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    gone: set[int] = field(default_factory=set)
    """Last numbers: another queue of this gateway found them in Kafka, and no database that had given them."""

    @property
    def parted_behind(self) -> int:
        return max((parting.through for parting in self.partings), default=0)

    def explain(self, cause: Cause, text: str, numbers: Range) -> None:
        self.reasons.setdefault(_Reason(cause, text), []).append(numbers)

    @property
    def intervals(self) -> int:
        return self.seen.intervals + sum(len(numbers) for numbers in self.reasons.values())

    def fates(self, judged: int) -> Iterator[str]:
        for last in sorted(self.gone):
            if judged > last:
                yield f"was taken for gone behind number {last}, and is not: its gateway went on"
            else:
                yield f"its database is gone, with all that it held behind number {last}"

    def goes_to(self, topic: str, start: int, partitions: int) -> None:
        self.topics[topic] = min(start, self.topics.get(topic, start))
        before = self.partitions.get(topic, partitions)
        self.partitions[topic] = partitions
        if before != partitions:
            self.note(
                f"topic {topic} has {partitions} partitions from record {start} on, and had {before}: records of one "
                "key before and after it may lie in two partitions"
            )

    def note(self, text: str) -> None:
        if len(self.notes) < NOTES_MAX and text not in self.notes:
            self.notes.append(text)


class Books:
    """`ledger_topic` is where the lane "ledger" goes. All methods that take something in raise CommandError when
    memory would not be bounded any more."""

    def __init__(self, ledger_topic: str, intervals_max: int = INTERVALS_MAX) -> None:
        self.records = 0
        self._ledger_topic = ledger_topic
        self._problems: list[str] = []
        self._foreign = 0
        self._intervals_max = intervals_max
        self._intervals = 0
        self._accounts: dict[tuple[str, str], _Account] = {}
        self._young_after: dict[str, float] = {}
        self._lost_beginnings: set[Place] = set()
        self._compacted: set[str] = set()

    def lost_beginning(self, place: Place, deletable_ms: int) -> None:
        """Kafka deleted the beginning of this partition, of records whose time was up to `deletable_ms`. Tell before
        the records."""
        self._lost_beginnings.add(place)
        self._young_after[place[0]] = deletable_ms

    def compacted(self, topic: str) -> None:
        """Kafka may have deleted any record of this topic."""
        self._compacted.add(topic)

    def position(self, key: bytes, value: bytes) -> None:
        """A record of the positions topic, later ones of a key after earlier ones."""
        try:
            gateway, queue, lane = key.decode().rsplit("/", 2)
            body = json.loads(value)
            seq, parked = _number(body["seq"]), dict(body.get("parked", {}))
        except UNREADABLE:
            self.problem(f"a record of the positions topic can't be read: key {key[:80]!r}")
            return
        account = self._account(queue, lane)
        account.positions[gateway] = seq
        account.parked = [
            f"its records for topic {topic} wait from {first} on" for topic, first in parked.items()
        ]

    def statement(self, headers: Headers, value: bytes) -> None:
        """A record of the ledger topic. It is a record, too: tell it with `record` as well."""
        queue = "?"
        try:
            queue = _text(dict(headers).get("tg.queue", b"?"))
            body = json.loads(value)
            kind, queue = body["kind"], str(body.get("of_queue", queue))
            if kind == "salvage":
                self._salvaged(queue, body)
            elif kind == "lost":
                self._lost(str(body["lane"]), body["queues"])
            elif kind == "parted":
                self._parted(str(body["of"]), body)
            else:
                self._told(self._account(queue, str(body["lane"])), kind, body)
        except UNREADABLE as error:
            self.problem(f"a statement of queue {queue} in the ledger can't be read: {error!r}")

    def record(self, place: Place, time_ms: int, headers: Headers) -> None:
        """A record of any topic that gateways deliver to; `time_ms` is its Kafka timestamp."""
        self.records += 1
        if self.records % LOOK_RECORDS == 0:
            self._look_at_memory()
        known = dict(headers)
        try:
            queue, lane, gateway, run = [_text(known[name]) for name in ORIGIN]
            seq = _number(_text(known["tg.seq"]), least=1)
        except UNREADABLE:
            self._foreign += 1
            return
        account = self._account(queue, lane)
        account.gateway = gateway
        account.seen.add(seq)
        gave = account.runs.get(run)
        if gave is None or not gave.first <= seq <= gave.last:
            self._widen(account, run, gave, seq)
        if self._young_after:
            self._look_at_age(account, place, time_ms, seq)

    def problem(self, text: str) -> None:
        """Something kept the audit from seeing all."""
        if len(self._problems) < PROBLEMS_MAX and text not in self._problems:
            self._problems.append(text)

    def topics(self) -> list[str]:
        """All that lanes went to, as the ledger says."""
        return sorted({topic for account in self._accounts.values() for topic in account.topics})

    def findings(self) -> Report:
        self._look_at_memory()
        for (_, lane), account in [*self._accounts.items()]:
            self._hand_back(lane, account)
        lanes = [self._judge(queue, lane, account) for (queue, lane), account in self._accounts.items()]
        return Report(
            lanes=sorted(lanes, key=lambda lane: (lane.gateway, lane.queue, lane.lane)),
            problems=tuple(self._problems),
            records=self.records,
            foreign=self._foreign,
            intervals=self._intervals,
            interval_bytes=self._intervals * INTERVAL_BYTES,
        )

    def _account(self, queue: str, lane: str) -> _Account:
        account = self._accounts.get((queue, lane))
        if account is None:
            if len(self._accounts) >= LANES_MAX:
                raise CommandError(
                    f"there are more than {LANES_MAX} lanes: audit fewer topics at once", EX_DATAERR
                )
            account = self._accounts[queue, lane] = _Account()
            if lane == "ledger":
                account.topics[self._ledger_topic] = 1
        return account

    def _told(self, account: _Account, kind: str, body: Mapping[str, Any]) -> None:
        if kind in TOLD:
            numbers = Range(_number(body["first"]), _number(body["last"]))
            account.explain(TOLD[kind], str(body["reason"]), numbers)
        elif kind == "topics":
            start = _number(body["from_seq"])
            for topic, partitions in body["topics"].items():
                account.goes_to(topic, start, _number(partitions))
        elif kind == "salvaged":
            account.note(
                f"of its numbers up to {_number(body['through'])}, it says, queue {body['queue_id']} had delivered those that it lacks"
            )
        elif kind == "note":
            account.note(str(body["text"]))
        else:
            account.note(f"the ledger says {kind!r}, which this tidegate doesn't know")

    def _salvaged(self, queue: str, story: Mapping[str, Any]) -> None:
        old = str(story["queue_id"])
        for table in story["unread"]:
            self._account(old, "main").note(UNREAD[table])
        for lane in ("main", "ledger"):
            saved = story[lane]
            account = self._account(old, lane)
            for lost in saved["lost"]:
                numbers = Range(_number(lost["first"]), _number(lost["last"]))
                account.damaged.append(
                    (_Reason(Cause.DAMAGED, _stored(lost["from_ms"], lost["to_ms"])), numbers)
                )
            account.note(
                f"its database was damaged ({story['damage']}): {saved['lost_records']} numbers could not be read, and what "
                f"was stored behind {saved['end']}, if anything was, left no trace"
            )
            if not saved["records"]:
                continue
            first, last, records = (_number(saved[name]) for name in ("first", "last", "records"))
            self._account(queue, lane).saved[old] = _pieces(old, saved)
            account.note(
                f"{records} of its records {first} to {last} go on as 1 to {records} of queue {queue}"
            )

    def _parted(self, queue: str, story: Mapping[str, Any]) -> None:
        for lane, told in story["lanes"].items():
            account = self._account(queue, lane)
            account.partings = [_Parting(name, _number(n), _number(m)) for name, (n, m) in told.items()]
            for parting in account.partings:
                account.note(f"its numbers up to {parting.through} are of queue {parting.queue}")
                self._account(parting.queue, lane).note(f"goes on behind {parting.through} as queue {queue}")

    def _lost(self, lane: str, queues: Mapping[str, int]) -> None:
        for queue, last in queues.items():
            self._account(queue, lane).gone.add(_number(last))

    def _widen(self, account: _Account, run: str, gave: Range | None, seq: int) -> None:
        if gave is not None:
            account.runs[run] = Range(min(gave.first, seq), max(gave.last, seq))
        elif len(account.runs) < RUNS_MAX:
            account.runs[run] = Range(seq, seq)
        else:
            account.note(f"more than {RUNS_MAX} runs: not all were compared with each other")

    def _look_at_age(self, account: _Account, place: Place, time_ms: int, seq: int) -> None:
        if place in self._lost_beginnings and seq < account.floors.get(place, seq + 1):
            account.floors[place] = seq
        for topic, deletable_ms in self._young_after.items():
            if time_ms > deletable_ms and seq < account.young.get(topic, seq + 1):
                account.young[topic] = seq

    def _look_at_memory(self) -> None:
        self._intervals = max(self._intervals, sum(account.intervals for account in self._accounts.values()))
        if self._intervals > self._intervals_max:
            raise CommandError(
                f"the numbers in Kafka have more than {self._intervals_max} holes and repetitions: audit fewer topics "
                "at once",
                EX_DATAERR,
            )

    def _hand_back(self, lane: str, account: _Account) -> None:
        """A queue that went on from another takes what is told of that one's last numbers along."""
        for former, through, _ in self._formers(account, lane):
            for reason, told in account.reasons.items():
                for numbers in within(joined(told), [Range(1, through)]):
                    former.explain(*reason, numbers)

    def _formers(self, account: _Account, lane: str) -> Iterator[tuple[_Account, int, int]]:
        """Queues that this one went on from, each once: (account, through, frontier) of the numbers that both have."""
        known, waiting = {id(account)}, [(account, sys.maxsize, sys.maxsize)]
        while waiting:
            one, *most = waiting.pop()
            for queue, *parting in one.partings:
                former = self._account(queue, lane)
                through, frontier = map(min, most, parting)
                if id(former) not in known:
                    known.add(id(former))
                    waiting.append((former, through, frontier))
                    yield waiting[-1]

    def _judge(self, queue: str, lane: str, account: _Account) -> Lane:
        judged = _judged(account)
        if not account.positions:
            account.note("no position in Kafka: judged up to the highest number that is there")
        missing = sorted(self._missing(account, lane, judged))
        counts: dict[Cause, int] = {}
        for first, last, cause, _ in missing:
            counts[cause] = counts.get(cause, 0) + last - first + 1
        twice = joined([*account.seen.repeated(), *self._in_two_queues(account, lane)])
        return Lane(
            gateway=max(account.positions, key=lambda name: account.positions[name], default=account.gateway),
            queue=queue,
            lane=lane,
            judged=judged,
            records=account.seen.added,
            missing=tuple(missing[:RANGES_MAX]),
            counts=counts,
            twice=tuple(twice[:RANGES_MAX]),
            twice_records=sum(numbers.size for numbers in twice),
            clashes=tuple(_clashes(account.runs))[:RANGES_MAX],
            notes=(*account.notes, *account.fates(judged), *account.parked),
        )

    def _in_two_queues(self, account: _Account, lane: str) -> Iterator[Range]:
        """Records that a former queue delivered, and this one again."""
        for former, _, frontier in self._formers(account, lane):
            yield from within(within(account.seen.ranges(), former.seen.ranges()), [Range(1, frontier)])

    def _missing(self, account: _Account, lane: str, judged: int) -> Iterator[Missing]:
        there, reasons = self._accounted(account, lane, judged)
        known = joined([*there, Range(1, account.parted_behind)])
        rest = list(without(joined([Range(1, judged), *(numbers for _, numbers in account.damaged)]), known))
        # What the position says Kafka has was lost by Kafka.
        behind_it = [Range(judged + 1, sys.maxsize)]
        reasons += [(reason, within([numbers], behind_it)) for reason, numbers in account.damaged]
        for reason, told in reasons:
            numbers = joined(told)
            yield from (Missing(*found, *reason) for found in within(rest, numbers))
            rest = list(without(rest, numbers))
        for first, last in rest:
            yield Missing(first, last, Cause.UNEXPLAINED, "")

    def _accounted(
        self, account: _Account, lane: str, judged: int, passed: Sequence[str] = ()
    ) -> tuple[list[Range], list[tuple[_Reason, list[Range]]]]:
        """(numbers that are in Kafka, why others need not be), by this queue and those that it went on from.
        `passed` are the queues that were saved from it, the last one first."""
        there = account.seen.ranges()
        reasons = [*self._reasons(account, lane, judged, passed)]
        for former, _, frontier in self._formers(account, lane):
            common = joined([Range(1, frontier)])
            there += within(former.seen.ranges(), common)
            told_there = self._reasons(former, lane, frontier, passed)
            reasons += [(reason, within(joined(told), common)) for reason, told in told_there]
        return joined(there), reasons

    def _reasons(
        self, account: _Account, lane: str, judged: int, passed: Sequence[str]
    ) -> Iterator[tuple[_Reason, list[Range]]]:
        yield from account.reasons.items()
        for queue, pieces in account.saved.items():
            if queue in passed or len(passed) >= SALVAGES_MAX:
                continue
            old = self._account(queue, lane)
            there, reasons = self._accounted(old, lane, _judged(old), [*passed, queue])
            delivered = _Reason(Cause.SALVAGED, f"delivered by queue {queue} before its database was damaged")
            for reason, told in [(delivered, there), *reasons]:
                yield reason, _renumbered(joined(told), pieces)
        yield from self._expired(account, judged)

    def _expired(self, account: _Account, judged: int) -> Iterator[tuple[_Reason, list[Range]]]:
        """Per topic, the numbers that Kafka may have deleted. A lane of unknown topics may have gone to any."""
        limits: dict[str, float] = dict.fromkeys(self._compacted, math.inf)
        for topic, partition in self._lost_beginnings:
            floor = account.floors.get((topic, partition), math.inf)
            limit = min(floor, account.young.get(topic, math.inf))
            limits[topic] = max(limit, limits.get(topic, 0))
        for topic, limit in sorted(limits.items()):
            start = account.topics.get(topic) if account.topics else 1
            if start is not None and limit > start:
                last = judged if limit == math.inf else int(limit) - 1
                text = "replaced by compaction" if topic in self._compacted else "deleted by retention"
                yield _Reason(Cause.EXPIRED, f"perhaps {text} of topic {topic}"), [Range(start, last)]


def _text(value: bytes | None) -> str:
    """Raises ValueError, TypeError."""
    if value is None:
        raise TypeError("a header without a value")
    return value.decode()


def _number(value: Any, least: int = 0) -> int:
    """Raises ValueError, TypeError, OverflowError."""
    number = int(value)
    if not least <= number <= NUMBER_MAX:
        raise ValueError(f"{number} is no record's number")
    return number


def _judged(account: _Account) -> int:
    return max(account.positions.values(), default=account.seen.highest)


def _pieces(queue: str, saved: Mapping[str, Any]) -> list[Salvaged]:
    """Which numbers the records saved from `queue` had. If more was lost than is told, only those before the last loss
    that is told are known."""
    lost = [Range(_number(one["first"]), _number(one["last"])) for one in saved["lost"]]
    all_told = sum(numbers.size for numbers in lost) == saved["lost_records"]
    known_to = max((numbers.first - 1 for numbers in lost), default=0)
    end = _number(saved["last"]) if all_told else known_to
    return numbered(queue, _number(saved["first"]), end, joined(lost))


def _renumbered(numbers: Sequence[Range], pieces: Sequence[Salvaged]) -> list[Range]:
    """Those of `numbers` that were saved, as they are numbered now."""
    return [
        Range(piece.first + first - piece.old_first, piece.first + last - piece.old_first)
        for piece in pieces
        for first, last in within(numbers, [Range(piece.old_first, piece.old_last)])
    ]


def _stored(from_ms: int | None, to_ms: int) -> str:
    after = "before" if from_ms is None else f"between {_utc(from_ms)} and"
    return f"stored {after} {_utc(to_ms)}, gone with a damaged database"


def _utc(time_ms: int) -> str:
    """The number where no calendar has it."""
    try:
        return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):
        return f"{time_ms} ms"


def _clashes(runs: Mapping[str, Range]) -> Iterator[Clash]:
    """Neighbours by their first number suffice: if any two overlap, two neighbours do."""
    widest: tuple[str, Range] | None = None
    for run, numbers in sorted(runs.items(), key=lambda item: item[1]):
        if widest is not None and numbers.first <= widest[1].last:
            yield Clash(widest[0], run, Range(numbers.first, min(numbers.last, widest[1].last)))
        if widest is None or numbers.last > widest[1].last:
            widest = (run, numbers)
