"""A whole gateway whose wall clock is wrong at the start and jumps while it runs (libfaketime)."""

import asyncio
from pathlib import Path

import pytest

from gateway.testing.kafka import KafkaBroker
from tests.soak.false_clock import FalseClock, needs_faketime
from tests.whole.rig import Gateway, at_work, settle, tell

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.slow,
    pytest.mark.proof,
    pytest.mark.timeout(300),
    needs_faketime,
]

TOLERANCE_MS = 600_000
RETENTION_MS = 7 * 24 * 3600 * 1000


async def test_a_wrong_clock_costs_nothing(kafka: KafkaBroker, topic: str, tmp_path: Path) -> None:
    clock = FalseClock(tmp_path / "clock")
    clock.set(FalseClock.TIMES[-1])
    gateway = Gateway(tmp_path, topic, kafka.bootstrap)
    await gateway.start(environment=clock.environment)
    async with at_work(gateway) as devices:
        for offset in (FalseClock.TRUE, *FalseClock.TIMES, FalseClock.TRUE):
            clock.set(offset)
            await asyncio.sleep(2 * FalseClock.LOOK_S)
            await devices.told_more(gateway.said)
            await gateway.drained()
        audited = await settle(gateway, devices)
    records = kafka.read(topic)
    true_times = [int(one.headers["tg.time"]) for one in records if "tg.time" in one.headers]
    now = max(one.timestamp_ms for one in records)
    assert min(true_times) < 3_600_000 < now, "the clock was not wrong"
    assert max(true_times) > now + TOLERANCE_MS
    assert min(one.timestamp_ms for one in records) > now - RETENTION_MS // 2 - TOLERANCE_MS
    assert "Kafka: records are delivered" in gateway.said()
    assert "warning" not in gateway.said()
    assert "error" not in gateway.said()
    tell(
        "27",
        "starts in 1970, then the true time, +2 h, -1 y, 1970 and the true time while it runs",
        audited,
        None,
    )
