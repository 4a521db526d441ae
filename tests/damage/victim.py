"""A queue's files as a gateway left them, with something on every kind of page, and what is known of them."""

import random
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from gateway.clock import SystemClock
from gateway.codec import Entry, Shape
from gateway.driver import Mark
from gateway.queue import Queue, QueueSettings
from tests.queue.rig import copy_as_killed

SHAPE = Shape("telemetry", b"dev-1", (("tg.device", b"dev-1"),))
SCOPE = "mqtt/floor/qos2"
LAST_COMMIT = 3
"""Records in each commit."""


class Plan(NamedTuple):
    """`commits` before the queue is opened again, and after. Of records, which have one of these `sizes` (bytes), the disk knows those up to
    number `delivered` to be delivered; Kafka has more, because the last confirmation was lost. `dead` is a dead letter."""

    commits: tuple[int, int]
    sizes: tuple[int, ...]
    delivered: int
    in_kafka: int
    dead: int


LARGE = Plan((60, 30), (10, 300, 300, 3_000, 12_000), delivered=60, in_kafka=70, dead=65)
SMALL = Plan((8, 4), (10, 200, 2_000), delivered=9, in_kafka=13, dead=11)


@dataclass(frozen=True)
class Victim:
    """`values[n - 1]` belongs to number n of main; all of them were acknowledged."""

    folder: Path
    plan: Plan
    clean: bool
    queue_id: str
    run: str
    values: tuple[bytes, ...]
    marks: dict[bytes, bytes]


def settings() -> QueueSettings:
    return QueueSettings(max_bytes=4 << 20, min_free_bytes=0, commit_interval=0.0)


async def make_victims(folder: Path) -> list[Victim]:
    """One that was killed, and one that was stopped."""
    return [await make_victim(folder / str(clean), clean) for clean in (False, True)]


async def make_victim(folder: Path, clean: bool, plan: Plan = LARGE) -> Victim:
    """Stopped, or killed with a log that holds the last third of its records."""
    rng = random.Random(1)
    live = folder / "live"
    queue = await Queue.open(live / "queue.db", settings(), SystemClock())
    queue.advance("main", 0)
    values: list[bytes] = []
    marks: dict[bytes, bytes] = {}

    async def emit() -> None:
        bodies = [
            b"%06d" % (len(values) + n) + rng.randbytes(rng.choice(plan.sizes))
            for n in range(1, 1 + LAST_COMMIT)
        ]
        key = b"%d" % rng.randrange(40)
        marks[key] = bodies[0][:6]
        values.extend(bodies)
        await queue.put(
            [Entry(SHAPE, 1_700_000_000_000, body) for body in bodies],
            remember=[Mark(SCOPE, key, marks[key], 10**6)],
        )

    for _ in range(plan.commits[0]):
        await emit()
    queue.advance("main", plan.delivered)
    letter = Entry(SHAPE, 1_700_000_000_000, values[plan.dead - 1])
    await queue.bury("main", plan.dead, letter, "too large")
    await queue.close()
    queue = await Queue.open(live / "queue.db", settings(), SystemClock())
    for _ in range(plan.commits[1]):
        await emit()
    run = queue.runs("main")[0].run_id
    copy_as_killed(live, folder / "killed")
    await queue.close()
    files = live if clean else folder / "killed"
    return Victim(files, plan, clean, queue.queue_id, run, tuple(values), marks)
