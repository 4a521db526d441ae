"""Compares what devices were told with what a read_committed consumer sees. Knows nothing of the gateway's code.

Devices write journals, one JSON object a line for each message that was acknowledged to them:
    {"driver": "floor", "device": "press-1", "id": "press-1/17", "n": 17, "sends": 1}
in DIRECTORY/*.jsonl. `id` is unique, `n` counts up per device, `sends` says how often the message was sent until it was
acknowledged. The message's body is JSON and carries the same `id`, `device` and `n`; what else is in it does not matter.
Readings {"device": "line-1", "values": {"count": 17, ...}} count themselves: DIRECTORY/<driver>.readings holds the bodies
that are known to be stored.

Nobody tells a device that is polled, or that talks by itself, whether its reading is safe. So such devices write down what
they served, before it leaves them, in DIRECTORY/<driver>.served; `count` grows, `time` is the machine's monotonic clock:
    {"device": "meter-1", "time": 81.5, "values": {"count": 17, "check": 4081, ...}}
A reading in Kafka must have exactly the values that were served with its count. One without any value says only that the
device did not answer: it counts as nothing.

    judge.py --bootstrap 127.0.0.1:9092 --journals DIRECTORY [--kills FILE --unacked SECONDS]
             [--continuous] [--watch] [--json] TOPIC...

lost          acknowledged, or served outside the window, and not in Kafka
in window     served and not in Kafka, where that may be: from --unacked seconds before a kill of the gateway until it was
              back. The kills stand in FILE, one {"killed": time, "back": time} a line; without them there is no window. A
              gateway that runs has no excuse, with a link or without, and what was served last none either
wrong         in Kafka, but never served, or with other values than were served; of served readings only
twice         in Kafka more often than it may be. A message that its device sent again because no acknowledgement came
              may be there once for each time it was sent if the copies say so (header tg.dup); those are `again`.
out of order  in Kafka behind a later message of the same device, or in another partition than the device's others
unasked       in Kafka, but in no journal: nobody was told, so this is no failure
--continuous  the numbers that the gateway gave (headers tg.queue, tg.lane, tg.seq) must be there from 1 on, each once
--watch       first look on: twice a second a line {"in_kafka": {driver: n}, "drained": {driver: s}}, until standard
              input ends; then the verdict, as the last line. `in_kafka` counts each message once. Anything written to
              standard input starts a clock: `drained` says after how many seconds all was there that had been
              acknowledged when it started, null before

Exit code 0: clean. 1: not clean. 2: could not judge.
"""

import argparse
import dataclasses
import json
import os
import select
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence, Set
from pathlib import Path
from typing import Any, NamedTuple, cast

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka import Message as KafkaMessage

READ_S = 120.0
REPORT_S = 0.5
SILENT_S = 20.0
POLL_S = 0.1
POLL_MESSAGES = 1000

Window = tuple[float, float]
"""From when to when readings that nobody waits for may be lost."""


class Message(NamedTuple):
    topic: str
    partition: int
    offset: int
    headers: dict[str, bytes]
    body: bytes


@dataclasses.dataclass
class Account:
    accepted: int = 0
    in_kafka: int = 0
    lost: int = 0
    in_window: int = 0
    wrong: int = 0
    twice: int = 0
    again: int = 0
    out_of_order: int = 0
    unasked: int = 0
    drain_s: float | None = None

    def clean(self) -> bool:
        return not (self.lost or self.twice or self.out_of_order or self.wrong)


@dataclasses.dataclass
class Numbers:
    """The gateway's own numbers, over all queues and lanes."""

    highest: int = 0
    missing: int = 0
    twice: int = 0
    unnumbered: int = 0

    def clean(self) -> bool:
        return not (self.missing or self.twice or self.unnumbered)


class Copies:
    """How often one message is in Kafka, and how many of the copies say that the device sent again."""

    __slots__ = ("marked", "total")

    def __init__(self) -> None:
        self.total = 0
        self.marked = 0

    def surplus(self, sends: int) -> tuple[int, int]:
        """(twice, again)"""
        unmarked = self.total - self.marked
        twice = max(unmarked - 1, self.total - sends, 0)
        return twice, self.total - 1 - twice


def read_journals(directory: Path) -> Iterator[dict[str, Any]]:
    """What is told in whole lines; somebody may be writing the next one."""
    for path in sorted(directory.glob("*.jsonl")):
        for line in path.read_text().split("\n")[:-1]:
            yield json.loads(line)
    for path in sorted(directory.glob("*.readings")):
        for line in path.read_text().split("\n")[:-1]:
            identity, _, _ = _identity(json.loads(line))
            yield {"driver": path.stem, "id": identity, "sends": 1}
    for path in served_in(directory):
        for line in path.read_text().split("\n")[:-1]:
            served = json.loads(line)
            identity, _, _ = _identity(served)
            yield {"driver": path.stem, "id": identity, "time": served["time"], "values": served["values"]}


def served_in(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.served"))


def read_windows(kills: Path | None, unacked_s: float) -> list[Window]:
    lines = kills.read_text().split("\n")[:-1] if kills else []
    return [(kill["killed"] - unacked_s, kill["back"]) for kill in map(json.loads, lines)]


def in_window(line: dict[str, Any], windows: Sequence[Window]) -> bool:
    return "time" in line and any(begin <= line["time"] <= end for begin, end in windows)


def read_topics(bootstrap: str, topics: Sequence[str]) -> Iterator[Message]:
    """All that is committed now, each partition in order."""
    consumer = _consumer(bootstrap)
    try:
        unfinished = _assign(consumer, topics)
        deadline = time.monotonic() + READ_S
        while unfinished:
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"{len(unfinished)} partitions were not read to their end in {READ_S:.0f} s"
                )
            message = consumer.poll(0.5)
            if message is None:
                continue
            if message.error():
                unfinished.discard((message.topic() or "", message.partition() or 0))
                continue
            yield _read(message)
    finally:
        consumer.close()


def _consumer(bootstrap: str) -> Consumer:
    return Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "judge",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
            "auto.offset.reset": "earliest",
            "log_level": 0,
        }
    )


def _assign(consumer: Consumer, topics: Sequence[str]) -> set[tuple[str, int]]:
    known = consumer.list_topics(timeout=10).topics
    partitions = [(topic, number) for topic in topics for number in known[topic].partitions]
    consumer.assign([TopicPartition(topic, number, 0) for topic, number in partitions])
    return set(partitions)


def _read(message: KafkaMessage) -> Message:
    return Message(
        message.topic() or "",
        message.partition() or 0,
        message.offset() or 0,
        dict(cast(list[tuple[str, bytes]], message.headers() or [])),
        message.value() or b"",
    )


class Follower:
    """Reads on and on. After its only broker was started again librdkafka's consumer rarely stays without a connection for
    good (its issue 4916): after some silence another one goes on."""

    def __init__(self, bootstrap: str, topics: Sequence[str]) -> None:
        self._bootstrap = bootstrap
        self._consumer = _consumer(bootstrap)
        self._offsets = dict.fromkeys(_assign(self._consumer, topics), 0)
        self._heard = time.monotonic()

    def read(self) -> list[Message]:
        """After POLL_S at the latest."""
        found = [_read(one) for one in self._consumer.consume(POLL_MESSAGES, POLL_S) if not one.error()]
        for message in found:
            self._offsets[message.topic, message.partition] = message.offset + 1
        now = time.monotonic()
        if found:
            self._heard = now
        elif now > self._heard + SILENT_S:
            self._consumer.close()
            self._consumer = _consumer(self._bootstrap)
            self._consumer.assign([TopicPartition(*place, offset) for place, offset in self._offsets.items()])
            self._heard = now
        return found

    def close(self) -> None:
        self._consumer.close()


class Watch:
    """Counts what arrives, and how long it takes until all is there that was acknowledged when the clock started."""

    def __init__(self, journals: Path, windows: Callable[[], Sequence[Window]]) -> None:
        self.drained: dict[str, float | None] = {}
        self._journals = journals
        self._windows = windows
        self._seen: dict[str, set[str]] = defaultdict(set)
        self._awaited: dict[str, set[str]] = {}
        self._started = 0.0

    def run(self, bootstrap: str, topics: Sequence[str]) -> None:
        """Until standard input ends."""
        follower = Follower(bootstrap, topics)
        try:
            report_at = time.monotonic()
            while True:
                for message in follower.read():
                    self._see(message)
                if select.select([sys.stdin], [], [], 0)[0]:
                    if not os.read(sys.stdin.fileno(), 4096):
                        return
                    self._start_clock()
                if time.monotonic() >= report_at:
                    report_at += REPORT_S
                    counts = {driver: len(seen) for driver, seen in self._seen.items()}
                    print(json.dumps({"in_kafka": counts, "drained": self.drained}), flush=True)
        finally:
            follower.close()

    def _see(self, message: Message) -> None:
        try:
            identity, _, _ = _identity(json.loads(message.body))
        except (ValueError, KeyError, TypeError):
            return
        driver = message.headers.get("tg.driver", b"?").decode()
        self._seen[driver].add(identity)
        awaited = self._awaited.get(driver)
        if awaited and identity in awaited:
            awaited.discard(identity)
            if not awaited:
                self.drained[driver] = round(time.monotonic() - self._started, 2)

    def _start_clock(self) -> None:
        self._started = time.monotonic()
        self._awaited = defaultdict(set)
        windows = self._windows()
        for line in read_journals(self._journals):
            if not in_window(line, windows):
                self._awaited[line["driver"]].add(line["id"])
        for driver, awaited in self._awaited.items():
            awaited -= self._seen[driver]
            self.drained[driver] = None if awaited else 0.0


class Judge:
    """`served` are the drivers whose devices write down what they served."""

    def __init__(self, served: Set[str]) -> None:
        self._served = served
        self._values: dict[tuple[str, str], dict[str, Any]] = {}
        self.accounts: dict[str, Account] = defaultdict(Account)
        self.numbers = Numbers()
        self._copies: dict[tuple[str, str], Copies] = defaultdict(Copies)
        self._latest: dict[tuple[str, str], tuple[str, int, int]] = {}
        self._numbers: Counter[tuple[str, str, int]] = Counter()

    def read(self, message: Message) -> None:
        driver = message.headers.get("tg.driver", b"?").decode()
        account = self.accounts[driver]
        account.in_kafka += 1
        self._count_number(message.headers)
        content: Any = None
        try:
            content = json.loads(message.body)
            identity, device, n = _identity(content)
            if driver in self._served:
                self._values.setdefault((driver, identity), content["values"])
        except (ValueError, KeyError, TypeError):
            nothing = isinstance(content, dict) and content.get("values") == {}
            account.in_kafka -= nothing and driver in self._served
            account.wrong += not nothing and driver in self._served
            return
        copies = self._copies[driver, identity]
        copies.total += 1
        copies.marked += "tg.dup" in message.headers
        if copies.total == 1:
            self._check_order(driver, message, device, n)

    def compare(self, journal: Iterator[dict[str, Any]], windows: Sequence[Window]) -> None:
        told = set()
        for line in journal:
            account = self.accounts[line["driver"]]
            account.accepted += 1
            told.add((line["driver"], line["id"]))
            copies = self._copies.get((line["driver"], line["id"]))
            if copies is None:
                excused = in_window(line, windows)
                account.in_window += excused
                account.lost += not excused
                continue
            if "values" in line:
                account.twice += copies.total - 1
                account.wrong += self._values[line["driver"], line["id"]] != line["values"]
                continue
            twice, again = copies.surplus(line["sends"])
            account.twice += twice
            account.again += again
        for (driver, identity), copies in self._copies.items():
            if (driver, identity) not in told:
                self.accounts[driver].wrong += driver in self._served
                self.accounts[driver].unasked += driver not in self._served
                self.accounts[driver].twice += max(copies.total - copies.marked - 1, 0)
        highest: dict[tuple[str, str], int] = {}
        for queue, lane, number in self._numbers:
            highest[queue, lane] = max(highest.get((queue, lane), 0), number)
        self.numbers.highest = sum(highest.values())
        self.numbers.missing = self.numbers.highest - len(self._numbers)
        self.numbers.twice = self._numbers.total() - len(self._numbers)

    def _count_number(self, headers: dict[str, bytes]) -> None:
        try:
            number = int(headers["tg.seq"])
            self._numbers[headers["tg.queue"].decode(), headers["tg.lane"].decode(), number] += 1
        except KeyError:
            self.numbers.unnumbered += 1

    def _check_order(self, driver: str, message: Message, device: str, n: int) -> None:
        topic, partition, latest = self._latest.get((driver, device), (message.topic, message.partition, -1))
        if (topic, partition) != (message.topic, message.partition) or n < latest:
            self.accounts[driver].out_of_order += 1
        self._latest[driver, device] = (topic, partition, max(n, latest))


def _identity(content: dict[str, Any]) -> tuple[str, str, int]:
    """(id, device, n)"""
    if "id" in content:
        return content["id"], content["device"], content["n"]
    count = int(content["values"]["count"])
    return f"{content['device']}/{count}", content["device"], count


def as_text(judge: Judge, continuous: bool) -> str:
    columns = [field.name for field in dataclasses.fields(Account)]
    lines = ["driver".ljust(12) + "".join(column.replace("_", " ").rjust(14) for column in columns)]
    for driver, account in sorted(judge.accounts.items()):
        values = dataclasses.asdict(account)
        cells = ("-" if values[column] is None else f"{values[column]:,}" for column in columns)
        lines.append(driver.ljust(12) + "".join(cell.rjust(14) for cell in cells))
    if continuous:
        numbers = judge.numbers
        lines.append(
            f"sequence numbers: 1 to {numbers.highest:,}, {numbers.missing:,} missing, {numbers.twice:,} twice, "
            f"{numbers.unnumbered:,} records without one"
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Is every acknowledged message in Kafka exactly once, in order?"
    )
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--journals", required=True, type=Path)
    parser.add_argument("--kills", type=Path, metavar="FILE", help="when the gateway was killed, and back")
    parser.add_argument("--unacked", type=float, default=0, metavar="SECONDS", help="what a kill may cost")
    parser.add_argument("--continuous", action="store_true", help="check the gateway's sequence numbers, too")
    parser.add_argument("--watch", action="store_true", help="look on until standard input ends, then judge")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("topics", nargs="+", metavar="TOPIC")
    options = parser.parse_args()
    watch = Watch(options.journals, lambda: read_windows(options.kills, options.unacked))
    try:
        if options.watch:
            watch.run(options.bootstrap, options.topics)
        judge = Judge({path.stem for path in served_in(options.journals)})
        for message in read_topics(options.bootstrap, options.topics):
            judge.read(message)
        windows = read_windows(options.kills, options.unacked)
        judge.compare(read_journals(options.journals), windows)
    except (KafkaException, OSError, KeyError, ValueError) as error:
        print(f"could not judge: {error!r}", file=sys.stderr)
        return 2
    for driver, drain_s in watch.drained.items():
        judge.accounts[driver].drain_s = drain_s
    clean = all(account.clean() for account in judge.accounts.values())
    clean &= judge.numbers.clean() or not options.continuous
    window_s = round(sum(end - begin for begin, end in windows), 2)
    if options.json:
        drivers = {driver: dataclasses.asdict(account) for driver, account in judge.accounts.items()}
        numbers = dataclasses.asdict(judge.numbers)
        print(json.dumps({"clean": clean, "drivers": drivers, "numbers": numbers, "window_s": window_s}))
    else:
        print(as_text(judge, options.continuous), f"window: {window_s:g} s", sep="\n")
        print("CLEAN" if clean else "NOT CLEAN")
    return 0 if clean else 1


if __name__ == "__main__":
    sys.exit(main())
