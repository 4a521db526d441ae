"""What a real queue and sync deliver is complete in the eyes of the audit, and what they left out is explained."""

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from gateway.audit import Cause, Report, audit
from gateway.clock import SystemClock
from gateway.codec import Entry, Shape
from gateway.queue import Queue, QueueSettings
from gateway.sync import kafka_sync
from gateway.sync.settings import KafkaSettings
from gateway.testing.kafka import KafkaBroker

pytestmark = pytest.mark.kafka
TOO_LARGE = 2000
WITHIN_S = 60


async def deliver(queue: Queue, settings: KafkaSettings, gateway_id: str) -> None:
    """Until both lanes have nothing more to say."""
    sync = asyncio.create_task(kafka_sync(queue, settings, gateway_id, SystemClock()).run())
    async with asyncio.timeout(WITHIN_S):
        while any(queue.position(lane) < queue.next_seq(lane) - 1 for lane in ("main", "ledger")):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    sync.cancel()
    with suppress(asyncio.CancelledError):
        await sync


def main(report: Report, gateway_id: str) -> dict[Cause, int]:
    [lane] = [lane for lane in report.lanes if (lane.gateway, lane.lane) == (gateway_id, "main")]
    return dict(lane.counts)


@pytest.fixture
def settings(kafka: KafkaBroker, new_topic: Callable[..., str]) -> KafkaSettings:
    """The gateway makes its own topics itself."""
    name = new_topic()
    return KafkaSettings(
        bootstrap_servers=[kafka.bootstrap],
        linger=0.0,
        positions_topic=f"{name}-positions",
        ledger_topic=f"{name}-ledger",
    )


async def test_dead_letters_are_explained(
    settings: KafkaSettings, new_topic: Callable[..., str], tmp_path: Path
) -> None:
    shapes = [Shape(new_topic(2, max_message_bytes="600"), b"press-%d" % number, ()) for number in range(10)]
    queue = await Queue.open(tmp_path / "queue.db", QueueSettings(min_free_bytes=0), SystemClock())
    entries = [Entry(shapes[number % 10], SystemClock().wall_ms(), b"%d" % number) for number in range(500)]
    entries[100] = Entry(shapes[0], SystemClock().wall_ms(), random.Random(1).randbytes(TOO_LARGE))
    await queue.put(entries)
    await deliver(queue, settings, "plant")
    report = await audit(settings)
    assert main(report, "plant") == {Cause.DEAD: 1}
    assert report.exit_code == 0
    assert report.problems == ()
    await queue.close()


async def test_what_a_full_queue_dropped_is_explained(
    settings: KafkaSettings, new_topic: Callable[..., str], tmp_path: Path
) -> None:
    shape = Shape(new_topic(2), b"press", ())
    small = QueueSettings(min_free_bytes=0, max_bytes=4 << 20, when_full="drop_oldest")
    ledger = Shape(settings.ledger_topic, b"plant", ())
    queue = await Queue.open(tmp_path / "queue.db", small, SystemClock(), ledger=ledger)
    chance = random.Random(1)
    for _ in range(60):
        await queue.put([Entry(shape, SystemClock().wall_ms(), chance.randbytes(1000)) for _ in range(100)])
    await deliver(queue, settings, "plant")
    async with asyncio.timeout(WITHIN_S):
        while queue.stats().lanes["main"].dropped == 0 or queue.next_seq("ledger") == 1:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    await deliver(queue, settings, "plant")
    dropped = queue.stats().lanes["main"].dropped
    report = await audit(settings)
    assert main(report, "plant") == {Cause.DROPPED: dropped}
    assert 1000 < dropped < 6000
    assert report.exit_code == 0
    await queue.close()
