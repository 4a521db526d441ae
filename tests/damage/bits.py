"""make bits: a small queue that was closed; each bit of its database flipped, each page lost or where another one belongs, in turn.

python -m tests.damage.bits --n 20000 --seed 1
python -m tests.damage.bits --only first:flip:4711:3

One is the first of its board, the other was saved from a damaged one and has not been heard of yet. N=0 takes all cases, else N are
chosen by the seed: half of them of pages, as far as there are so many.
"""

import argparse
import asyncio
import copy
import logging
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from enum import Enum
from itertools import combinations, permutations
from pathlib import Path
from typing import NamedTuple

from gateway.clock import SystemClock
from gateway.queue import Queue
from tests.crash.crash import MEMORY, OneThread
from tests.damage.damage import HELD, SILENT, Kafka, Untrue, copied, examine, law
from tests.damage.victim import LAST_COMMIT, SMALL, Victim, make_victim, settings
from tests.damage.wounds import PAGE, copy_page, swap_pages
from tests.proof import Row, tell

CASES_EACH = 500
FAILURES_MAX = 20
FIRST, SAVED = "first", "saved"


class Kind(Enum):
    FLIP = "one bit of a closed database flipped"
    ZERO = "one page of a closed database all zeroes"
    COPY = "one page's content on another one, too"
    SWAP = "two pages in each other's place"


HELD_SHARE_MAX = 1 / 100
"""An operator decides where damage hit what is known of the queue before."""

MORE = "more than one segment"
MORE_SHARE_MAX = 1 / 10_000
"""The bit is of where a segment goes on: with its pages others are freed, and written over."""


class Case(NamedTuple):
    """Of the FIRST or the SAVED one. FLIP: offset and bit; ZERO: page, 0; the others: page and the other page."""

    victim: str
    kind: Kind
    at: int
    other: int

    def __str__(self) -> str:
        return f"{self.victim}:{self.kind.name.lower()}:{self.at}:{self.other}"

    @classmethod
    def named(cls, text: str) -> "Case":
        victim, kind, at, other = text.split(":")
        return cls(victim, Kind[kind.upper()], int(at), int(other))

    def hurt(self, content: bytearray) -> None:
        match self.kind:
            case Kind.FLIP:
                content[self.at] ^= 1 << self.other
            case Kind.ZERO:
                content[self.at * PAGE : (self.at + 1) * PAGE] = bytes(PAGE)
            case Kind.COPY:
                copy_page(content, self.at, self.other)
            case Kind.SWAP:
                swap_pages(content, self.at, self.other)


class Subject(NamedTuple):
    victim: Victim
    kafka: Kafka
    content: bytes

    @classmethod
    def of(cls, victim: Victim, kafka: Kafka) -> "Subject":
        return cls(victim, kafka, (victim.folder / "queue.db").read_bytes())


@dataclass
class Found:
    outcomes: dict[Kind, Counter[str]] = field(default_factory=dict)
    acknowledged: Counter[Kind] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def add(self, other: "Found") -> None:
        for kind, outcomes in other.outcomes.items():
            self.outcomes.setdefault(kind, Counter()).update(outcomes)
        self.acknowledged.update(other.acknowledged)
        self.failures += other.failures


async def make_subjects(folder: Path) -> dict[str, Subject]:
    first = await make_victim(folder / FIRST, clean=True, plan=SMALL)
    kafka = Kafka.of(first)
    saved, delivered = folder / SAVED, first.plan.delivered
    shutil.copytree(first.folder, saved)
    (saved / "queue.damaged").write_text("seen in use")
    queue = await Queue.open(saved / "queue.db", settings(), SystemClock())
    await queue.close()
    shutil.rmtree(saved / "quarantine")
    plan = SMALL._replace(delivered=0, in_kafka=SMALL.in_kafka - delivered, dead=SMALL.dead - delivered)
    second = replace(first, folder=saved, plan=plan, queue_id=queue.queue_id, values=first.values[delivered:])
    return {
        FIRST: Subject.of(first, kafka),
        SAVED: Subject.of(second, replace(kafka, main=kafka.main[delivered:])),
    }


def choose(sizes: dict[str, int], count: int, seed: int) -> list[Case]:
    """`sizes` of the databases, bytes."""
    chance = random.Random(seed)
    pages = [
        Case(name, kind, *both)
        for name, size in sizes.items()
        for kind, pairs in (
            (Kind.ZERO, ((page, 0) for page in range(size // PAGE))),
            (Kind.COPY, permutations(range(size // PAGE), 2)),
            (Kind.SWAP, combinations(range(size // PAGE), 2)),
        )
        for both in pairs
    ]
    bits = [
        Case(name, Kind.FLIP, at, bit)
        for name, size in sizes.items()
        for at in range(size)
        for bit in range(8)
    ]
    if count:
        pages = chance.sample(pages, min(count // 2, len(pages)))
        bits = chance.sample(bits, min(count - len(pages), len(bits)))
    return pages + bits


def run(subjects: dict[str, Subject], cases: Sequence[Case]) -> Found:
    logging.disable(logging.CRITICAL)
    found = Found()
    with tempfile.TemporaryDirectory(dir=MEMORY) as name, asyncio.Runner(loop_factory=OneThread) as runner:
        for case in cases:
            victim, kafka, content = subjects[case.victim]
            folder = Path(name) / "files"
            copied(victim, folder)
            hurt = bytearray(content)
            case.hurt(hurt)
            (folder / "queue.db").write_bytes(hurt)
            try:
                judged = runner.run(examine(victim, folder, copy.deepcopy(kafka)))
                law(judged.outcome != SILENT, SILENT)
                law(
                    judged.outcome != HELD or case.victim == SAVED,
                    "an operator must decide, though nothing is in doubt",
                )
                outcome = judged.outcome
                if case.kind is Kind.FLIP and judged.lost > LAST_COMMIT:
                    outcome = f"{outcome}: {MORE}"
            except Untrue as error:
                outcome = str(error)
                found.failures.append(f"{error}: python -m tests.damage.bits --only {case}")
            found.outcomes.setdefault(case.kind, Counter())[outcome] += 1
            found.acknowledged[case.kind] += len(victim.values)
    logging.disable(logging.NOTSET)
    return found


def sweep(count: int, seed: int, processes: int = 2, only: Sequence[Case] = ()) -> Found:
    found = Found()
    with tempfile.TemporaryDirectory(dir=MEMORY) as name, ProcessPoolExecutor(processes) as pool:
        with asyncio.Runner(loop_factory=OneThread) as runner:
            subjects = runner.run(make_subjects(Path(name)))
        sizes = {name: len(subject.content) for name, subject in subjects.items()}
        cases = only or choose(sizes, count, seed)
        parts = [cases[begin : begin + CASES_EACH] for begin in range(0, len(cases), CASES_EACH)]
        for part in pool.map(run, [subjects] * len(parts), parts):
            found.add(part)
    held = sum(outcomes[HELD] for outcomes in found.outcomes.values())
    if not only and held > len(cases) * HELD_SHARE_MAX:
        found.failures.append(f"an operator must decide in {held} of {len(cases)} cases")
    more = sum(
        times for outcome, times in found.outcomes.get(Kind.FLIP, {}).items() if outcome.endswith(MORE)
    )
    if more > max(1, len(cases) * MORE_SHARE_MAX):
        found.failures.append(f"{MORE} lost in {more} of {len(cases)} cases")
    return found


def tell_rows(found: Found, command: str) -> None:
    for kind, outcomes in found.outcomes.items():
        what = f"{kind.value}; a loss is told, always"
        tell(Row("6", what, outcomes.total(), found.acknowledged[kind], None, 0, None, command))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--n", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=Case.named, nargs="+", default=())
    options = parser.parse_args()
    found = sweep(options.n, options.seed, only=options.only)
    for kind, outcomes in found.outcomes.items():
        told = ", ".join(f"{outcome} {times}" for outcome, times in sorted(outcomes.items()))
        print(f"{kind.value}: {told}")
    for failure in found.failures[:FAILURES_MAX]:
        print(f"    {failure}")
    if not found.failures and not options.only:
        tell_rows(found, f"make bits N={options.n} SEED={options.seed}")
    sys.exit(bool(found.failures))


if __name__ == "__main__":
    main()
