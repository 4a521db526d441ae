"""Compares what devices were told with what a read_committed consumer sees. Knows nothing of the gateway's code.

Devices write journals, one JSON object a line for each message that was acknowledged to them:
    {"driver": "floor", "device": "press-1", "id": "press-1/17", "n": 17, "sends": 1}
in DIRECTORY/*.jsonl. `id` is unique, `n` counts up per device, `sends` says how often the message was sent until it was
acknowledged. The message's body is JSON and carries the same `id`, `device` and `n`; what else is in it does not matter.
Readings {"device": "line-1", "values": {"count": 17, ...}} count themselves: DIRECTORY/<driver>.readings holds the bodies
that are known to be stored.

    judge.py --bootstrap 127.0.0.1:9092 --journals DIRECTORY [--continuous] [--json] TOPIC...

lost          acknowledged, not in Kafka
twice         in Kafka more often than it may be. A message that its device sent again because no acknowledgement came
              may be there once for each time it was sent if the copies say so (header tg.dup); those are `again`.
out of order  in Kafka behind a later message of the same device, or in another partition than the device's others
unasked       in Kafka, but in no journal: nobody was told, so this is no failure
--continuous  the numbers that the gateway gave (headers tg.queue, tg.lane, tg.seq) must be there from 1 on, each once

Exit code 0: clean. 1: not clean. 2: could not judge.
"""

import argparse
import dataclasses
import json
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

from confluent_kafka import Consumer, KafkaException, TopicPartition

READ_S = 120.0


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
    twice: int = 0
    again: int = 0
    out_of_order: int = 0
    unasked: int = 0

    def clean(self) -> bool:
        return not (self.lost or self.twice or self.out_of_order)


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
    for path in sorted(directory.glob("*.jsonl")):
        for line in path.read_text().splitlines():
            yield json.loads(line)
    for path in sorted(directory.glob("*.readings")):
        for line in path.read_text().splitlines():
            identity, _, _ = _identity(json.loads(line))
            yield {"driver": path.stem, "id": identity, "sends": 1}


def read_topics(bootstrap: str, topics: Sequence[str]) -> Iterator[Message]:
    """All that is committed now, each partition in order."""
    consumer = Consumer(
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
    try:
        known = consumer.list_topics(timeout=10).topics
        partitions = [(topic, number) for topic in topics for number in known[topic].partitions]
        consumer.assign([TopicPartition(topic, number, 0) for topic, number in partitions])
        unfinished = set(partitions)
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
            yield Message(
                message.topic() or "",
                message.partition() or 0,
                message.offset() or 0,
                dict(cast(list[tuple[str, bytes]], message.headers() or [])),
                message.value() or b"",
            )
    finally:
        consumer.close()


class Judge:
    def __init__(self) -> None:
        self.accounts: dict[str, Account] = defaultdict(Account)
        self.numbers = Numbers()
        self._copies: dict[tuple[str, str], Copies] = defaultdict(Copies)
        self._latest: dict[tuple[str, str], tuple[str, int, int]] = {}
        self._numbers: Counter[tuple[str, str, int]] = Counter()

    def read(self, message: Message) -> None:
        driver = message.headers.get("tg.driver", b"?").decode()
        self.accounts[driver].in_kafka += 1
        self._count_number(message.headers)
        try:
            identity, device, n = _identity(json.loads(message.body))
        except (ValueError, KeyError, TypeError):
            return
        copies = self._copies[driver, identity]
        copies.total += 1
        copies.marked += "tg.dup" in message.headers
        if copies.total == 1:
            self._check_order(driver, message, device, n)

    def compare(self, journal: Iterator[dict[str, Any]]) -> None:
        told = set()
        for line in journal:
            account = self.accounts[line["driver"]]
            account.accepted += 1
            told.add((line["driver"], line["id"]))
            copies = self._copies.get((line["driver"], line["id"]))
            if copies is None:
                account.lost += 1
                continue
            twice, again = copies.surplus(line["sends"])
            account.twice += twice
            account.again += again
        for (driver, identity), copies in self._copies.items():
            if (driver, identity) not in told:
                self.accounts[driver].unasked += 1
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
    count = content["values"]["count"]
    return f"{content['device']}/{count}", content["device"], count


COLUMNS = ("accepted", "in_kafka", "lost", "twice", "again", "out_of_order", "unasked")


def as_text(judge: Judge, continuous: bool) -> str:
    lines = ["driver".ljust(12) + "".join(column.replace("_", " ").rjust(14) for column in COLUMNS)]
    for driver, account in sorted(judge.accounts.items()):
        values = dataclasses.asdict(account)
        lines.append(driver.ljust(12) + "".join(f"{values[column]:,}".rjust(14) for column in COLUMNS))
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
    parser.add_argument("--continuous", action="store_true", help="check the gateway's sequence numbers, too")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("topics", nargs="+", metavar="TOPIC")
    options = parser.parse_args()
    judge = Judge()
    try:
        for message in read_topics(options.bootstrap, options.topics):
            judge.read(message)
        judge.compare(read_journals(options.journals))
    except (KafkaException, OSError, KeyError, ValueError) as error:
        print(f"could not judge: {error!r}", file=sys.stderr)
        return 2
    clean = all(account.clean() for account in judge.accounts.values())
    clean &= judge.numbers.clean() or not options.continuous
    if options.json:
        drivers = {driver: dataclasses.asdict(account) for driver, account in judge.accounts.items()}
        print(json.dumps({"clean": clean, "drivers": drivers, "numbers": dataclasses.asdict(judge.numbers)}))
    else:
        print(as_text(judge, options.continuous))
        print("CLEAN" if clean else "NOT CLEAN")
    return 0 if clean else 1


if __name__ == "__main__":
    sys.exit(main())
