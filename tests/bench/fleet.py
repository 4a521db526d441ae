"""What a central audit of a fleet's day costs: its books, fed as a reader of Kafka would feed them.

python -m tests.bench.fleet [--gateways 1000] [--records 8640]
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import islice
from zlib import crc32

from gateway.audit.books import Books, Headers
from tests.bench.row import Row

GATEWAYS, RECORDS = 1000, 8640
"""A record of each every ten seconds, for a day."""

DEVICES = 10
PARTITIONS = 24
FETCHED = 500
"""Records of one partition that a reader gets before those of the next."""

RUN_RECORDS = 2000
TIME_MS = 1_700_000_000_000
Message = tuple[int, Headers]
"""(partition, headers)"""


def messages(gateways: int, records: int) -> Iterator[Message]:
    """As they lie in the partitions, all gateways side by side, each partition read ahead of the others by FETCHED."""
    dice = random.Random(1)
    waiting: list[list[Message]] = [[] for _ in range(PARTITIONS)]
    for seq in range(1, records + 1):
        for gateway in range(gateways):
            name = f"gw-{gateway:04}"
            partition = crc32(f"{name}/{dice.randrange(DEVICES)}".encode()) % PARTITIONS
            waiting[partition].append((partition, headers(name, seq)))
            if len(waiting[partition]) == FETCHED:
                yield from waiting[partition]
                waiting[partition].clear()
    for rest in waiting:
        yield from rest


def headers(gateway: str, seq: int, lane: str = "main") -> Headers:
    return (
        ("tg.driver", b"mqtt"),
        ("tg.device", b"pump-3"),
        ("tg.channel", b"plant/pump-3"),
        ("tg.gateway", gateway.encode()),
        ("tg.queue", f"queue-of-{gateway}".encode()),
        ("tg.run", b"%08d" % (seq // RUN_RECORDS)),
        ("tg.lane", lane.encode()),
        ("tg.seq", b"%d" % seq),
    )


def measure(gateways: int, records: int) -> dict[str, float]:
    books = Books("tidegate-ledger")
    memory_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(gateways):
        key = f"gw-{number:04}/queue-of-gw-{number:04}/main"
        books.position(key.encode(), json.dumps({"seq": records}).encode())
    coming = messages(gateways, records)
    spent = 0.0
    while batch := list(islice(coming, FETCHED)):
        began = time.process_time()
        for partition, about in batch:
            books.record(("telemetry", partition), TIME_MS, about)
        spent += time.process_time() - began
    report = books.findings()
    if not all(lane.complete and lane.sound for lane in report.lanes):
        raise SystemExit("a fleet that delivered everything was found incomplete")
    return {
        "lanes": len(report.lanes),
        "records": report.records,
        "us": spent / report.records * 1e6,
        "ranges": report.intervals,
        "more_mb": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory_kb) / 1024,
        "mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def rows() -> Iterator[Row]:
    answer = subprocess.run(
        [sys.executable, "-m", "tests.bench.fleet"], check=True, capture_output=True, text=True
    )
    found = json.loads(answer.stdout)
    yield Row(
        f"audit of a day of {found['lanes']:,} gateways, {found['records']:,} records, all complete",
        f"{found['mb']:.0f} MB, {found['more_mb']:.0f} of them for the numbers, at most {found['ranges']:,} ranges; "
        f"{found['us']:.1f} us CPU a record, reading Kafka not included",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gateways", type=int, default=GATEWAYS)
    parser.add_argument("--records", type=int, default=RECORDS)
    given = parser.parse_args()
    print(json.dumps(measure(given.gateways, given.records)))


if __name__ == "__main__":
    main()
