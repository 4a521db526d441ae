"""`make fuzz`: hostile input for everything that reads what others wrote, guided by the branches that it takes.

Inputs that reach a new branch are changed further. Only documented errors may escape; an input in pieces must give what it
gives whole; what was taken must read as the same when it is written again; work is bounded by the input's length, and
memory doesn't grow. A fault ends a run with the input and the command that repeats it.
"""

import argparse
import gc
import multiprocessing
import random
import resource
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.fuzz import coap, fieldbus, http, mqtt, stored
from tests.fuzz.branches import Branches, Place, joined
from tests.fuzz.mutate import Mutator
from tests.fuzz.target import Target
from tests.proof import Row, tell

TARGETS = {target.name: target for group in (mqtt, http, coap, fieldbus, stored) for target in group.TARGETS}
PROCESSES = 2
CORPUS_MAX = 2000
TRACED_EVERY, SELDOM_TRACED_EVERY = 16, 256
"""Tracing costs fifty times an input, and new branches are mostly seen in small ones, and early."""

LARGE_BYTES = 400
EARLY_INPUTS = 100_000

HANG_S = 20.0
"""Of the process's time."""

GROWTH_BYTES_MAX = 32 << 20
SHOWN_BYTES_MAX = 4096


class Found(Exception):
    """A fault, with what repeats it."""


class Result(NamedTuple):
    """`branches` of `branches_all` conditional jumps' outcomes were taken, `seeds_branches` by the seeds alone.
    `work_max` is the most bytecodes that an input of more than 100 bytes took for each of its bytes."""

    name: str
    inputs: int
    accepted: int
    corpus: int
    seeds_branches: int
    branches: int
    branches_all: int
    work_max: float
    seconds: float
    by_file: dict[str, tuple[set[Place], int]]


def fuzz(target: Target, count: int, seed: str) -> Result:
    """Raises Found."""
    began = time.monotonic()
    chance = random.Random(f"{seed} {target.name}")
    branches = Branches(target.modules)
    corpus = list(target.seeds)
    mutator = Mutator(chance, target.tokens, corpus)
    accepted, seeds_branches, work_max, memory = 0, 0, 0.0, 0
    for number in range(-len(target.seeds), count):
        data = mutator.next() if number >= 0 else target.seeds[number]
        often = number < EARLY_INPUTS and len(data) < LARGE_BYTES
        traced = number < 0 or number % (TRACED_EVERY if often else SELDOM_TRACED_EVERY) == 0
        before = len(branches.taken)
        try:
            accepted += once(target, data, chance, branches if traced else None)
        except Exception as error:
            shown = data[:SHOWN_BYTES_MAX].hex() + ("..." if len(data) > SHOWN_BYTES_MAX else "")
            place = traceback.format_exc(limit=-6)
            raise Found(f"{target.name}, input {number}, {len(data)} bytes: {place}{shown}") from error
        if number < 0:
            seeds_branches = len(branches.taken)
        elif traced:
            if len(branches.taken) > before and len(corpus) < CORPUS_MAX:
                corpus.append(data)
            if len(data) > 100:
                work_max = max(work_max, branches.steps / len(data))
        if number == count // 4:
            memory = _resident_bytes()
    grown = _resident_bytes() - memory
    if count > 10_000 and grown > GROWTH_BYTES_MAX:
        raise Found(f"{target.name}: {grown >> 20} MiB more after {count} inputs of seed {seed!r}")
    return Result(
        target.name,
        count,
        accepted,
        len(corpus),
        seeds_branches,
        len(branches.taken),
        len(branches.all),
        work_max,
        time.monotonic() - began,
        branches.by_file(),
    )


def once(target: Target, data: bytes, chance: random.Random, branches: Branches | None) -> bool:
    """Raises whatever is a fault."""
    accepted = False

    def call() -> None:
        nonlocal accepted
        accepted = target.run(data, chance)

    signal.setitimer(signal.ITIMER_PROF, HANG_S)
    try:
        if branches is None:
            call()
        else:
            branches.trace(call)
            bound = target.work_per_byte * (len(data) + 1000)
            assert branches.steps <= bound, f"{branches.steps} bytecodes for {len(data)} bytes"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return accepted


def watch_for_hangs() -> None:
    def hangs(number: int, frame: object) -> None:
        raise AssertionError(f"no end within {HANG_S} s")

    signal.signal(signal.SIGPROF, hangs)


def _resident_bytes() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def _part(work: tuple[str, int, str]) -> Result | str:
    name, count, seed = work
    watch_for_hangs()
    try:
        return fuzz(TARGETS[name], count, seed)
    except Found as found:
        return str(found)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", default="1")
    parser.add_argument("targets", nargs="*", choices=[[], *TARGETS], default=[])
    chosen = parser.parse_args(arguments)
    names = chosen.targets or list(TARGETS)
    again = f"make fuzz N={chosen.count} SEED={chosen.seed} TARGET="
    faults, results = 0, []
    with multiprocessing.get_context("fork").Pool(PROCESSES, maxtasksperchild=1) as pool:
        for result in pool.imap_unordered(_part, [(name, chosen.count, chosen.seed) for name in names], 1):
            if isinstance(result, str):
                faults += 1
                print(f"FAULT {result}\nagain: {again}{result.partition(',')[0]}", flush=True)
                continue
            print(line(result), flush=True)
            tell_of(result, f"{again}{result.name}")
            results.append(result)
    for file, (taken, count) in joined(result.by_file for result in results).items():
        print(f"{file}: {100 * taken / count:.1f} % of {count} branches")
        if not chosen.targets:
            what = f"branches of {file} that were taken, of {count}"
            tell(Row("33", what, taken, None, None, None, None, again.removesuffix(" TARGET=")))
    return 1 if faults else 0


def line(result: Result) -> str:
    return (
        f"{result.name}: {result.inputs:,} inputs, {result.accepted:,} accepted, corpus {result.corpus}, "
        f"branches {100 * result.branches / result.branches_all:.1f} % of {result.branches_all} "
        f"({result.seeds_branches} by the seeds, {result.branches} in all), at most {result.work_max:.0f} bytecodes a byte, "
        f"{result.seconds:.0f} s"
    )


def tell_of(result: Result, command: str) -> None:
    what = f"{result.name}: changed messages"
    tell(Row("33", what, result.inputs, None, None, None, None, command))


if __name__ == "__main__":
    sys.exit(main())
