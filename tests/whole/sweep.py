"""`make sweep`: a gateway at work is killed, refused by its disk or held up at the n-th call of its cycle, one case after the other.

One cycle (accept, commit, transaction, confirmation, trimming, checkpoint) is recorded first. Each call on a file or a socket
in it is a place for a kill and for a delay, each call on the queue's files for an error too. What waits for events or
touches nothing outside the process lies between two such calls and is left out. A case has a gateway, devices and a
topic of its own; afterwards the gateway runs and delivers, and what devices were told is compared with Kafka.

N=0 takes all cases, else N are chosen by the seed, of each kind and each sort of call about as many. The n-th call is not always
the same call: what was really hit is what is reported. A failed case can be repeated with CASE=.
"""

import argparse
import asyncio
import contextlib
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from confluent_kafka import KafkaException

from gateway.runtime.process import EXIT_DISK
from gateway.testing.kafka import KafkaBroker
from tests import proof
from tests.whole.calls import Call, Ports, inject, injected, let_go_within, parse, record, threads
from tests.whole.rig import WITHIN_S, Audited, Devices, Gateway, at_work, settle

CYCLE_S = 6.0
"""More than the time between two confirmations, and several checkpoints of a log of 512 KiB."""

PADDING = 8000
FULL_S = 2.0
AT_ONCE = 8
CASE_S = 120.0
HIT_SHARE_MIN = 0.8
"""Of the cases: a call that is not reached shows nothing."""

ENDS_S = 1.0
"""A process that should run on is watched for so long."""


class Kind(Enum):
    """strace's words for it, and what the page of proofs says."""

    KILL = ("signal=SIGKILL:when={n}", "kill -9 at the n-th call")
    EIO = ("error=EIO:when={n}", "the n-th call on the queue's files fails with EIO")
    ENOSPC = ("error=ENOSPC:when={n}+", "from the n-th write on the disk is full, for 2 s")
    DELAY = ("delay_enter=2000000:when={n}", "the n-th call takes 2 s")


DISK_CALLS = {
    Kind.EIO: {"pwrite64", "pread64", "fdatasync", "ftruncate", "fallocate", "unlink"},
    Kind.ENOSPC: {"pwrite64", "fallocate"},
}
FATAL = {"pwrite64", "fdatasync"}


class Case(NamedTuple):
    """The n-th call of this name by this thread."""

    kind: Kind
    thread: str
    syscall: str
    n: int

    def __str__(self) -> str:
        return f"{self.kind.name}/{self.thread}/{self.syscall}/{self.n}"

    @classmethod
    def named(cls, text: str) -> "Case":
        kind, thread, syscall, n = text.split("/")
        return cls(Kind[kind], thread, syscall, int(n))


def endings(kind: Kind, syscall: str) -> set[int | None]:
    """Exit codes that may follow; None: it runs on."""
    if kind is Kind.KILL:
        return {-signal.SIGKILL}
    if kind is Kind.EIO:
        return {EXIT_DISK} if syscall in FATAL else {None, EXIT_DISK}
    return {None}


class Failed(Exception):
    """The gateway did not do what it must; the text says what."""


class Result(NamedTuple):
    """`hit` is None where the call was not reached."""

    case: Case
    hit: Call | None
    audited: Audited
    recovery_s: float


def cases(calls: Sequence[Call]) -> dict[tuple[Kind, Call], list[Case]]:
    """Every case of one recorded cycle, by kind and sort of call."""
    found: dict[tuple[Kind, Call], list[Case]] = defaultdict(list)
    numbers: Counter[tuple[str, str]] = Counter()
    for call in calls:
        numbers[call.thread, call.syscall] += 1
        n = numbers[call.thread, call.syscall]
        for kind in Kind:
            if call.syscall in DISK_CALLS.get(kind, {call.syscall}):
                found[kind, call].append(Case(kind, call.thread, call.syscall, n))
    return found


def choose(every: dict[tuple[Kind, Call], list[Case]], count: int, chance: random.Random) -> list[Case]:
    if count == 0:
        return [case for group in every.values() for case in group]
    rounds: list[Case] = []
    groups = [chance.sample(group, len(group)) for _, group in sorted(every.items(), key=str)]
    while len(rounds) < count and any(groups):
        chance.shuffle(groups)
        rounds += [group.pop() for group in groups if group]
    return rounds[:count]


class Sweep:
    def __init__(self, kafka: KafkaBroker, folder: Path) -> None:
        self._kafka = kafka
        self._folder = folder
        self._numbers = iter(range(1 << 30))

    async def record(self) -> list[Call]:
        gateway = await self._gateway()
        async with at_work(gateway, PADDING):
            file = gateway.folder / "calls"
            return await record(gateway.process.pid, CYCLE_S, self._ports(gateway), file)

    async def run(self, case: Case) -> Result:
        """Raises Failed or AssertionError if the gateway did not do what it must."""
        gateway = await self._gateway()
        async with at_work(gateway, PADDING) as devices:
            names = threads(gateway.process.pid)
            tid = next(tid for tid, name in names.items() if name == case.thread)
            file = gateway.folder / "calls"
            async with inject(tid, case.syscall, case.kind.value[0].format(n=case.n), file):
                line = await injected(file)
                if case.kind is Kind.ENOSPC:
                    await asyncio.sleep(FULL_S)
            hit = parse(line, {0: case.thread}, self._ports(gateway)) if line else None
            recovery_s = 0.0
            if hit is not None:
                ends = endings(case.kind, hit.syscall)
                if case.kind is Kind.ENOSPC and let_go_within(file):
                    ends = {None, EXIT_DISK}  # of that call the kernel says that there is no such call
                recovery_s = await self._recover(ends, gateway, devices)
            audited = await settle(gateway, devices)
        if not audited.clean or (case.kind is Kind.DELAY and audited.again):
            raise Failed(f"{audited}")
        await asyncio.to_thread(self._clear, gateway)
        return Result(case, hit, audited, recovery_s)

    async def _recover(self, ends: set[int | None], gateway: Gateway, devices: Devices) -> float:
        began = time.monotonic()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ENDS_S if None in ends else WITHIN_S):
                await gateway.process.wait()
        code = gateway.process.returncode
        if code not in ends:
            raise Failed(f"exit code {code}, not one of {ends}")
        if code is not None:
            began = time.monotonic()
            await gateway.start()
        await devices.told_more(gateway.said)
        return time.monotonic() - began

    async def _gateway(self) -> Gateway:
        name = f"case-{next(self._numbers)}"
        (self._folder / name).mkdir()
        await asyncio.to_thread(self._kafka.create_topic, name)
        gateway = Gateway(self._folder / name, name, self._kafka.bootstrap)
        await gateway.start()
        return gateway

    def _clear(self, gateway: Gateway) -> None:
        """Thousands of cases would fill the disk, and the broker with topics."""
        shutil.rmtree(gateway.folder)
        with contextlib.suppress(KafkaException):  # the case went well all the same
            self._kafka.delete_topic(gateway.name)

    def _ports(self, gateway: Gateway) -> Ports:
        return Ports(gateway.port, int(self._kafka.bootstrap.rpartition(":")[2]))


async def sweep(options: argparse.Namespace, kafka: KafkaBroker, folder: Path) -> bool:
    """Whether every case went as it must."""
    work = Sweep(kafka, folder)
    calls = [] if options.case else await work.record()
    every = cases(calls)
    chosen = (
        [Case.named(options.case)] if options.case else choose(every, options.n, random.Random(options.seed))
    )
    print(
        f"{len(calls)} calls in {CYCLE_S:g} s, {sum(map(len, every.values()))} cases; {len(chosen)} are tried",
        flush=True,
    )
    turns = asyncio.Semaphore(AT_ONCE)
    results: list[Result] = []
    failed = 0

    async def one(case: Case) -> None:
        nonlocal failed
        async with turns:
            try:
                async with asyncio.timeout(CASE_S):
                    results.append(await work.run(case))
            except (Failed, AssertionError, TimeoutError) as error:
                failed += 1
                print(f"FAILED {case}: {error!r}\n    again: make sweep CASE={case}", flush=True)

    await asyncio.gather(*map(one, chosen))
    report(calls, results)
    command = f"make sweep N={options.n} SEED={options.seed}"
    for kind in Kind:
        hits = [result for result in results if result.case.kind is kind and result.hit]
        if hits:
            accounts = [result.audited for result in hits]
            acknowledged, lost, twice = (sum(column) for column in list(zip(*accounts, strict=True))[:3])
            recovery_s = max(result.recovery_s for result in hits)
            proof.tell(
                proof.Row("2", kind.value[1], len(hits), acknowledged, lost, twice, recovery_s, command)
            )
    reached = sum(result.hit is not None for result in results)
    enough = reached >= max(1, HIT_SHARE_MIN * len(chosen))
    print(
        f"{len(results)} went as they must, {failed} did not" + ("" if enough else "; too few were reached")
    )
    return enough and not failed


def report(calls: Sequence[Call], results: Sequence[Result]) -> None:
    """What was hit, of what there was."""
    hits = Counter((result.hit, result.case.kind) for result in results if result.hit)
    for call, count in sorted((Counter(calls) or Counter(hit for hit, _ in hits)).items()):
        row = "".join(f"{kind.name:>8}{hits[call, kind]:4}" for kind in Kind)
        print(f"{call.thread:6}{call.syscall:12}{call.file:14}{count:5} calls{row}")
    print(f"{sum(result.hit is None for result in results)} calls were not reached")


def main() -> int:
    parser = argparse.ArgumentParser(description="A fault at the n-th system call.")
    parser.add_argument("--n", type=int, default=40)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 16))
    parser.add_argument("--case")
    options = parser.parse_args()
    print(f"make sweep N={options.n} SEED={options.seed}", flush=True)
    with (
        tempfile.TemporaryDirectory(prefix="tidegate-sweep-") as folder,
        KafkaBroker(Path(folder) / "kafka") as kafka,
    ):
        return 0 if asyncio.run(sweep(options, kafka, Path(folder))) else 1


if __name__ == "__main__":
    sys.exit(main())
