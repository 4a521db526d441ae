"""make interrupted: power cuts while a damaged queue is set aside and saved. What an undisturbed start saves is saved all the same.

python -m tests.damage.interrupted --images 5000 --seed 1
python -m tests.damage.interrupted --seed 1 --replay "database missing" 31:TORN:2
"""

import argparse
import asyncio
import copy
import logging
import random
import secrets
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pytest

from gateway.errors import TidegateError
from gateway.queue import Queue, Segment
from tests.crash.crash import DRAWS, MEMORY, Cut, OneThread, cuts, image_of
from tests.crash.disk import DIRECTORY, Disk, Fate, Operation, fingerprint, lay_out
from tests.crash.recorder import Recorder
from tests.damage.damage import Kafka, Untrue, examine, law
from tests.damage.victim import Victim, make_victims
from tests.damage.wounds import OF_DATABASE, OF_LOG, hurt
from tests.proof import Row, tell

AGAIN_SHARE, AGAIN_IMAGES = 1 / 50, 25
"""Of the images, the start is recorded too, and cut again."""

KILL_SHARE = 1 / 10
"""Of the images with names that are not safe: what comes after a kill in their place is cut, too."""

DATA = "data"

KILLED = -1
"""In place of a draw: no power cut. What was not safe stays so, and a second process goes on from what the first one saw."""

DRAWS_MAX = 20
"""A wound is chosen again until it is seen at the start, and something can be saved."""


class Watched(Kafka):
    """Notes what it knew after how many operations of the disk."""

    moments: list[tuple[int, Kafka]]
    operations: Sequence[Operation]

    @classmethod
    def watch(cls, kafka: Kafka, operations: Sequence[Operation]) -> "Watched":
        one = cls(**copy.deepcopy(vars(kafka)))
        one.operations, one.moments = operations, [(0, copy.deepcopy(kafka))]
        return one

    def commit(self, lane: str, queue: Queue, segments: Sequence[Segment]) -> None:
        super().commit(lane, queue, segments)
        self._note()

    def acknowledged(self, body: bytes) -> None:
        super().acknowledged(body)
        self._note()

    def _note(self) -> None:
        fields = {name: value for name, value in vars(self).items() if name in Kafka.__dataclass_fields__}
        self.moments.append((len(self.operations), Kafka(**copy.deepcopy(fields))))


class Trace(NamedTuple):
    """What a start does to the disk that it finds, and what Kafka and devices knew by then."""

    disk: Disk
    operations: Sequence[Operation]
    moments: Sequence[tuple[int, Kafka]]


@dataclass
class Found:
    images: int = 0
    acknowledged: int = 0
    failures: list[str] = field(default_factory=list)


def record(victim: Victim, disk: Disk, kafka: Kafka, seed: str) -> Trace:
    """What was not safe on the disk before is not made safe by the start of a process."""
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory(dir=MEMORY) as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(secrets, "token_hex", lambda size: rng.randbytes(size).hex())
        patch.setattr(secrets, "token_bytes", rng.randbytes)
        names = disk.seen_names()
        for path, number in names.items():
            if number == DIRECTORY:
                (Path(name) / path).mkdir(parents=True, exist_ok=True)
        lay_out(disk.image(Fate.KEPT, rng), Path(name))
        recorder = Recorder(Path(name), names)
        watched = Watched.watch(kafka, recorder.operations)
        with recorder.recording(), asyncio.Runner(loop_factory=OneThread) as runner:
            runner.run(examine(victim, Path(name) / DATA, watched, recorder.vfs))
    return Trace(disk, recorder.operations, watched.moments)


def moments(trace: Trace) -> Iterator[tuple[int, Disk, Kafka]]:
    disk = copy.deepcopy(trace.disk)
    for number in range(len(trace.operations) + 1):
        if number:
            disk.happens(trace.operations[number - 1])
        yield number, disk, [kafka for known, kafka in trace.moments if known <= number][-1]


class Account(NamedTuple):
    """`values`: what Kafka has in the end of what devices sent before the damage. `silent` records are lost untold."""

    outcome: str
    silent: int
    values: set[bytes]


def account(victim: Victim, image: Mapping[str, bytes], kafka: Kafka) -> Account:
    """Raises Untrue, TidegateError."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as name, asyncio.Runner(loop_factory=OneThread) as runner:
        lay_out(image, Path(name))
        judged = runner.run(examine(victim, Path(name) / DATA, kafka))
    return Account(judged.outcome, judged.silent, {value for _, _, value in kafka.main} & set(victim.values))


class Sweep:
    """Of one wound."""

    def __init__(self, victims: Sequence[Victim], wound: str, seed: str) -> None:
        """`victims`: one that was killed, one that was stopped."""
        self._seed = f"{seed} {wound}"
        self._wound = wound
        rng = random.Random(self._seed)
        self.victim = victims[0] if wound in OF_LOG else rng.choice(victims)
        for _ in range(DRAWS_MAX):
            self.disk = Disk(_hurt(self.victim, wound, rng))
            image = self.disk.image(Fate.KEPT, rng)
            self._undisturbed = account(self.victim, image, Kafka.of(self.victim))
            saved = len(self._undisturbed.values) > self.victim.plan.in_kafka
            self.has_something_to_lose = saved and self._undisturbed.outcome.startswith("salvaged")
            if self.has_something_to_lose:
                break
        self._again = f"python -m tests.damage.interrupted --seed {seed} --replay '{wound}'"
        self.found = Found()

    def trace(self, disk: Disk, kafka: Kafka, trail: tuple[Cut, ...] = ()) -> Trace:
        return record(self.victim, disk, kafka, f"{self._seed} {trail}")

    def look(self, image: Mapping[str, bytes], kafka: Kafka) -> None:
        """Raises Untrue, TidegateError."""
        told = len(kafka.told)
        found = account(self.victim, image, kafka)
        lost = self._undisturbed.values - found.values
        law(not lost, f"{len(lost)} records that an undisturbed start saves are lost")
        law(found.silent <= self._undisturbed.silent, f"{found.silent} are lost, and nobody says so")
        self.found.acknowledged += len(self.victim.values) + told

    def cut(self, trace: Trace, images_max: int, trail: tuple[Cut, ...] = ()) -> None:
        rng = random.Random(f"{self._seed} {trail}")
        # Files are moved within a few operations of hundreds: half of the images are of those.
        kinds = Counter(disk.names_are_safe for _, disk, _ in moments(trace))
        seen: set[tuple[int, int]] = set()
        for number, disk, kafka in moments(trace):
            for cut in cuts(number, disk):
                if rng.random() > images_max / 2 / (kinds[disk.names_are_safe] * sum(DRAWS.values())):
                    continue
                image = image_of(0, disk, cut)
                content = fingerprint(image), id(kafka)
                if content in seen:
                    continue
                seen.add(content)
                self.found.images += 1
                known = copy.deepcopy(kafka)
                try:
                    self.look(image, copy.deepcopy(kafka))
                except (Untrue, TidegateError) as error:
                    where = " ".join(map(str, (*trail, cut)))
                    self.found.failures.append(f"{self._wound}: {error}\n    again: {self._again} {where}")
                    continue
                if not trail and rng.random() < AGAIN_SHARE:
                    self.cut(self.trace(Disk(image), known, (cut,)), AGAIN_IMAGES, (cut,))
                if not trail and not disk.names_are_safe and rng.random() < KILL_SHARE:
                    kill = Cut(number, Fate.KEPT, KILLED)
                    self.cut(self.trace(copy.deepcopy(disk), known, (kill,)), AGAIN_IMAGES, (kill,))


def _victims(folder: Path) -> list[Victim]:
    with asyncio.Runner(loop_factory=OneThread) as runner:
        return runner.run(make_victims(folder))


def _hurt(victim: Victim, wound: str, rng: random.Random) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory(dir=MEMORY) as name:
        folder = Path(name) / DATA
        shutil.copytree(victim.folder, folder)
        hurt(folder, wound, rng)
        return {f"{DATA}/{file.name}": file.read_bytes() for file in folder.iterdir() if file.is_file()}


def sweep(images: int, seed: str) -> Found:
    """About so many images, as many of each wound."""
    logging.disable(logging.CRITICAL)
    total = Found()
    with tempfile.TemporaryDirectory(dir=MEMORY) as name:
        victims = _victims(Path(name))
        wounds = [*OF_DATABASE, *OF_LOG]
        for wound in wounds:
            one = Sweep(victims, wound, seed)
            if not one.has_something_to_lose:
                continue
            one.cut(one.trace(one.disk, Kafka.of(one.victim)), images // len(wounds))
            total.images += one.found.images
            total.acknowledged += one.found.acknowledged
            total.failures += one.found.failures
    logging.disable(logging.NOTSET)
    return total


def replay(seed: str, wound: str, trail: Sequence[Cut]) -> None:
    """Raises Untrue, TidegateError."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as name:
        one = Sweep(_victims(Path(name)), wound, seed)
        disk, kafka = one.disk, Kafka.of(one.victim)
        for depth, cut in enumerate(trail):
            for number, later, known in moments(one.trace(disk, kafka, tuple(trail[:depth]))):
                if number == cut.operation:
                    disk = later if cut.draw == KILLED else Disk(image_of(0, later, cut))
                    kafka = copy.deepcopy(known)
                    break
        one.look(disk.image(Fate.KEPT, random.Random()), kafka)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--seed", default=str(secrets.randbelow(1000)))
    parser.add_argument("--replay", nargs="+", metavar=("WOUND", "OPERATION:FATE:DRAW"))
    options = parser.parse_args()
    if options.replay:
        wound, *where = options.replay
        replay(options.seed, wound, [Cut.named(one) for one in where])
        return
    found = sweep(options.images, options.seed)
    print("\n".join(found.failures[:20]))
    print(f"{found.images} power cuts from seed {options.seed}, {len(found.failures)} broken promises")
    tell_row(found, f"make interrupted N={options.images} SEED={options.seed}")
    sys.exit(bool(found.failures))


def tell_row(found: Found, command: str) -> None:
    what = "while a damaged database is set aside and saved"
    tell(Row("3", what, found.images, found.acknowledged, len(found.failures), 0, None, command))


if __name__ == "__main__":
    main()
