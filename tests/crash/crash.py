"""make crash: simulated power cuts, each judged. A failure prints the command that repeats it.

python -m tests.crash.crash --images 100000 --seed 1
python -m tests.crash.crash --life 1003 --cut 436:torn:3529882839
"""

import argparse
import logging
import multiprocessing
import random
import secrets
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from gateway.queue import Queue
from tests.crash.power import Court, Cut, Judged
from tests.crash.stepped import SteppedLoop
from tests.crash.workload import record
from tests.proof import Row, tell

STEPS = 60
"""Of a life: about 1,500 operations on the disk."""

LIFE_IMAGES = 5_000
LIVES_OF_A_SEED = 1_000
TOLD_MAX = 5

KINDS = {
    "lost": "all that was not synced is lost",
    "kept": "all that was not synced is kept",
    "reordered": "some of the writes that were not synced are kept",
    "torn": "some sectors of the writes that were not synced are kept",
    "recovery": "cut again while it recovers",
}
MEMORY = Path("/dev/shm")


def judge(life: int, images: int = 0, cut: Cut | None = None, queue_class: type[Queue] = Queue) -> Judged:
    """One life by its seed, with power cuts spread over it, or one that is known."""
    logging.disable(logging.CRITICAL)  # a queue that refuses says so, in thousands of images
    loop = SteppedLoop()
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as scratch:
        lived = record(Path(scratch, "life"), life, STEPS, loop, queue_class)
        court = Court(Path(scratch, "image"), loop, lived.when_full)
        if cut is None:
            court.sweep(lived.trace, random.Random(life), images)
        else:
            court.replay(lived.trace, cut)
    loop.close()
    logging.disable(logging.NOTSET)
    return court.judged


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1000))
    parser.add_argument("--life", type=int)
    parser.add_argument("--cut", type=Cut.parse)
    options = parser.parse_args()
    if options.life is not None:
        judged = judge(options.life, LIFE_IMAGES, options.cut)
        _show(options.life, judged)
        sys.exit(bool(judged.broken))
    sys.exit(bool(_run(options.images, options.seed)))


def _run(images: int, seed: int) -> int:
    """How many images broke a law."""
    began = time.monotonic()
    print(f"seed {seed}")
    lives = [seed * LIVES_OF_A_SEED + number for number in range(max(2, round(images / LIFE_IMAGES)))]
    found: Counter[str] = Counter()
    acknowledged: Counter[str] = Counter()
    broken = 0
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        work = partial(judge, images=images // len(lives))
        for life, judged in zip(lives, pool.map(work, lives), strict=True):
            _show(life, judged)
            found += judged.images
            acknowledged += judged.acknowledged
            broken += len(judged.broken)
    print(
        f"{found.total()} different images in {time.monotonic() - began:.0f} s: "
        + ", ".join(f"{kind} {count}" for kind, count in sorted(found.items()))
        + f"; {broken} broke a law"
    )
    command = f"make crash N={images} SEED={seed}"
    for kind in found if not broken else ():
        tell(Row("3", KINDS[kind], found[kind], acknowledged[kind], 0, 0, None, command))
    return broken


def _show(life: int, judged: Judged) -> None:
    for cut, text in judged.broken[:TOLD_MAX]:
        print(f"{text}\n    python -m tests.crash.crash --life {life} --cut {cut}")
    if len(judged.broken) > TOLD_MAX:
        print(f"... and {len(judged.broken) - TOLD_MAX} more of life {life}")


if __name__ == "__main__":
    main()
