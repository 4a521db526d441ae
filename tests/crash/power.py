"""Power cuts at every operation of a trace: what each leaves on the disk is opened, drained and judged by the laws."""

import hashlib
import random
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from gateway.errors import TidegateError
from tests.crash.disk import KINDS, Disk, Image, Kind
from tests.crash.laws import Broken, examine
from tests.crash.promises import Event, Promises
from tests.crash.recorder import Recorder, recording
from tests.crash.stepped import SteppedClock, SteppedLoop
from tests.crash.workload import Trace

RECOVERIES = 50
"""One recovery in so many is cut again, ..."""
RECOVERY_IMAGES = 10
"""... so often."""


class Cut(NamedTuple):
    """After so many operations; `pick` seeds what of the unsynced is on the disk. `again`: the cut of the recovery."""

    operations: int
    kind: Kind
    pick: int
    again: "Cut | None" = None

    def __str__(self) -> str:
        text = f"{self.operations}:{self.kind}:{self.pick}"
        return text if self.again is None else f"{text}/{self.again}"

    @classmethod
    def parse(cls, text: str) -> "Cut":
        first, _, rest = text.partition("/")
        operations, kind, pick = first.split(":")
        [known] = [one for one in KINDS if one == kind]
        return cls(int(operations), known, int(pick), cls.parse(rest) if rest else None)


class Verdict(NamedTuple):
    cut: Cut
    broken: str


@dataclass
class Judged:
    """`acknowledged` is the sum over all images."""

    images: Counter[str] = field(default_factory=Counter)
    acknowledged: Counter[str] = field(default_factory=Counter)
    broken: list[Verdict] = field(default_factory=list)


class Court:
    """Judges images, each content once."""

    def __init__(self, folder: Path, loop: SteppedLoop, when_full: str) -> None:
        self.judged = Judged()
        self._folder = folder
        self._loop = loop
        self._when_full = when_full
        self._seen: set[bytes] = set()

    def sweep(self, trace: Trace, rng: random.Random, images: int) -> None:
        """About so many images, spread over the whole trace."""
        quota = images / sum(not callable(step) for step in trace)
        owed = 0.0
        for operations, disk, promises in _moments(trace, Disk({}), Promises()):
            owed += quota
            misses = 0
            for kind in _kinds(rng):
                if owed <= 0 or misses == len(KINDS):
                    break
                new = self._judge(Cut(operations, kind, rng.getrandbits(32)), disk, promises)
                owed -= new
                misses += not new

    def replay(self, trace: Trace, cut: Cut) -> None:
        for operations, disk, promises in _moments(trace, Disk({}), Promises()):
            if operations == cut.operations:
                self._judge(cut, disk, promises)

    def _judge(self, cut: Cut, disk: Disk, promises: Promises) -> int:
        """How many images it was: none if it is known."""
        image = disk.image(cut.kind, random.Random(cut.pick))
        if self._known(image):
            return 0
        again = cut.again is not None or cut.pick % RECOVERIES == 0
        promises = promises.at_this_cut()
        at_cut = promises.at_this_cut()
        trace: Trace = []
        self._examine(image, promises, cut, cut.kind, trace if again else None)
        if not again:
            return 1
        operations = sum(not callable(step) for step in trace)
        rng = random.Random(cut.pick)
        cuts = [cut.again] if cut.again else _cuts_of_a_recovery(operations, rng)
        return 1 + sum(self._judge_again(cut._replace(again=second), trace, image, at_cut) for second in cuts)

    def _judge_again(self, cut: Cut, trace: Trace, image: Image, at_cut: Promises) -> int:
        second = cut.again
        assert second is not None
        for operations, disk, promises in _moments(trace, Disk(image), at_cut.at_this_cut()):
            if operations == second.operations:
                image = disk.image(second.kind, random.Random(second.pick))
                if self._known(image):
                    return 0
                self._examine(image, promises.at_this_cut(), cut, "recovery", None)
        return 1

    def _known(self, image: Image) -> bool:
        digest = hashlib.sha256()
        for name, content in sorted(image.items()):
            digest.update(f"{name} {len(content)} ".encode())
            digest.update(content)
        known = digest.digest() in self._seen
        self._seen.add(digest.digest())
        return known

    def _examine(self, image: Image, promises: Promises, cut: Cut, kind: str, trace: Trace | None) -> None:
        self.judged.images[kind] += 1
        self.judged.acknowledged[kind] += promises.acknowledged
        lay_out(image, self._folder)
        clock = SteppedClock(self._loop)

        def promise(event: Event) -> None:
            event(promises)
            if trace is not None:
                trace.append(event)

        try:
            if trace is None:
                work = examine(self._folder, promises, self._when_full, clock, promise)
                self._loop.run_until_complete(work)
            else:
                with recording(Recorder(self._folder, image, trace.append)) as vfs:
                    work = examine(self._folder, promises, self._when_full, clock, promise, vfs)
                    self._loop.run_until_complete(work)
        except (Broken, TidegateError) as error:
            self.judged.broken.append(Verdict(cut, f"{type(error).__name__}: {error}"))


def lay_out(image: Image, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, content in image.items():
        (folder / name).write_bytes(content)


def _kinds(rng: random.Random) -> Iterator[Kind]:
    """Each once, then those of which there are many."""
    yield from rng.sample(KINDS, len(KINDS))
    while True:
        yield rng.choice(KINDS[2:])


def _moments(trace: Trace, disk: Disk, promises: Promises) -> Iterator[tuple[int, Disk, Promises]]:
    """After each operation and what was promised before the next one began."""
    operations = 0
    for step in trace:
        if callable(step):
            step(promises)
            continue
        if operations:
            yield operations, disk, promises
        disk.do(step)
        operations += 1
    yield operations, disk, promises


def _cuts_of_a_recovery(operations: int, rng: random.Random) -> Sequence[Cut]:
    return [
        Cut(rng.randint(1, operations), rng.choice(KINDS), rng.getrandbits(32))
        for _ in range(RECOVERY_IMAGES)
    ]
