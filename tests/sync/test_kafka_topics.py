"""The gateway's own topics on a real Kafka, which may make topics by itself or have unfit ones."""

import asyncio
from pathlib import Path

import pytest

from gateway.clock import SystemClock
from gateway.sync import LinkState, kafka_sync
from gateway.sync.settings import KafkaSettings
from gateway.testing.kafka import KafkaBroker
from tests.sync.rig import delivered, entries, numbers, open_queue, running, until

pytestmark = pytest.mark.kafka


async def test_a_broker_that_makes_topics_by_itself_makes_none_for_a_gateway(tmp_path: Path) -> None:
    with KafkaBroker(tmp_path / "kafka", settings={"auto.create.topics.enable": "true"}) as kafka:
        queue = await open_queue(tmp_path)
        async with running(queue, kafka.bootstrap, "tidy") as sync:
            await queue.put(entries("misspelt", 1))
            await until(lambda: bool(sync.status().parked))
            made = kafka.admin.list_topics(timeout=10).topics
            assert "misspelt" not in made
            assert len(made["tidegate-positions"].partitions) == 50
            kafka.create_topic("misspelt")
            await delivered(queue)
        assert numbers(kafka.read("misspelt")) == [1]
        await queue.close()


@pytest.mark.parametrize(
    ("config", "wrong"),
    [
        ({}, "cleanup.policy=compact,message.timestamp.type=LogAppendTime"),
        ({"cleanup.policy": "compact"}, "message.timestamp.type=LogAppendTime"),
    ],
)
async def test_a_topic_that_would_forget_positions_is_refused(
    kafka: KafkaBroker, topic: str, config: dict[str, str], wrong: str, tmp_path: Path
) -> None:
    unfit = kafka.create_topic(f"{topic}-positions", 1, **config)
    queue = await open_queue(tmp_path)
    async with running(queue, kafka.bootstrap, "careful", positions_topic=unfit) as sync:
        await queue.put(entries(topic, 1))
        await until(lambda: sync.status().error is not None and sync.status().state is not LinkState.LIVE)
        assert f"--alter --topic {unfit} --add-config {wrong}" in (sync.status().error or "")
        assert kafka.read(topic) == []
    kafka.configure(unfit, **dict(one.split("=") for one in wrong.split(",")))
    async with running(queue, kafka.bootstrap, "careful", positions_topic=unfit):
        await delivered(queue)
    await queue.close()


async def test_a_sync_that_is_refused_ends_at_whatever_moment_it_is_told_to(
    kafka: KafkaBroker, topic: str, tmp_path: Path
) -> None:
    """aiokafka's closing swallows that it is cancelled."""
    unfit = kafka.create_topic(f"{topic}-positions", 1)
    queue = await open_queue(tmp_path)
    settings = KafkaSettings(bootstrap_servers=[kafka.bootstrap], positions_topic=unfit)
    for turns in range(40):
        sync = kafka_sync(queue, settings, "brief", SystemClock())
        task = asyncio.create_task(sync.run())
        while sync.status().error is None:  # noqa: ASYNC110 not a turn of the loop may be missed
            await asyncio.sleep(0)
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task], timeout=10)
        assert task.cancelled()
    await queue.close()
