"""A queue's files as a gateway left them, with something on every kind of page, and what is known of them."""

import random
from dataclasses import dataclass
from pathlib import Path

from gateway.clock import SystemClock
from gateway.codec import Entry, Shape
from gateway.driver import Mark
from gateway.queue import Queue, QueueSettings
from tests.queue.rig import copy_as_killed

SHAPE = Shape("telemetry", b"dev-1", (("tg.device", b"dev-1"),))
SCOPE = "mqtt/floor/qos2"
SIZES = (10, 300, 300, 3_000, 12_000)
DELIVERED = 60
IN_KAFKA = 70
"""What Kafka has beyond what the disk knows to be delivered: the last confirmation was lost."""

DEAD = 65
LAST_COMMIT = 3
"""Records in each commit."""


@dataclass(frozen=True)
class Victim:
    """`values[n - 1]` belongs to number n of main; all of them were acknowledged."""

    folder: Path
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


async def make_victim(folder: Path, clean: bool) -> Victim:
    """Stopped, or killed with a log that holds the last third of its records."""
    rng = random.Random(1)
    live = folder / "live"
    queue = await Queue.open(live / "queue.db", settings(), SystemClock())
    queue.advance("main", 0)
    values: list[bytes] = []
    marks: dict[bytes, bytes] = {}

    async def emit() -> None:
        bodies = [
            b"%06d" % (len(values) + n) + rng.randbytes(rng.choice(SIZES)) for n in range(1, 1 + LAST_COMMIT)
        ]
        key = b"%d" % rng.randrange(40)
        marks[key] = bodies[0][:6]
        values.extend(bodies)
        await queue.put(
            [Entry(SHAPE, 1_700_000_000_000, body) for body in bodies],
            remember=[Mark(SCOPE, key, marks[key], 10**6)],
        )

    for _ in range(60):
        await emit()
    queue.advance("main", DELIVERED)
    await queue.bury("main", DEAD, Entry(SHAPE, 1_700_000_000_000, values[DEAD - 1]), "too large")
    await queue.close()
    queue = await Queue.open(live / "queue.db", settings(), SystemClock())
    for _ in range(30):
        await emit()
    run = queue.runs("main")[0].run_id
    copy_as_killed(live, folder / "killed")
    await queue.close()
    files = live if clean else folder / "killed"
    return Victim(files, clean, queue.queue_id, run, tuple(values), marks)
