"""Power cuts by the thousand: a workload is recorded once, then the power goes at every operation.

python -m tests.crash.crash [--images 100000] [--seed 1] [--processes 2]
python -m tests.crash.crash --seed 7 --replay 812:TORN:3
"""

import argparse
import asyncio
import itertools
import logging
import random
import secrets
import sys
import tempfile
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import apsw
import pytest

from gateway.errors import TidegateError
from gateway.queue import Queue
from tests.crash.disk import Disk, Fate, Operation, fingerprint, lay_out
from tests.crash.promise import Broken, Promise, Remark, TestClock
from tests.crash.recorder import Recorder
from tests.crash.workload import Workload, settings
from tests.proof import Row, tell

T = TypeVar("T")

MEMORY = Path("/dev/shm")
STEPS = 60
IMAGES_EACH = 2000
AHEAD = 4
AGAIN_SHARE, AGAIN_STEPS, AGAIN_IMAGES = 1 / 50, 3, 25
"""Of the images, the start-up and a few calls after it are recorded too, and cut again."""

FAILURES_MAX = 5
"""Of one workload: more say nothing new."""

DRAWS = {Fate.LOST: 1, Fate.KEPT: 1, Fate.REORDERED: 3, Fate.TORN: 3}


class OneThread(asyncio.SelectorEventLoop):
    """Without the queue's thread a trace is the same each time, and an image takes a third of the time."""

    def run_in_executor(self, _executor: object, func: Callable[..., T], *args: Any) -> asyncio.Future[T]:  # type: ignore[override]
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except (TidegateError, apsw.Error, OSError) as error:
            future.set_exception(error)
        return future


def run_in_one_thread(work: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=OneThread) as runner:
        runner.run(work)


class Trace(NamedTuple):
    """`before` is what lay on the disk, and what was promised, when the recording began."""

    before: Mapping[str, bytes]
    promise: Promise
    operations: list[Operation]
    remarks: list[tuple[int, Remark]]


class Cut(NamedTuple):
    """After so many operations."""

    operation: int
    fate: Fate
    draw: int

    def __str__(self) -> str:
        return f"{self.operation}:{self.fate.name}:{self.draw}"

    @classmethod
    def named(cls, text: str) -> "Cut":
        operation, fate, draw = text.split(":")
        return cls(int(operation), Fate[fate], int(draw))


class Failure(NamedTuple):
    """With more than one cut: the start after the first was cut again."""

    seed: int
    cuts: tuple[Cut, ...]
    why: str

    def __str__(self) -> str:
        where = " ".join(map(str, self.cuts))
        return f"{self.why}\n  again: python -m tests.crash.crash --seed {self.seed} --replay {where}"


@dataclass
class Found:
    """`images` by fate, no two alike; `acknowledged` are records that were promised in an image, summed over all."""

    images: Counter[Fate] = field(default_factory=Counter)
    acknowledged: Counter[Fate] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)

    def add(self, other: "Found") -> None:
        self.images += other.images
        self.acknowledged += other.acknowledged
        self.failures += other.failures


def record(seed: int, before: Mapping[str, bytes], promise: Promise, steps: int) -> Trace:
    """What a queue does to its disk while a workload goes on; the same for the same seed."""
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory(dir=MEMORY) as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(secrets, "token_hex", lambda size: rng.randbytes(size).hex())
        folder = Path(name)
        lay_out(before, folder)
        recorder = Recorder(folder, Disk(before).names)
        workload = Workload(recorder, promise, rng)
        with recorder.recording():
            run_in_one_thread(workload.run(steps))
    return Trace(before, promise, recorder.operations, workload.remarks)


def moments(trace: Trace) -> Iterator[tuple[int, Disk, Promise]]:
    """(operations so far, the disk, what was promised) at every operation; the same objects each time."""
    disk, promise = Disk(trace.before), trace.promise.copy()
    remarks = deque(trace.remarks)
    for number in range(len(trace.operations) + 1):
        if number:
            disk.happens(trace.operations[number - 1])
        while remarks and remarks[0][0] <= number:
            promise.happens(remarks.popleft()[1])
        yield number, disk, promise


def image_of(seed: int, disk: Disk, cut: Cut) -> dict[str, bytes]:
    return disk.image(cut.fate, random.Random(f"{seed}:{cut.operation}:{cut.fate.name}:{cut.draw}"))


async def look(image: Mapping[str, bytes], promise: Promise) -> None:
    """Starts the queue from an image and drains it. Raises Broken, TidegateError."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        lay_out(image, Path(folder))
        clock = TestClock()
        queue = await Queue.open(Path(folder) / "data" / "queue.db", settings("drop_oldest"), clock)
        try:
            await promise.copy().is_kept_by(queue, clock)
        finally:
            await queue.close()


def cuts(number: int, disk: Disk) -> Iterator[Cut]:
    fates = {Fate.KEPT: 1} if disk.is_safe else DRAWS
    return (Cut(number, fate, draw) for fate, draws in fates.items() for draw in range(draws))


def cut_power(trace: Trace, seed: int, images_max: int, trail: tuple[Cut, ...] = ()) -> Found:
    """About so many images at most, from all over the trace; `trail` are the cuts before it. An image is looked at again once
    more was promised. Some are started under record, and the power goes again."""
    found = Found()
    again: list[tuple[Cut, Mapping[str, bytes], Promise]] = []
    rng = random.Random(seed)
    with asyncio.Runner(loop_factory=OneThread) as runner:
        for cut, image, promise in images(trace, seed, images_max, found):
            try:
                runner.run(look(image, promise))
            except (Broken, TidegateError) as error:
                found.failures.append(Failure(seed, (*trail, cut), f"{type(error).__name__}: {error}"))
                if len(found.failures) >= FAILURES_MAX:
                    return found
                continue
            if not trail and rng.random() < AGAIN_SHARE:
                again.append((cut, image, promise.copy()))
    for cut, image, promise in again:
        found.add(cut_power(record(seed, image, promise, AGAIN_STEPS), seed, AGAIN_IMAGES, (cut,)))
    return found


def images(
    trace: Trace, seed: int, images_max: int, found: Found
) -> Iterator[tuple[Cut, Mapping[str, bytes], Promise]]:
    """Counted in `found`."""
    seen: dict[int, set[int]] = {}
    rng = random.Random(seed)
    chance = images_max / sum(1 for number, disk, _ in moments(trace) for _ in cuts(number, disk))
    for number, disk, promise in moments(trace):
        for cut in cuts(number, disk):
            if rng.random() > chance:
                continue
            image = image_of(seed, disk, cut)
            content = fingerprint(image)
            if promise.version in seen.get(content, ()):
                continue
            if content not in seen:
                found.images[cut.fate] += 1
                found.acknowledged[cut.fate] += promise.acknowledged
            seen.setdefault(content, set()).add(promise.version)
            yield cut, image, promise


def run(seed: int, images_max: int) -> Found:
    return cut_power(record(seed, {}, Promise(), STEPS), seed, images_max)


def sweep(images: int, seed: int, processes: int) -> Found:
    """Workload by workload until there are so many images."""
    total, seeds = Found(), itertools.count(seed)
    waiting: deque[tuple[int, Future[Found]]] = deque()
    with ProcessPoolExecutor(processes) as pool:
        while (left := images - total.images.total()) > 0:
            # Results are taken in order: more waiting, or who is done first has nothing to do.
            ahead = AHEAD * processes
            while len(waiting) < ahead and (more := left - sum(share for share, _ in waiting)) > 0:
                share = min(more // (ahead - len(waiting)) + 1, IMAGES_EACH)
                waiting.append((share, pool.submit(run, next(seeds), share)))
            total.add(waiting.popleft()[1].result())
    return total


def replay(seed: int, trail: Sequence[Cut]) -> None:
    """Raises Broken, TidegateError."""
    image: Mapping[str, bytes] = {}
    before = Promise()
    for depth, cut in enumerate(trail):
        trace = record(seed, image, before, AGAIN_STEPS if depth else STEPS)
        for number, disk, promise in moments(trace):
            if number == cut.operation:
                image, before = image_of(seed, disk, cut), promise.copy()
    run_in_one_thread(look(image, before))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--replay", nargs="+", metavar="OPERATION:FATE:DRAW")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    if arguments.replay:
        replay(arguments.seed, [Cut.named(text) for text in arguments.replay])
        return
    found = sweep(arguments.images, arguments.seed, arguments.processes)
    tell_rows(found, f"make crash N={arguments.images} SEED={arguments.seed}")
    for failure in found.failures[:20]:
        print(failure)
    print(
        f"{found.images.total()} power cuts from seed {arguments.seed}: {len(found.failures)} broken promises"
    )
    sys.exit(bool(found.failures))


def tell_rows(found: Found, command: str) -> None:
    for fate, images in found.images.items():
        broken = sum(failure.cuts[-1].fate is fate for failure in found.failures)
        tell(Row("3", fate.value, images, found.acknowledged[fate], broken, 0, None, command))


if __name__ == "__main__":
    main()
