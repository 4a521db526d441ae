"""Topics that are deleted, that grow, and a broker that throttles, while a gateway delivers."""

import asyncio
import subprocess
from pathlib import Path

import pytest
from confluent_kafka.admin import NewPartitions

from gateway.sync import LinkState
from gateway.testing.kafka import KafkaBroker, kafka_jars
from tests import proof
from tests.brokers.load import Load, Stage, judge
from tests.sync.rig import delivered, entries, numbers, open_queue, running, until

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.proof]

COMMAND = "pytest tests/brokers/test_topics.py"
THROTTLED_BYTES_PER_S = 10_000
BEHIND_RECORDS = 1000


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.sync.topics.PARKED_S", 0.5)
    monkeypatch.setattr("gateway.sync.sync.PARKED_S", 0.5)


def clean(fault: str, what: str, load: Load, kafka: KafkaBroker) -> None:
    [count] = judge(kafka.read(load.topic), [Stage(dict.fromkeys(load.told, 0), load.told)])
    proof.tell(proof.Row(fault, what, 1, *count, load.recovery_s, COMMAND))
    assert (count.lost, count.twice) == (0, 0)


async def test_a_topic_that_is_deleted_waits_and_the_others_flow(kafka: KafkaBroker, tmp_path: Path) -> None:
    gone = kafka.create_topic("deleted")
    stays = kafka.create_topic("deleted-not")
    async with Load.on(tmp_path, [kafka.bootstrap], "deleted", stays) as load:
        await load.queue.put(entries(gone, *range(10)))
        await load.flows()
        before = await asyncio.to_thread(kafka.read, gone)
        await asyncio.to_thread(kafka.delete_topic, gone)
        await load.queue.put(entries(gone, *range(10, 20)))
        already = load.sync.status().delivered["main"]
        await until(lambda: gone in load.sync.status().parked)
        assert gone in (load.sync.status().alarm or "")
        await until(lambda: load.sync.status().delivered["main"] > already + 100)
        await asyncio.to_thread(kafka.create_topic, gone)
        await load.flows()
        await until(lambda: load.sync.status().alarm is None)
        await load.queue.put(entries(gone, 20))
    assert [*numbers(before), *numbers(kafka.read(gone))] == list(range(21))
    clean("24", "a topic deleted and made again; the other's records", load, kafka)


async def test_positions_that_are_deleted_hold_or_go_on(kafka: KafkaBroker, tmp_path: Path) -> None:
    topic = kafka.create_topic("positionless")
    async with Load.on(
        tmp_path, [kafka.bootstrap], "positionless", topic, positions_topic="positions-deleted"
    ) as load:
        await asyncio.to_thread(kafka.delete_topic, "positions-deleted")
        await until(lambda: load.sync.status().state is LinkState.HELD)
        assert "positions of this gateway are gone" in (load.sync.status().alarm or "")
        position = load.queue.position("main")
        await load.sync.adopt("lost")
        await until(lambda: load.queue.position("main") > position)
        await load.flows()
    clean("24", "the positions deleted; held, then adopted", load, kafka)


async def test_a_topic_that_grows_takes_all(kafka: KafkaBroker, tmp_path: Path) -> None:
    topic = kafka.create_topic("growing")
    queue = await open_queue(tmp_path)
    async with running(queue, kafka.bootstrap, "growing") as sync:
        await queue.put(entries(topic, *range(100)))
        await delivered(queue)
        kafka.admin.create_partitions([NewPartitions(topic, 5)])[topic].result(30)
        for device in ("press", "pump", "oven"):
            await queue.put(entries(topic, *range(100, 200), device=device))
        await delivered(queue)
        assert sync.status().state is LinkState.LIVE
    found = kafka.read(topic)
    for device, first in (("press", 0), ("pump", 100), ("oven", 100)):
        assert sorted(int(one.value) for one in found if one.key == device.encode()) == list(
            range(first, 200)
        )
    await queue.close()
    proof.tell(proof.Row("24", "partitions added", 1, 400, 0, 0, None, COMMAND))


def throttle(kafka: KafkaBroker, client: str, change: str) -> None:
    """By Kafka's own tool: no client library that we have sets quotas."""
    subprocess.run(
        [
            *("java", "-XX:TieredStopAtLevel=1", "-cp", str(kafka_jars() / "*"), "kafka.admin.ConfigCommand"),
            *("--bootstrap-server", kafka.bootstrap, "--alter", *change.split()),
            *("--entity-type", "clients", "--entity-name", client),
        ],
        check=True,
        capture_output=True,
    )


async def test_a_broker_that_throttles_makes_it_slow_and_nothing_else(
    kafka: KafkaBroker, tmp_path: Path
) -> None:
    topic = kafka.create_topic("throttled")
    client = "tidegate.throttled"
    await asyncio.to_thread(
        throttle, kafka, client, f"--add-config producer_byte_rate={THROTTLED_BYTES_PER_S}"
    )
    async with Load.on(tmp_path, [kafka.bootstrap], "throttled", topic, compression="none") as load:
        await until(lambda: load.queue.pending("main")[0] > BEHIND_RECORDS)
        load.turn_s = 1.0
        position = load.queue.position("main")
        await until(lambda: load.queue.position("main") > position)
        assert load.sync.status().error is None
        await asyncio.to_thread(throttle, kafka, client, "--delete-config producer_byte_rate")
        await load.flows()
    clean("30", f"quota of {THROTTLED_BYTES_PER_S // 1000} kB/s", load, kafka)
