"""Power cuts of a mounted ext4: its backing file is copied while a queue writes, and the copy is mounted.

    python -m tests.damage.ext4 --times 20

The writer is stopped during the copy, so that the copy is of one moment; nothing is flushed or frozen before it.
"""

import argparse
import asyncio
import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gateway.clock import SystemClock
from gateway.codec import Entry
from gateway.queue import Queue
from tests.damage.victim import SHAPE, settings
from tests.proof import Row, tell

DISK_BYTES = 48 << 20
SECONDS = 1.5


@contextmanager
def mounted(image: Path, where: Path) -> Iterator[Path]:
    where.mkdir(exist_ok=True)
    subprocess.run(["mount", "-o", "loop", image, where], check=True)
    try:
        yield where
    finally:
        subprocess.run(["umount", "--lazy", where], check=True)


async def write(folder: Path, journal: Path, seed: int) -> None:
    """Until it is killed. The journal says `a <number>` for what is acknowledged, `k <number>` for what Kafka has."""
    rng = random.Random(seed)
    told = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    queue = await Queue.open(folder / "queue.db", settings(), SystemClock())
    queue.advance("main", 0)
    queue.advance("ledger", 0)
    while True:
        first = queue.next_seq("main")
        bodies = [
            b"%d " % number + rng.randbytes(rng.choice((10, 300, 5000))) for number in range(first, first + 3)
        ]
        await queue.put([Entry(SHAPE, 0, body) for body in bodies])
        os.write(told, b"a %d\n" % (first + 2))
        if rng.random() < 0.2 and (segments := await queue.peek("main", queue.position("main"), 40, 1 << 20)):
            os.write(told, b"k %d\n" % segments[-1].last)
            queue.advance("main", segments[-1].last)


async def check(folder: Path, journal: str) -> tuple[int, list[str]]:
    """(records acknowledged, what is wrong)."""
    words = [line.split() for line in journal.splitlines()]
    acknowledged = max((int(number) for kind, number in words if kind == "a"), default=0)
    kafka = max((int(number) for kind, number in words if kind == "k"), default=0)
    queue = await Queue.open(folder / "queue.db", settings(), SystemClock())
    wrong = [] if queue.stats().salvage is None else [f"salvaged: {queue.stats().salvage}"]
    queue.advance("main", kafka)
    numbers = []
    while segments := await queue.peek("main", queue.position("main"), 1000, 1 << 20):
        for segment in segments:
            for number, entry in enumerate(segment.entries, segment.first):
                numbers.append(number)
                if int(entry.value.split()[0]) != number:
                    wrong.append(f"number {number} has another record")
        queue.advance("main", segments[-1].last)
    last = queue.next_seq("main") - 1
    if numbers != list(range(kafka + 1, last + 1)):
        wrong.append(f"after {kafka} came {numbers[:3]} to {numbers[-3:]}")
    if last < acknowledged:
        wrong.append(f"{acknowledged} acknowledged, {last} stored")
    await queue.close()
    return acknowledged, wrong


def cut(scratch: Path, seed: int) -> tuple[int, list[str], float]:
    """(records acknowledged, what is wrong, seconds of the start and the drain) of one power cut."""
    scratch.mkdir()
    disk, copy, journal = scratch / "disk", scratch / "copy", scratch / "journal"
    with disk.open("wb") as file:
        file.truncate(DISK_BYTES)
    subprocess.run(["mkfs.ext4", "-q", disk], check=True)
    with mounted(disk, scratch / "mounted") as folder:
        writer = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.damage.ext4",
                "--write",
                folder / "data",
                journal,
                "--seed",
                str(seed),
            ]
        )
        deadline = time.monotonic() + 60
        while not (journal.exists() and journal.stat().st_size > 0):
            if writer.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the writer writes nothing")
            time.sleep(0.01)
        time.sleep(random.Random(seed).random() * SECONDS)
        writer.send_signal(signal.SIGSTOP)
        shutil.copyfile(disk, copy)
        told = journal.read_text()
        writer.kill()
        writer.wait()
    with mounted(copy, scratch / "mounted") as folder:
        began = time.monotonic()
        acknowledged, wrong = asyncio.run(check(folder / "data", told))
        return acknowledged, wrong, time.monotonic() - began


def run(times: int, seed: int) -> list[str]:
    """What is wrong; tells the row."""
    total, longest, wrong = 0, 0.0, []
    with tempfile.TemporaryDirectory() as scratch:
        for number in range(times):
            acknowledged, found, seconds = cut(Path(scratch, str(number)), seed + number)
            total, longest = total + acknowledged, max(longest, seconds)
            wrong += [f"seed {seed + number}: {one}" for one in found]
    if not wrong:
        what = "the backing file is copied while the queue writes"
        tell(Row("4", what, times, total, 0, 0, longest, f"make ext4 N={times} SEED={seed}"))
    print(f"{times} power cuts from seed {seed}, {total} records acknowledged, {len(wrong)} wrong")
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1000))
    parser.add_argument("--write", type=Path, nargs=2, metavar=("FOLDER", "JOURNAL"))
    options = parser.parse_args()
    if options.write:
        folder, journal = options.write
        asyncio.run(write(folder, journal, options.seed))
    wrong = run(options.times, options.seed)
    print("\n".join(wrong))
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
