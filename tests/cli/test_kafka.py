"""A gateway run by the command, a real Kafka, and what the command then says of both."""

import asyncio
import json
import signal
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer

from gateway.testing.kafka import KafkaBroker
from tests.cli.conftest import CONFIGURATION, Run, start

pytestmark = pytest.mark.kafka

DRIVER = """
[drivers.demo]
type = "simulated"
interval = "20 ms"
"""


async def test_run_status_and_audit(site: Path, tidegate: Run, kafka: KafkaBroker, topic: str) -> None:
    text = CONFIGURATION.replace("127.0.0.1:1", kafka.bootstrap).replace("telemetry", topic) + DRIVER
    own = f'positions_topic = "{topic}-positions"\nledger_topic = "{topic}-ledger"\n[drivers.demo]'
    (site / "tidegate.toml").write_text(text.replace("[drivers.demo]", own))
    run = await start(site, "run")
    async with asyncio.timeout(90):
        while await delivered(tidegate) < 30:  # noqa: ASYNC110
            await asyncio.sleep(0.2)
    verified = await tidegate("status", "--verify")
    assert verified.code == 0
    assert "live since" in verified.out
    assert "BROKEN" not in verified.out
    file, before = site / "tidegate.toml", await delivered(tidegate)
    file.write_text(file.read_text().replace("[kafka]", '[kafka]\nlinger = "20 ms"'))
    run.send_signal(signal.SIGHUP)
    async with asyncio.timeout(60):
        while (now := await delivered(tidegate)) == before:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert now > before  # the connection is new, the process is the same
    run.terminate()
    async with asyncio.timeout(30):
        await run.communicate()
    assert run.returncode == 0
    sound = await tidegate("audit", "--json")
    told = json.loads(sound.out)
    assert (sound.code, told["sound"]) == (0, True)
    main = next(lane for lane in told["lanes"] if lane["lane"] == "main")
    assert main["records"] == main["judged"] >= 30
    repeat(kafka, topic)
    twice = await tidegate("audit")
    assert twice.code == 1
    assert "NOT EXPLAINED" in twice.out
    assert f"plant-7 {main['queue']} main: record 1 twice" in twice.out


async def delivered(tidegate: Run) -> int:
    end = await tidegate("status", "--json")
    return int(json.loads(end.out)["link"]["delivered"]["main"]) if end.code == 0 else 0


def repeat(kafka: KafkaBroker, topic: str) -> None:
    """The first record of the topic once more, as a producer without transactions might."""
    consumer = Consumer(
        {"bootstrap.servers": kafka.bootstrap, "group.id": "x", "auto.offset.reset": "earliest"}
    )
    consumer.subscribe([topic])
    first = consumer.poll(30)
    consumer.close()
    assert first is not None
    assert first.error() is None
    producer = Producer({"bootstrap.servers": kafka.bootstrap})
    producer.produce(topic, first.value(), first.key(), headers=first.headers())
    assert producer.flush(30) == 0


async def test_audit_without_kafka(tidegate: Run) -> None:
    end = await tidegate("audit")
    assert end == (75, "", "tidegate: 127.0.0.1:1: connection refused: no broker listens there\n")
