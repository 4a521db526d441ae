"""The rig's Kafka does what its listeners promise, and survives what tests do to it."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
)

from gateway.testing.jars import JarsError
from gateway.testing.kafka import KafkaBroker, kafka_jars
from gateway.testing.proxy import Api, Proxy

ALICE = {"sasl.username": "alice", "sasl.password": "secret"}


def send(bootstrap: str, topic: str, value: bytes, **settings: str) -> str:
    """What the broker said, "" for success."""
    errors: list[str] = []
    producer = Producer(
        {"bootstrap.servers": bootstrap, "log_level": 0, "message.timeout.ms": 3000, **settings}
    )
    producer.produce(topic, value, on_delivery=lambda error, _: errors.append(error.name() if error else ""))
    producer.flush(10)
    return errors[0]


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    listeners = ("ssl", "mtls", "sasl_plaintext", "sasl_ssl")
    directory = tmp_path_factory.mktemp("secured")
    with KafkaBroker(directory, listeners=listeners, users={"alice": "secret"}, authorize=True) as broker:
        broker.add_scram_user("alice", "secret")
        broker.create_topic("allowed")
        broker.create_topic("forbidden")
        for user in ("alice", "device"):
            grant = AclBinding(
                ResourceType.TOPIC,
                "allowed",
                ResourcePatternType.LITERAL,
                f"User:{user}",
                "*",
                AclOperation.WRITE,
                AclPermissionType.ALLOW,
            )
            broker.admin.create_acls([grant])[grant].result(10)
        yield broker


@pytest.mark.kafka
@pytest.mark.slow
@pytest.mark.parametrize("listener", ["sasl_plaintext", "sasl_ssl"])
@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_passwords_open_what_acls_grant(secured: KafkaBroker, listener: str, mechanism: str) -> None:
    assert secured.authority
    settings = {
        "security.protocol": listener,
        "sasl.mechanism": mechanism,
        "ssl.ca.location": str(secured.authority.path),
        **ALICE,
    }
    assert send(secured.address(listener), "allowed", b"x", **settings) == ""
    assert send(secured.address(listener), "forbidden", b"x", **settings) == "TOPIC_AUTHORIZATION_FAILED"


@pytest.mark.kafka
@pytest.mark.slow
def test_certificates_name_their_owner(secured: KafkaBroker) -> None:
    assert secured.authority
    device = secured.authority.issue("device")
    trusted = {"security.protocol": "ssl", "ssl.ca.location": str(secured.authority.path)}
    own = {"ssl.certificate.location": str(device.certificate), "ssl.key.location": str(device.key)}
    assert send(secured.address("ssl"), "forbidden", b"x", **trusted) == ""
    assert send(secured.address("mtls"), "allowed", b"x", **trusted, **own) == ""
    assert send(secured.address("mtls"), "forbidden", b"x", **trusted, **own) == "TOPIC_AUTHORIZATION_FAILED"


@pytest.mark.kafka
@pytest.mark.slow
def test_killed_paused_and_stopped_it_comes_back_with_its_data(tmp_path: Path) -> None:
    with KafkaBroker(tmp_path) as broker:
        broker.create_topic("kept")
        assert send(broker.bootstrap, "kept", b"1") == ""
        broker.pause()
        broker.resume()
        assert send(broker.bootstrap, "kept", b"2") == ""
        broker.kill()
        assert not broker.running
        broker.start()
        assert send(broker.bootstrap, "kept", b"3") == ""
        broker.stop()
        broker.start()
        assert [record.value for record in broker.read("kept")] == [b"1", b"2", b"3"]


@pytest.mark.kafka
@pytest.mark.slow
async def test_clients_of_the_link_stay_on_it(kafka: KafkaBroker, link: Proxy, topic: str) -> None:
    assert await asyncio.to_thread(send, link.address, topic, b"x") == ""
    assert (await link.seen(Api.PRODUCE, link.frames[0].direction)).size > 0
    await link.cut()
    assert await asyncio.to_thread(send, link.address, topic, b"y") != ""
    assert [record.value for record in kafka.read(topic)] == [b"x"]


@pytest.mark.kafka
def test_a_topic_has_the_settings_asked_for(kafka: KafkaBroker, new_topic: Callable[..., str]) -> None:
    small = new_topic(partitions=3, max_message_bytes="2000")
    assert send(kafka.bootstrap, small, bytes(1000)) == ""
    assert send(kafka.bootstrap, small, bytes(3000)) == "MSG_SIZE_TOO_LARGE"


def test_missing_java_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(JarsError, match="Java 17 is needed to run Apache Kafka: apt install"):
        kafka_jars()
