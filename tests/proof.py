"""tests/PROOF.md: what was broken on purpose, how often, and what it cost. Written by the runs, never by hand.

A run that was asked to (`PROOF=file`) appends a line to that file for each fault it injected; `python -m tests.proof file`
takes them into the page: lines of one fault are added up, with all their commands. They replace what the page said of it
before if the fault was injected as often at least, or if something was lost or came twice: a short run takes nothing
away from what a long one showed, and no run hides what went wrong in it.
"""

import json
import os
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

PAGE = Path(__file__).with_name("PROOF.md")
ASKED = "PROOF"

INJECTED = "injected"
"""The property in which a test says what it injected, where that depends on the machine."""

FAULTS = {
    "1": "kill -9 at a random time",
    "2": "kill -9, an error or a delay at a chosen system call",
    "3": "power cut: what was not synced is lost, kept, reordered or torn (simulated disk)",
    "4": "power cut: a copy of a mounted ext4",
    "5": "fsync fails",
    "6": "a damaged page, a read error",
    "7": "database or log cut short, emptied or missing",
    "8": "disk full",
    "9": "slow disk",
    "10": "file system turns read-only",
    "11": "link down",
    "12": "link silent (half-open)",
    "13": "link slow, with delay and cuts",
    "14": "connection cut within a request or an answer",
    "15": "the end of a transaction arrives late",
    "16": "broker stopped for a while",
    "17": "broker killed, leaders and coordinators move",
    "18": "all brokers down and back at other ports",
    "19": "too few replicas in sync",
    "20": "transaction times out",
    "21": "a second gateway with our id",
    "22": "database restored from an older image",
    "23": "database lost, moved or copied to another board",
    "24": "topics deleted, partitions added",
    "25": "topic missing",
    "26": "record too large",
    "27": "clock wrong or jumping",
    "28": "certificate expired, rotated or wrong",
    "29": "password wrong or withdrawn",
    "30": "broker throttles",
    "31": "MQTT: cut or killed at each step of QoS 1 and 2, DUP storms",
    "32": "hostile clients",
    "33": "malformed input",
    "34": "CoAP: repeated messages, block floods",
    "35": "Modbus and serial lines: noise, late and wrong answers",
    "36": "no memory, no descriptors",
    "37": "event loop or storage thread hangs or dies",
    "38": "told to end while brokers are down",
    "soak": "all drivers, faults by seed, for a long time",
}

RECOVERY_S_MAX = {"11": 5.0, "17": 10.0, "32": 10.0}
"""What is delivered later than so long after one of these faults is marked on the page; a test would say it of a busy machine too."""

HEAD = """# Proof

What tidegate was put through, and what it cost. The tables below are written by the runs (`make proof`); each row names the
command that repeats it. *acknowledged* are records that a device was told are accepted; *lost* and *twice* are counted by a
reader of Kafka (`read_committed`) or of the drained queue that shares no code with the sync. *recovery* is the longest time from the fault's end to the
first record that is delivered again; where that should have been sooner, `>` says how soon.

## Not covered

- **A card that lies about flush**, and then loses power: records that were acknowledged in its cache are lost. The gateway
  sees it afterwards when Kafka has records that the disk lost, and says so; where the lost tail was not delivered nobody
  can know. `tidegate doctor pull-plug` and `after-plug` find such a card beforehand, if somebody pulls the plug.
- **The end of the write-ahead log damaged at rest after a crash**, or cut off: SQLite and we take it for a commit that a
  power cut left unfinished. The records in it (of up to 4 MiB of log) are lost and nobody is told, unless Kafka had them.
- Real SD cards, real power switches, real radio links: everything here is simulated on one machine.
- **Packets lost or out of order on the way to Kafka** can't be made on the machine that these ran on (no netem): a proxy cuts,
  silences, delays and throttles links instead.
- **Errors of the block device, below the file system**, neither (no dm-flakey): strace makes system calls fail, a file system of
  SQLite's kind (VFS) reads, writes and syncs.
- **A damaged -shm file**: there is none, the database is opened in exclusive locking mode.
- **The whole back-off in some recovery times**: the gateway of the rows of 21, 22 and 23 tries again after 0.05 to 0.2 s, not after 1 to
  4 s. That of 24 looks every 0.5 s, that of 25 every 0.3 s, not every 10 s, whether a topic that it could not write can be written.
"""


class Row(NamedTuple):
    """`times` the fault was injected. `recovery_s` is the longest, None where there is nothing to recover."""

    fault: str
    what: str
    times: int
    acknowledged: int | None
    lost: int | None
    twice: int | None
    recovery_s: float | None
    command: str


def tell(row: Row) -> None:
    """Note a row if the run was asked for its proof. Raises KeyError for a fault that the page has no heading for."""
    assert FAULTS[row.fault]
    where = os.environ.get(ASKED)
    if where:
        with Path(where).open("a") as file:
            file.write(json.dumps(row) + "\n")


def added_up(rows: Iterable[Row]) -> dict[tuple[str, str], Row]:
    sums: dict[tuple[str, str], Row] = {}
    for row in rows:
        before = sums.get((row.fault, row.what))
        if before is not None:
            row = row._replace(
                times=before.times + row.times,
                acknowledged=_sum(before.acknowledged, row.acknowledged),
                lost=_sum(before.lost, row.lost),
                twice=_sum(before.twice, row.twice),
                recovery_s=max(filter(None, (before.recovery_s, row.recovery_s)), default=None),
                command="; ".join(dict.fromkeys((*before.command.split("; "), row.command))),
            )
        sums[row.fault, row.what] = row
    return sums


def _sum(one: int | None, other: int | None) -> int | None:
    return None if one is None and other is None else (one or 0) + (other or 0)


def page(rows: Mapping[tuple[str, str], Row]) -> str:
    text = HEAD
    missing = [number for number in FAULTS if not any(fault == number for fault, _ in rows)]
    for number in missing:
        text += f"- {FAULTS[number]} ({number}): no run has written a row yet.\n"
    for number, heading in FAULTS.items():
        found = [row for row in rows.values() if row.fault == number]
        if found:
            text += f"\n## {number}: {heading}\n\n"
            text += "| what | times | acknowledged | lost | twice | recovery, s | command |\n|---|---|---|---|---|---|---|\n"
            for row in sorted(found):
                cells = [
                    row.what,
                    row.times,
                    *map(_count, row[3:6]),
                    _seconds(row.recovery_s, RECOVERY_S_MAX.get(number)),
                    f"`{row.command}`",
                ]
                text += "| " + " | ".join(map(str, cells)) + " |\n"
    return text


def _count(number: int | None) -> str:
    return "-" if number is None else f"{number:,}"


def _seconds(seconds: float | None, most: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds:.1f}" if most is None or seconds <= most else f"{seconds:.1f}>{most:g}"


def written(text: str) -> dict[tuple[str, str], Row]:
    """The rows of a page."""
    rows, fault = {}, ""
    for line in text.splitlines():
        if heading := re.fullmatch(r"## (\w+): .+", line):
            fault = heading[1]
        elif cells := re.fullmatch(
            r"\| (.+) \| (\d+) \| (\S+) \| (\S+) \| (\S+) \| (\S+) \| `(.+)` \|", line
        ):
            acknowledged, lost, twice = (
                None if cell == "-" else int(cell.replace(",", "")) for cell in cells.groups()[2:5]
            )
            recovery = None if cells[6] == "-" else float(cells[6].partition(">")[0])
            rows[fault, cells[1]] = Row(
                fault, cells[1], int(cells[2]), acknowledged, lost, twice, recovery, cells[7]
            )
    return rows


def main(file: Path) -> None:
    rows = written(PAGE.read_text()) if PAGE.exists() else {}
    for key, row in added_up(Row(*json.loads(line)) for line in file.read_text().splitlines()).items():
        if key not in rows or row.times >= rows[key].times or row.lost or row.twice:
            rows[key] = row
    PAGE.write_text(page(rows))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
