"""A week without Kafka: what it costs, what it says, and how soon after it the records flow again."""

import asyncio
import selectors
from pathlib import Path

import pytest

from gateway.clock import SystemClock
from gateway.errors import SinkUnavailable
from gateway.sync import Sync
from gateway.sync.kafka import partition_of
from gateway.sync.settings import KafkaSettings
from gateway.testing.sink import Fault, MemoryCluster, MemorySink, MemoryTopic
from tests import proof
from tests.sync.rig import delivered, entries, open_queue, until

WEEK_S = 7 * 24 * 3600
AGAIN_S = 4
TRIES_MAX = WEEK_S


class Impatient(selectors.DefaultSelector):
    """While it `hurries`, it waits for nothing, and counts what it would have waited."""

    hurries = False
    skipped_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if not self.hurries or not timeout:
            return super().select(timeout)
        found = super().select(0)
        if not found:
            self.skipped_s += timeout
        return found


class HurriedLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self.selector = Impatient()
        super().__init__(self.selector)

    def time(self) -> float:
        return super().time() + self.selector.skipped_s


@pytest.mark.slow
@pytest.mark.proof
def test_a_week_without_kafka_is_one_line_in_the_log_and_ends_soon_after_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    loop = HurriedLoop()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(week(tmp_path, loop, caplog))


async def week(folder: Path, loop: HurriedLoop, caplog: pytest.LogCaptureFixture) -> None:
    queue = await open_queue(folder)
    cluster = MemoryCluster()
    cluster.topics |= {"tidegate-ledger": MemoryTopic(), "telemetry": MemoryTopic()}
    settings = KafkaSettings(bootstrap_servers=["memory:1"], linger=0.0)
    sync = Sync(queue, MemorySink(cluster, "gw"), settings, "gw", SystemClock(), partition_of)
    task = asyncio.create_task(sync.run())
    await queue.put(entries("telemetry", *range(10)))
    await delivered(queue)

    cluster.faults.append(Fault.FAILS)
    cluster.refusals.extend(SinkUnavailable("connection refused") for _ in range(TRIES_MAX))
    await queue.put(entries("telemetry", *range(10, 20)))
    await until(lambda: len(cluster.refusals) < TRIES_MAX)
    loop.selector.hurries = True
    await asyncio.sleep(WEEK_S)
    assert WEEK_S // AGAIN_S < TRIES_MAX - len(cluster.refusals) < TRIES_MAX
    cluster.refusals.clear()
    back, opened = loop.time(), cluster.epochs["gw"]
    while cluster.epochs["gw"] == opened:
        await asyncio.sleep(0.1)
        assert loop.time() - back <= AGAIN_S + 1
    recovery_s = loop.time() - back
    loop.selector.hurries = False

    await delivered(queue)
    values = [int(record.value or b"") for record in cluster.topics["telemetry"].records()]
    assert values == list(range(20))
    complaints = [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]
    assert len(complaints) == 1
    task.cancel()
    await asyncio.wait([task])
    await queue.close()
    command = "pytest tests/sync/test_outage.py"
    proof.tell(proof.Row("11", "Kafka away for 7 days of simulated time", 1, 20, 0, 0, recovery_s, command))
