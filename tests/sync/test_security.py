"""Delivery through every kind of listener, and what an operator reads when a lock doesn't open."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from aiokafka.errors import IllegalOperation, TopicAuthorizationFailedError
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
)

from gateway.errors import SinkRefused, SinkUnavailable
from gateway.settings import Secret
from gateway.sync import LinkState
from gateway.sync.kafka.connection import ask, options
from gateway.sync.kafka.producer import Producer
from gateway.sync.settings import KafkaSettings, SaslSettings, TlsSettings
from gateway.testing.certificates import Authority, Certificate
from gateway.testing.kafka import KafkaBroker
from tests import proof
from tests.sync.rig import delivered, entries, numbers, open_queue, running, until

COMMAND = "pytest tests/sync/test_security.py"
LISTENERS = ("ssl", "mtls", "sasl_plaintext", "sasl_ssl")
DAY = timedelta(days=1)


def login(mechanism: Any, password: str = "secret", user: str = "gateway") -> SaslSettings:  # noqa: S107
    return SaslSettings(mechanism=mechanism, user=user, password=Secret(lambda: password, "test"))


def allow(broker: KafkaBroker, kind: ResourceType, name: str, *operations: str) -> None:
    for operation in operations:
        for user in ("gateway", "narrow"):
            if user == "narrow" and name in ("secured-2", "secured-3") and operation == "WRITE":
                continue
            grant = AclBinding(
                *(kind, name, ResourcePatternType.PREFIXED, f"User:{user}", "*"),
                *(AclOperation[operation], AclPermissionType.ALLOW),
            )
            broker.admin.create_acls([grant])[grant].result(30)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    with KafkaBroker(
        tmp_path_factory.mktemp("secured"),
        listeners=LISTENERS,
        users={"gateway": "secret", "narrow": "secret", "nobody": "secret"},
        authorize=True,
        settings={"listener.name.sasl_ssl.sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-512"},
    ) as one:
        one.add_scram_user("gateway", "secret")
        for topic in ("secured-1", "secured-2", "secured-3"):
            one.create_topic(topic)
            allow(one, ResourceType.TOPIC, topic, "WRITE", "DESCRIBE", "DESCRIBE_CONFIGS")
        allow(one, ResourceType.TOPIC, "tidegate-", "READ", "WRITE", "CREATE", "DESCRIBE", "DESCRIBE_CONFIGS")
        allow(one, ResourceType.TRANSACTIONAL_ID, "tidegate.", "WRITE", "DESCRIBE")
        yield one


@pytest.fixture(scope="module")
def device(broker: KafkaBroker) -> Certificate:
    assert broker.authority
    return broker.authority.issue("gateway")


@pytest.mark.kafka
@pytest.mark.parametrize(
    ("listener", "mechanism"),
    [
        ("ssl", None),
        ("mtls", None),
        ("sasl_plaintext", "PLAIN"),
        ("sasl_plaintext", "SCRAM-SHA-256"),
        ("sasl_ssl", "PLAIN"),
        ("sasl_ssl", "SCRAM-SHA-512"),
    ],
)
async def test_records_arrive_through(
    listener: str, mechanism: str | None, broker: KafkaBroker, device: Certificate, tmp_path: Path
) -> None:
    assert broker.authority
    own: dict[str, Any] = {"cert": device.certificate, "key": device.key} if listener == "mtls" else {}
    security: dict[str, Any] = {}
    if listener.endswith(("ssl", "mtls")):
        security["tls"] = TlsSettings(ca=broker.authority.path, **own)
    if mechanism is not None:
        security["sasl"] = login(mechanism)
    queue = await open_queue(tmp_path)
    name = f"{listener}-{mechanism}"
    async with running(queue, broker.address(listener), name, **security):
        await queue.put(entries("secured-1", *range(10), device=name))
        await delivered(queue)
    found = [record for record in broker.read("secured-1") if record.key == name.encode()]
    assert numbers(found) == list(range(10))
    await queue.close()


@pytest.mark.proof
@pytest.mark.kafka
@pytest.mark.parametrize(
    ("listener", "security", "state", "words"),
    [
        ("sasl_plaintext", {"sasl": login("PLAIN", "wrong")}, LinkState.DOWN, "wrong user or password"),
        (
            "sasl_plaintext",
            {"sasl": login("SCRAM-SHA-256", "wrong")},
            LinkState.DOWN,
            "wrong user or password",
        ),
        ("sasl_plaintext", {}, LinkState.DOWN, "wants user and password, or TLS"),
        ("sasl_plaintext", {"sasl": login("PLAIN", user="nobody")}, LinkState.DOWN, "not authorised"),
        ("ssl", {}, LinkState.DOWN, "wants user and password, or TLS"),
        ("ssl", {"tls": TlsSettings()}, LinkState.DOWN, "not signed by an authority in kafka.tls.ca"),
        ("mtls", {"tls": "ca"}, LinkState.DOWN, "wants a client certificate"),
        ("sasl_plaintext", {"tls": "ca"}, LinkState.DOWN, "perhaps this port wants no TLS"),
        ("plain", {"sasl": login("PLAIN")}, LinkState.DOWN, "this port wants no login (SASL): remove"),
        (
            "ssl",
            {"tls": "ca", "sasl": login("PLAIN")},
            LinkState.DOWN,
            "this port wants no login (SASL): remove [kafka.sasl], or name the port that does",
        ),
        (
            "sasl_ssl",
            {"tls": "ca", "sasl": login("SCRAM-SHA-256")},
            LinkState.DOWN,
            "this port doesn't take the mechanism SCRAM-SHA-256: set kafka.sasl.mechanism to",
        ),
    ],
)
async def test_what_an_operator_reads(
    listener: str, security: dict[str, Any], state: LinkState, words: str, broker: KafkaBroker, tmp_path: Path
) -> None:
    assert broker.authority
    if security.get("tls") == "ca":
        security = security | {"tls": TlsSettings(ca=broker.authority.path)}
    queue = await open_queue(tmp_path)
    async with running(queue, broker.address(listener), "locked-out", **security) as sync:
        await queue.put(entries("secured-1", 1))
        await until(lambda: sync.status().error is not None)
        assert words in (sync.status().error or "")
        assert sync.status().state is state
        assert queue.position("main") == 0
    await queue.close()
    locked_by_tls = "sasl" not in security and (listener in ("ssl", "mtls") or "tls" in security)
    fault = "28" if locked_by_tls else "29"
    proof.tell(proof.Row(fault, f"refused, and why: {words}", 1, 1, 0, 0, None, COMMAND))


@pytest.mark.kafka
async def test_a_topic_that_may_not_be_written_is_parked_and_the_others_flow(
    broker: KafkaBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.sync.topics.PARKED_S", 1.0)
    monkeypatch.setattr("gateway.sync.sync.PARKED_S", 1.0)
    queue = await open_queue(tmp_path)
    for number in range(10):
        await queue.put(entries("secured-2" if number % 2 else "secured-1", number, device="narrow"))
    async with running(
        queue, broker.address("sasl_plaintext"), "narrow", sasl=login("PLAIN", user="narrow")
    ) as sync:
        await until(lambda: sync.status().delivered["main"] == 5)
        assert "not authorised for topic secured-2" in (sync.status().alarm or "")
        grant = AclBinding(
            *(ResourceType.TOPIC, "secured-2", ResourcePatternType.LITERAL, "User:narrow", "*"),
            *(AclOperation.WRITE, AclPermissionType.ALLOW),
        )
        broker.admin.create_acls([grant])[grant].result(30)
        await delivered(queue)
    for topic, wanted in (("secured-1", range(0, 10, 2)), ("secured-2", range(1, 10, 2))):
        found = [record for record in broker.read(topic) if record.key == b"narrow"]
        assert numbers(found) == list(wanted)
    await queue.close()


@pytest.mark.kafka
async def test_the_command_for_a_missing_topic_works_on_a_secured_port(
    broker: KafkaBroker, tmp_path: Path
) -> None:
    queue = await open_queue(tmp_path)
    server = broker.address("sasl_plaintext")
    async with running(queue, server, "missing", sasl=login("PLAIN")) as sync:
        await queue.put(entries("secured-1-missing", 1))
        await until(lambda: sync.status().alarm is not None)
        assert (
            f"topic secured-1-missing doesn't exist: kafka-topics.sh --bootstrap-server {server} "
            "--command-config admin.properties --create --topic secured-1-missing"
        ) in (sync.status().alarm or "")
    await queue.close()


@pytest.mark.kafka
async def test_a_transaction_that_broke_between_two_batches_says_why(broker: KafkaBroker) -> None:
    """The library says only that there is no transaction; or nothing, to a second batch of the partition."""
    settings = KafkaSettings(
        bootstrap_servers=[broker.address("sasl_plaintext")], sasl=login("PLAIN", user="narrow")
    )
    producer = Producer(
        bootstrap_servers=settings.bootstrap_servers, transactional_id="tidegate.broken", **options(settings)
    )
    await producer.start()
    await producer.kafka.begin_transaction()
    unbroken = TimeoutError()
    assert producer.cause(unbroken) is unbroken
    batch = producer.kafka.create_batch()
    batch.append(key=None, value=b"1", timestamp=None)
    batch.close()
    answer = await producer.kafka.send_batch(batch, "secured-3", partition=0)
    assert producer.failure
    await asyncio.wait([producer.failure], timeout=30)
    with pytest.raises(IllegalOperation) as complaint:
        await producer.kafka.send_batch(producer.kafka.create_batch(), "secured-1", partition=0)
    assert isinstance(producer.cause(complaint.value), TopicAuthorizationFailedError)
    answer.cancel()
    await producer.hard_close()


@asynccontextmanager
async def tls_port(certificate: Certificate) -> AsyncIterator[int]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate.chain, certificate.key)
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


@pytest.mark.proof
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda one: one.issue("old", valid_from=-2 * DAY, valid_until=-DAY),
            "has expired (this clock says 20",
        ),
        (
            lambda one: one.issue("new", valid_from=DAY, valid_until=2 * DAY),
            "not yet valid: this clock says 20",
        ),
        (lambda one: one.issue("other", ("kafka.example",)), "is for another name than 127.0.0.1"),
    ],
    ids=["expired", "not yet valid", "another name"],
)
async def test_certificates_that_are_refused(
    make: Callable[[Authority], Certificate], words: str, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    async with tls_port(make(authority)) as port:
        settings = KafkaSettings(bootstrap_servers=[f"127.0.0.1:{port}"], tls=TlsSettings(ca=authority.path))
        with pytest.raises(SinkRefused) as refusal:
            await ask(settings.bootstrap_servers[0], settings)
        assert words in str(refusal.value)
    what = f"refused, and why: {words.partition(' (')[0].partition(':')[0]}"
    proof.tell(proof.Row("28", what, 1, None, None, None, None, COMMAND))


@pytest.mark.parametrize(
    ("server", "words"),
    [("127.0.0.1:1", "connection refused"), ("no-such-host.invalid:9092", "the name doesn't resolve")],
)
async def test_servers_that_are_not_there(server: str, words: str) -> None:
    with pytest.raises(SinkUnavailable, match=words):
        await ask(server, KafkaSettings(bootstrap_servers=[server]))
