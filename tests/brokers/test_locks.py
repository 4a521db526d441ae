"""Certificates and passwords that end while a gateway delivers, and come back in order without a restart."""

import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from gateway.settings import Secret
from gateway.sync import LinkState
from gateway.sync.settings import SaslSettings, TlsSettings
from gateway.testing.certificates import Authority, Certificate
from gateway.testing.kafka import KafkaBroker, free_ports
from gateway.testing.proxy import Proxy
from tests import proof
from tests.brokers.load import Load, Stage, judge
from tests.sync.rig import until

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.proof]

COMMAND = "pytest tests/brokers/test_locks.py"
LOGIN_S = 4
"""After that the broker closes a connection that did not show its password again."""


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    with KafkaBroker(
        tmp_path_factory.mktemp("locks"),
        listeners=("plain", "proxied", "sasl_plaintext"),
        advertised={"proxied": free_ports(1)[0]},
        settings={"connections.max.reauth.ms": str(LOGIN_S * 1000)},
    ) as one:
        yield one


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
async def door(broker: KafkaBroker, authority: Authority) -> AsyncIterator[Proxy]:
    """The way to the broker, with TLS."""
    certificate = authority.issue("door")
    async with Proxy(
        broker.address("proxied"), broker.advertised_port("proxied"), certificate=certificate
    ) as door:
        yield door


async def change(door: Proxy, certificate: Certificate) -> None:
    await door.cut()
    door.present(certificate)
    await door.restore()


def clean(fault: str, what: str, load: Load, broker: KafkaBroker) -> None:
    [count] = judge(broker.read(load.topic), [Stage(dict.fromkeys(load.told, 0), load.told)])
    proof.tell(proof.Row(fault, what, 1, *count, load.recovery_s, COMMAND))
    assert (count.lost, count.twice) == (0, 0)


def expired(authority: Authority, folder: Path) -> Certificate:
    return authority.issue("expired", valid_until=timedelta(minutes=-1))


def of_another_host(authority: Authority, folder: Path) -> Certificate:
    return authority.issue("other", ("kafka.example",))


def of_another_authority(authority: Authority, folder: Path) -> Certificate:
    return Authority(folder / "unknown").issue("unknown")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (expired, "has expired"),
        (of_another_host, "is for another name"),
        (of_another_authority, "not signed by an authority"),
    ],
    ids=lambda one: getattr(one, "__name__", ""),
)
async def test_a_certificate_that_is_refused_stops_delivery_until_it_is_replaced(
    make: Callable[[Authority, Path], Certificate],
    words: str,
    broker: KafkaBroker,
    door: Proxy,
    authority: Authority,
    tmp_path: Path,
) -> None:
    topic = broker.create_topic(make.__name__)
    async with Load.on(tmp_path, [door.address], topic, topic, tls=TlsSettings(ca=authority.path)) as load:
        await change(door, make(authority, tmp_path))
        await until(lambda: words in (load.sync.status().alarm or ""))
        assert load.sync.status().state is LinkState.DOWN
        await change(door, authority.issue("renewed"))
        await load.flows()
        await until(lambda: load.sync.status().alarm is None)
    clean("28", f"the broker's certificate {make.__name__.replace('_', ' ')}, then renewed", load, broker)


async def test_an_authority_that_is_replaced_is_trusted_when_its_file_is(
    broker: KafkaBroker, door: Proxy, authority: Authority, tmp_path: Path
) -> None:
    topic = broker.create_topic("new-authority")
    trusted = Path(shutil.copy(authority.path, tmp_path / "ca.pem"))
    successor = Authority(tmp_path / "successor")
    async with Load.on(tmp_path, [door.address], topic, topic, tls=TlsSettings(ca=trusted)) as load:
        await change(door, successor.issue("door"))
        await until(lambda: "not signed by" in (load.sync.status().alarm or ""))
        shutil.copy(successor.path, trusted)
        await load.flows()
    clean("28", "the authority replaced at the broker, then in the gateway's file", load, broker)


async def test_a_password_that_is_withdrawn_stops_delivery_until_it_is_given_again(
    broker: KafkaBroker, tmp_path: Path
) -> None:
    topic = broker.create_topic("withdrawn")
    broker.add_scram_user("gateway", "secret")
    login = SaslSettings(mechanism="SCRAM-SHA-256", user="gateway", password=Secret(lambda: "secret", "test"))
    async with Load.on(tmp_path, [broker.address("sasl_plaintext")], topic, topic, sasl=login) as load:
        broker.add_scram_user("gateway", "another")
        await until(lambda: "wrong user or password" in (load.sync.status().alarm or ""))
        assert load.sync.status().state is LinkState.DOWN
        broker.add_scram_user("gateway", "secret")
        await load.flows()
        await until(lambda: load.sync.status().alarm is None)
    clean("29", "the password changed at the broker, then changed back", load, broker)


async def test_a_password_that_is_changed_on_both_sides_is_read_again(
    broker: KafkaBroker, tmp_path: Path
) -> None:
    topic = broker.create_topic("changed")
    broker.add_scram_user("gateway", "secret")
    known = ["secret"]
    login = SaslSettings(
        mechanism="SCRAM-SHA-256", user="gateway", password=Secret(lambda: known[-1], "test")
    )
    async with Load.on(tmp_path, [broker.address("sasl_plaintext")], topic, topic, sasl=login) as load:
        since = load.sync.status().since_ms
        broker.add_scram_user("gateway", "another")
        known.append("another")
        await until(lambda: load.sync.status().since_ms != since)
        await load.flows()
    clean("29", "the password changed at the broker and in the gateway's file", load, broker)
