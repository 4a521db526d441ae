"""Topics that can't be written or that grow, and more of them than a position can name."""

import asyncio
import json
from pathlib import Path

import pytest

from gateway.clock import SystemClock
from gateway.errors import SinkRefused
from gateway.sync import LinkState, Sync
from gateway.sync.kafka import partition_of
from gateway.sync.kafka.sink import position_batch
from gateway.sync.lane import PARKED_MAX
from gateway.sync.settings import KafkaSettings
from gateway.testing.sink import MemoryCluster, MemorySink, MemoryTopic
from tests.sync.rig import delivered, entries, open_queue, until


async def test_delivery_stops_where_too_many_topics_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.sync.topics.PARKED_S", 0.01)
    monkeypatch.setattr("gateway.sync.sync.REFUSED_BACKOFF_S", (0.01, 0.01))
    queue = await open_queue(tmp_path)
    cluster = MemoryCluster()
    cluster.topics |= {"tidegate-ledger": MemoryTopic(), "telemetry": MemoryTopic()}
    missing = [f"made-by-device-{number}" for number in range(PARKED_MAX + 20)]
    for number, name in enumerate(missing):
        await queue.put(entries("telemetry", number) + entries(name, number))
    settings = KafkaSettings(bootstrap_servers=["memory:1"], linger=0.0)
    sync = Sync(queue, MemorySink(cluster, "gw"), settings, "gw", SystemClock(), partition_of)
    task = asyncio.create_task(sync.run())

    def arrived(topic: str) -> list[int]:
        return [int(record.value or b"") for record in cluster.topics[topic].records()]

    await until(lambda: sync.status().state is LinkState.DOWN)
    assert arrived("telemetry") == list(range(PARKED_MAX + 1))
    assert f"{PARKED_MAX} topics can't be written, and record" in (sync.status().alarm or "")
    assert missing[PARKED_MAX] in (sync.status().alarm or "")
    cluster.topics |= {name: MemoryTopic() for name in missing}
    await delivered(queue)
    assert arrived("telemetry") == list(range(len(missing)))
    assert all(arrived(name) == [number] for number, name in enumerate(missing))
    task.cancel()
    await asyncio.wait([task])
    await queue.close()


async def test_a_topic_that_grows_is_told_in_the_ledger(tmp_path: Path) -> None:
    queue = await open_queue(tmp_path)
    cluster = MemoryCluster()
    cluster.topics |= {"tidegate-ledger": MemoryTopic(), "telemetry": MemoryTopic(partitions=2)}
    settings = KafkaSettings(bootstrap_servers=["memory:1"], linger=0.0)
    sync = Sync(queue, MemorySink(cluster, "gw"), settings, "gw", SystemClock(), partition_of)
    task = asyncio.create_task(sync.run())
    for number, partitions in enumerate((2, 2, 3)):
        cluster.topics["telemetry"].partitions = partitions
        await queue.put(entries("telemetry", number))
        await delivered(queue)
    told = [json.loads(record.value or b"") for record in cluster.topics["tidegate-ledger"].records()]
    assert [(one["topics"], one["from_seq"]) for one in told if one["kind"] == "topics"] == [
        ({"telemetry": 2}, 1),
        ({"telemetry": 3}, 3),
    ]
    task.cancel()
    await asyncio.wait([task])
    await queue.close()


def test_records_are_never_sent_without_their_position() -> None:
    fits = [(b"gw/queue/main", bytes(600_000)), (b"gw/queue/ledger", bytes(300_000))]
    assert position_batch(fits, True).size() > 900_000
    for large in (bytes(500_000), bytes(2_000_000)):
        with pytest.raises(SinkRefused, match="gw/queue/ledger is too large"):
            position_batch([fits[0], (b"gw/queue/ledger", large)], True)
    with pytest.raises(SinkRefused, match="gw/queue/main is too large"):
        position_batch([(b"gw/queue/main", bytes(2_000_000)), fits[1]], True)
