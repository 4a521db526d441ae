"""make damage: files that are damaged at rest, and whether what starts from them tells the truth.

python -m tests.damage.damage --times 500 --seed 1
python -m tests.damage.damage --seed 1 --only 17
"""

import argparse
import asyncio
import json
import logging
import random
import secrets
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Self

from gateway.clock import SystemClock
from gateway.codec import DecodeError, Entry
from gateway.errors import StorageError, StorageFailing
from gateway.queue import LANES, Queue, Run, Segment, Story
from gateway.sync.lineage import Seen
from gateway.sync.position import Key, Progress, position_at
from gateway.sync.reconcile import Assume, Local, reconcile
from tests.crash.crash import MEMORY, OneThread
from tests.damage.victim import LAST_COMMIT, SCOPE, SHAPE, Victim, make_victims, settings
from tests.damage.wounds import AT_REST, OF_DATABASE, OF_LOG, hurt
from tests.proof import Row, tell

GATEWAY = "plant"
STARTS_MAX = 3
"""A process that finds damage while it runs ends, and the next start puts it right. More would be a loop."""

SILENT = "lost in silence"
HELD = "held"
UNREADABLE_LETTER = "a dead letter can't be read, and its commands say so"
UNKNOWABLE: Mapping[str, int | None] = {
    "log cut short": None,
    "database and log cut short": None,
    "bits flipped anywhere in the log": LAST_COMMIT,
    "bits flipped in the header of a frame": LAST_COMMIT,
}
"""How many records may be lost and nobody says so. How long the log was is written nowhere else; and a last commit that
can't be read is what a power cut leaves of one that was being written. What the log still has of a database that was cut is whole."""


class Untrue(AssertionError):
    """What the gateway did with damaged files, or said of them."""


def law(holds: bool, text: str) -> None:
    if not holds:
        raise Untrue(text)


@dataclass
class Kafka:
    """Survives the gateway, as devices do. `positions` are a number and the runs of its queue; `main` is (queue, number, value);
    `told` are bodies that were acknowledged after the damage."""

    positions: dict[Key, tuple[int, Sequence[Run]]] = field(default_factory=dict)
    main: list[tuple[str, int, bytes]] = field(default_factory=list)
    ledger: list[dict[str, object]] = field(default_factory=list)
    told: list[bytes] = field(default_factory=list)

    @classmethod
    def of(cls, victim: Victim) -> Self:
        """What the victim had delivered."""
        kafka = cls()
        for lane, position in (("main", victim.plan.in_kafka), ("ledger", 0)):
            kafka.positions[Key(GATEWAY, victim.queue_id, lane)] = position, [Run(victim.run, lane, 1)]
        kafka.main += [
            (victim.queue_id, number, value)
            for number, value in enumerate(victim.values[: victim.plan.in_kafka], 1)
            if number != victim.plan.dead
        ]
        return kafka

    def commit(self, lane: str, queue: Queue, segments: Sequence[Segment]) -> None:
        """One transaction: the records, but for dead letters, and the position behind them."""
        dead = queue.buried(lane)
        for segment in segments:
            for number, entry in enumerate(segment.entries, segment.first):
                if lane == "ledger":
                    self.ledger.append(json.loads(entry.value))
                elif number not in dead:
                    self.main.append((queue.queue_id, number, entry.value))
        self.positions[Key(GATEWAY, queue.queue_id, lane)] = segments[-1].last, queue.runs(lane)

    def acknowledged(self, body: bytes) -> None:
        self.told.append(body)


@dataclass
class Found:
    """What became of the samples of one wound."""

    outcomes: Counter[str] = field(default_factory=Counter)
    acknowledged: int = 0
    broken: list[str] = field(default_factory=list)


class Judged(NamedTuple):
    """What became of it; `lost` are all numbers that are nowhere, `silent` those of them of which nobody says so."""

    outcome: str
    lost: int = 0
    silent: int = 0


async def examine(victim: Victim, folder: Path, kafka: Kafka, vfs: str | None = None) -> Judged:
    """Raises Untrue."""
    for start in range(1, STARTS_MAX + 1):
        try:
            return await _start(victim, folder, kafka, vfs)
        except (StorageFailing, StorageError) as error:
            law(start < STARTS_MAX, f"starts again and again: {error}")
    raise AssertionError


async def _start(victim: Victim, folder: Path, kafka: Kafka, vfs: str | None) -> Judged:
    queue = await Queue.open(folder / "queue.db", settings(), SystemClock(), vfs=vfs)
    try:
        held = await _reconciled(queue, kafka)
        if not held:
            await _drain(queue, "main", kafka)
            every = [value for _, _, value in kafka.main]
            law(len(set(every)) == len(every), "a record twice")
        for _ in range(2):  # so that the first one's acknowledgement lies between two commits
            body = b"new" + secrets.token_bytes(8)
            await queue.put([Entry(SHAPE, 0, body)])
            kafka.acknowledged(body)
        if held:
            await _reconciled(queue, kafka, "lost")
        await _drain(queue, "main", kafka)
        law(kafka.main[-1][2] == body, "collection does not go on")
        await queue.put([])
        await _drain(queue, "ledger", kafka)
        judged = await _judged(queue, victim, kafka)
        return judged._replace(outcome=HELD) if held else judged
    finally:
        await queue.close()


async def _reconciled(queue: Queue, kafka: Kafka, assume: Assume | None = None) -> bool:
    """Whether an operator must decide."""
    seen = {
        key: Seen(0, position_at(Progress(number, number), runs, None))
        for key, (number, runs) in kafka.positions.items()
    }
    positions = {}
    for lane in LANES:
        local = Local(
            lane,
            queue.queue_id,
            queue.runs(lane),
            queue.next_seq(lane),
            queue.position(lane),
            queue.past.salvaged(lane),
            queue.past.formers(lane),
            queue.past.maybe({key.queue_id for key in seen}),
            fresh=Key(GATEWAY, queue.queue_id, lane) not in seen,
        )
        verdict = reconcile(local, seen, GATEWAY, assume)
        if verdict.hold is not None:
            return True
        positions[lane] = verdict.position
    for lane, position in positions.items():
        queue.advance(lane, position)
    return False


async def _drain(queue: Queue, lane: str, kafka: Kafka) -> None:
    while segments := await queue.peek(lane, queue.position(lane), 1000, 1 << 20):
        kafka.commit(lane, queue, segments)
        queue.advance(lane, segments[-1].last)
    queue.advance(lane, queue.next_seq(lane) - 1)


async def _judged(queue: Queue, victim: Victim, kafka: Kafka) -> Judged:
    every = [value for _, _, value in kafka.main]
    law(set(kafka.told) <= set(every), "a record of after the damage is lost")
    values = [value for value in every if not value.startswith(b"new")]
    law(set(values) <= set(victim.values), "a record that nobody sent")
    law(
        all(
            victim.values[number - 1] == value
            for queue_id, number, value in kafka.main
            if queue_id == victim.queue_id and not value.startswith(b"new")
        ),
        "two records with the same number",
    )
    letters = await _letters(queue)
    law(letters is None or letters <= set(victim.values), "a dead letter that nobody sent")
    known = set(values) | (letters or {victim.values[victim.plan.dead - 1]})
    missing = {number for number, value in enumerate(victim.values, 1) if value not in known}
    story = queue.stats().salvage
    if victim.clean:
        _judge_what_is_known(queue, victim, missing, story)
    salvaged = queue.queue_id != victim.queue_id
    told, end = _told(kafka.ledger, victim, salvaged)
    if salvaged:
        law(story is not None, "a salvage that nobody tells")
        told_of = {one["queue_id"] for one in kafka.ledger if one["kind"] == "salvage"}
        law(victim.queue_id in told_of, "a salvage that the ledger omits")
        # What was delivered before a salvage it can't know: the audit asks Kafka.
        before = {number for queue_id, number, _ in kafka.main if queue_id == victim.queue_id}
        behind = max([victim.plan.in_kafka, *before])
        law(
            all(victim.values[number - 1] not in values for number in told if number > behind),
            "told as lost, and there",
        )
    silent = {number for number in missing - told if number <= end}
    if silent:
        return Judged(SILENT, len(missing), len(silent))
    words = [
        *(["salvaged"] if salvaged else []),
        *([UNREADABLE_LETTER] if letters is None else []),
        *(["the loss told by number" if missing <= told else "what came behind lost"] if missing else []),
    ]
    return Judged(", ".join(words) or "unharmed", len(missing))


async def _letters(queue: Queue) -> set[bytes] | None:
    """None if one can't be read."""
    try:
        found = await queue.dead([one.id for one in await queue.dead_list(100)])
    except DecodeError:
        return None
    return {one.entry.value for one in found}


def _judge_what_is_known(queue: Queue, victim: Victim, missing: Collection[int], story: Story | None) -> None:
    """Marks and dead letters."""
    unread = story.unread if story is not None else ()
    marks = queue.recall(SCOPE)
    law(marks.items() <= victim.marks.items(), "a mark that nobody set")
    law(len(marks) == len(victim.marks) or "mark" in unread, "marks are lost, and nobody says so")
    law(victim.plan.dead not in missing or "dead" in unread, "a dead letter is lost, and nobody says so")


def _told(ledger: Iterable[dict[str, object]], victim: Victim, salvaged: bool) -> tuple[set[int], int]:
    """Numbers of the victim that are told as lost, and the last one that left a trace."""
    numbers: set[int] = set()
    end = len(victim.values)
    of = victim.queue_id if salvaged else None
    for one in ledger:
        match one:
            case {"kind": "dropped", "lane": "main", "first": int(first), "last": int(last)}:
                if one.get("of_queue") == of:
                    numbers.update(range(first, last + 1))
            case {"kind": "salvage", "main": {"lost": list(lost), "end": int(last)}}:
                if one["queue_id"] == victim.queue_id:
                    numbers.update(
                        number for part in lost for number in range(part["first"], part["last"] + 1)
                    )
                    end = last
    return numbers, end


def sweep(times: int, seed: int, only: int | None = None) -> dict[str, Found]:
    """Every wound so often."""
    logging.disable(logging.CRITICAL)
    found: dict[str, Found] = {}
    with tempfile.TemporaryDirectory(dir=MEMORY) as name, asyncio.Runner(loop_factory=OneThread) as runner:
        scratch = Path(name)
        victims = runner.run(make_victims(scratch))
        samples = [wound for wound in (*OF_DATABASE, *OF_LOG) for _ in range(times)]
        for number, wound in enumerate(samples):
            if only in (None, number):
                rng = random.Random(f"{seed}:{number}")
                victim = victims[0] if wound in OF_LOG else rng.choice(victims)
                _sample(
                    victim, wound, rng, scratch / "files", runner, found.setdefault(wound, Found()), number
                )
    logging.disable(logging.NOTSET)
    return found


def copied(victim: Victim, folder: Path) -> None:
    """Instead of what is there."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(victim.folder, folder)


def tell_rows(found: Mapping[str, Found], command: str) -> None:
    """What is destroyed is lost; the claim is that it is told."""
    for wound, one in found.items():
        fault = "7" if wound in AT_REST else "6"
        told = "but at the log's end" if wound in UNKNOWABLE else "always"
        what = f"{wound}; a loss is told, {told}"
        tell(Row(fault, what, one.outcomes.total(), one.acknowledged, None, 0, None, command))


def _sample(
    victim: Victim,
    wound: str,
    rng: random.Random,
    folder: Path,
    runner: asyncio.Runner,
    found: Found,
    number: int,
) -> None:
    copied(victim, folder)
    hurt(folder, wound, rng)
    found.acknowledged += len(victim.values)
    try:
        judged = runner.run(examine(victim, folder, Kafka.of(victim)))
        law(judged.outcome != HELD, "an operator must decide, though the queue before is known")
    except Untrue as error:
        found.broken.append(f"{number}: {error}")
        judged = Judged("broken")
    found.outcomes[judged.outcome] += 1
    allowed = UNKNOWABLE.get(wound, 0)
    if allowed is not None and judged.silent > allowed:
        found.broken.append(f"{number}: {judged.silent} records are lost, and nobody says so")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--times", type=int, default=200)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1000))
    parser.add_argument("--only", type=int)
    options = parser.parse_args()
    print(f"seed {options.seed}")
    broken = 0
    swept = sweep(options.times, options.seed, options.only)
    for wound, found in swept.items():
        print(
            f"{wound}: "
            + ", ".join(f"{outcome} {times}" for outcome, times in sorted(found.outcomes.items()))
        )
        for text in found.broken[:3]:
            sample, _, why = text.partition(": ")
            again = f"--times {options.times} --seed {options.seed} --only {sample}"
            print(f"    {why}\n    again: python -m tests.damage.damage {again}")
        broken += len(found.broken)
    if not broken and options.only is None:
        tell_rows(swept, f"make damage N={options.times} SEED={options.seed}")
    sys.exit(bool(broken))


if __name__ == "__main__":
    main()
