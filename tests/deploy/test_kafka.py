"""Kafka's own tools run the scripts against a real broker, and a gateway may then do its work and no more."""

import asyncio
import os
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import ConfigResource, ResourceType

from gateway.audit import audit
from gateway.errors import SinkUnavailable
from gateway.settings import Secret
from gateway.sync.kafka.probe import probe
from gateway.sync.kafka.topics import own_topics
from gateway.sync.settings import KafkaSettings, SaslSettings
from gateway.testing.kafka import KafkaBroker, kafka_jars
from tests.deploy.unit import ROOT

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

TOOLS = {
    "kafka-topics.sh": "org.apache.kafka.tools.TopicCommand",
    "kafka-acls.sh": "org.apache.kafka.tools.AclCommand",
}


ADMIN = """security.protocol=SASL_PLAINTEXT
sasl.mechanism=PLAIN
sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required username="admin" password="secret";
"""


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    directory = tmp_path_factory.mktemp("acls")
    with KafkaBroker(
        directory,
        listeners=("sasl_plaintext",),
        users={"plant-7": "secret", "auditor": "secret", "admin": "secret"},
        authorize=True,
        settings={"super.users": "User:ANONYMOUS;User:admin"},
    ) as broker:
        path = with_tools(directory)
        run("topics.sh", broker, path, "--replication", "1", "telemetry:3", "alarms")
        run("acls.sh", broker, path, "--principal", "User:plant-7", "--gateway", "plant-7", "telemetry")
        run("acls.sh", broker, path, "--principal", "User:auditor", "--auditor", "telemetry")
        yield broker


def with_tools(directory: Path) -> str:
    return f"{command_line_tools(directory / 'bin')}:{os.environ['PATH']}"


def command_line_tools(directory: Path) -> Path:
    """kafka-topics.sh and kafka-acls.sh; their jar, alone, is not among those a broker needs."""
    version = next(kafka_jars().glob("kafka-clients-*.jar")).stem.removeprefix("kafka-clients-")
    artifact = f"org.apache.kafka:kafka-tools:{version}"
    maven = ["mvn", "-q", "-B", "dependency:copy", f"-Dartifact={artifact}", f"-DoutputDirectory={directory}"]
    subprocess.run(maven, stdin=subprocess.DEVNULL, check=True)
    for name, main in TOOLS.items():
        options = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", f"{kafka_jars()}/*:{directory}/*"]
        (directory / name).write_text(f'#!/bin/sh\nexec {shlex.join(["java", *options, main])} "$@"\n')
        (directory / name).chmod(0o755)
    return directory


def run(script: str, broker: KafkaBroker, path: str, *arguments: str) -> None:
    done = subprocess.run(
        [str(ROOT / "deploy" / "kafka" / script), "--bootstrap-server", broker.bootstrap, *arguments],
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def deliver(broker: KafkaBroker, transactional_id: str, *topics: str) -> None:
    """One transaction with a record to each topic; raises what the broker refused."""
    producer = Producer(
        {
            "bootstrap.servers": broker.address("sasl_plaintext"),
            "security.protocol": "SASL_PLAINTEXT",
            "sasl.mechanism": "PLAIN",
            "sasl.username": "plant-7",
            "sasl.password": "secret",
            "transactional.id": transactional_id,
            "transaction.timeout.ms": 5000,
            "log_level": 0,
        }
    )
    producer.init_transactions(10)
    producer.begin_transaction()
    refusals: list[KafkaError] = []

    def delivered(error: KafkaError | None, _: object) -> None:
        if error:
            refusals.append(error)

    for topic in topics:
        producer.produce(topic, b"value", b"key", on_delivery=delivered)
    producer.flush(10)
    if refusals:
        raise KafkaException(refusals[0])
    producer.commit_transaction(10)


def config(broker: KafkaBroker, topic: str) -> dict[str, str]:
    resource = ConfigResource(ResourceType.TOPIC, topic)
    entries = broker.admin.describe_configs([resource])[resource].result(10)
    return {name: entry.value for name, entry in entries.items()}


def test_the_script_makes_the_gateways_own_topics_as_they_do_themselves(broker: KafkaBroker) -> None:
    topics = broker.admin.list_topics(timeout=10).topics
    for wanted in own_topics(KafkaSettings(bootstrap_servers=[broker.bootstrap])):
        assert len(topics[wanted.name].partitions) == wanted.partitions
        assert wanted.config.items() <= config(broker, wanted.name).items()
    assert len(topics["tidegate-positions"].partitions) == 50
    settings = config(broker, "tidegate-positions")
    assert settings["cleanup.policy"] == "compact"
    assert settings["message.timestamp.type"] == "LogAppendTime"
    assert config(broker, "tidegate-ledger")["retention.ms"] == "-1"
    assert len(topics["telemetry"].partitions) == 3
    assert len(topics["alarms"].partitions) == 6


def test_a_gateway_may_deliver(broker: KafkaBroker) -> None:
    topics = ("telemetry", "tidegate-positions", "tidegate-ledger")
    deliver(broker, "tidegate.plant-7", *topics)
    assert [len(broker.read(topic)) for topic in topics] == [1, 1, 1]


@pytest.mark.parametrize(
    ("transactional_id", "topic"),
    [("tidegate.plant-8", "telemetry"), ("tidegate.plant-7", "alarms")],
    ids=["as another gateway", "to a topic it was not given"],
)
def test_and_nothing_else(broker: KafkaBroker, transactional_id: str, topic: str) -> None:
    with pytest.raises(KafkaException, match=r"(?i)authoriz"):
        deliver(broker, transactional_id, topic)


def login(broker: KafkaBroker, user: str) -> KafkaSettings:
    secret = Secret(lambda: "secret", "test")
    return KafkaSettings(
        bootstrap_servers=[broker.address("sasl_plaintext")],
        sasl=SaslSettings(mechanism="PLAIN", user=user, password=secret),
    )


async def test_an_auditor_may_read_all_that_an_audit_needs(broker: KafkaBroker) -> None:
    """And a gateway may not: of the ledger it writes nothing is for it to read."""
    topics = ("telemetry", "tidegate-positions", "tidegate-ledger")
    await asyncio.to_thread(deliver, broker, "tidegate.plant-7", *topics)
    report = await audit(login(broker, "auditor"), ["telemetry"])
    assert [problem for problem in report.problems if problem.startswith("topic ")] == []
    with pytest.raises(SinkUnavailable, match=r"(?i)authoriz"):
        await audit(login(broker, "plant-7"), ["telemetry"])


async def test_the_commands_that_check_prints_put_right_what_is_lacking(
    broker: KafkaBroker, tmp_path: Path
) -> None:
    """As they are, in a folder with an administrator's properties: the right to see a topic, then the topic."""
    (tmp_path / "admin.properties").write_text(ADMIN)
    path = await asyncio.to_thread(with_tools, tmp_path)
    settings = login(broker, "plant-7")
    for lacking in ("topic new: not authorised", "topic new is missing: its records would wait"):
        found = [one async for one in probe(settings, "plant-7", ["new"]) if not one.good]
        assert [one.text for one in found] == [lacking]
        assert found[0].command
        command = shlex.split(found[0].command)
        environment = os.environ | {"PATH": path}
        done = await asyncio.to_thread(
            subprocess.run, command, cwd=tmp_path, env=environment, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert [one.text async for one in probe(settings, "plant-7", ["new"]) if not one.good] == []
