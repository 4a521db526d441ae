"""Certificates and passwords that change while a gateway delivers."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from gateway.settings import Secret
from gateway.sync import LinkState
from gateway.sync.settings import SaslSettings, TlsSettings
from gateway.testing.certificates import Authority, Certificate
from gateway.testing.kafka import KafkaBroker, free_ports
from gateway.testing.proxy import UP, Api, Proxy
from tests import proof
from tests.brokers.load import Load, Stage, judge
from tests.sync.rig import until

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.proof]

COMMAND = "pytest tests/brokers/test_doors.py"
DAY = timedelta(days=1)
WITHOUT_LOGIN_S = 3
ATTEMPTS_S = 8.0
ATTEMPTS_MAX = 10
"""In that time: a client that tries again and again makes hundreds."""


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    listeners = ("ssl", "sasl_plaintext")
    with KafkaBroker(
        tmp_path_factory.mktemp("doors"),
        listeners=listeners,
        advertised=dict(zip(listeners, free_ports(2), strict=True)),
        settings={"listener.name.sasl_plaintext.connections.max.reauth.ms": str(WITHOUT_LOGIN_S * 1000)},
    ) as one:
        yield one


@pytest.fixture
async def tls_link(broker: KafkaBroker) -> AsyncIterator[Proxy]:
    async with Proxy(broker.address("ssl"), broker.advertised_port("ssl"), taken_apart=False) as link:
        yield link


@pytest.fixture
async def login_link(broker: KafkaBroker) -> AsyncIterator[Proxy]:
    listener = "sasl_plaintext"
    async with Proxy(broker.address(listener), broker.advertised_port(listener)) as link:
        yield link


def clean(fault: str, what: str, load: Load, broker: KafkaBroker, times: int = 1) -> None:
    [count] = judge(broker.read(load.topic), [Stage(dict.fromkeys(load.told, 0), load.told)])
    proof.tell(proof.Row(fault, what, times, *count, load.recovery_s, COMMAND))
    assert (count.lost, count.twice) == (0, 0)


async def refused(load: Load, words: str) -> None:
    await until(lambda: words in (load.sync.status().alarm or ""))
    assert load.sync.status().state is LinkState.DOWN


async def test_a_broker_shows_bad_certificates_and_then_a_new_one(
    broker: KafkaBroker, tls_link: Proxy, tmp_path: Path
) -> None:
    assert broker.authority
    topic = broker.create_topic("certificates")
    issue = broker.authority.issue
    bad: list[tuple[Certificate, str]] = [
        (issue("old", valid_from=-2 * DAY, valid_until=-DAY), "has expired"),
        (issue("elsewhere", ("kafka.example",)), "is for another name"),
        (Authority(tmp_path / "foreign").issue("foreign"), "not signed by an authority"),
    ]
    tls = TlsSettings(ca=broker.authority.path)
    async with Load.on(tmp_path, [tls_link.address], "certificates", topic, tls=tls) as load:
        for number, (certificate, words) in enumerate(bad):
            await asyncio.to_thread(broker.show, "ssl", certificate)
            await tls_link.reset()
            await refused(load, words)
            await asyncio.to_thread(broker.show, "ssl", issue(f"good-{number}"))
            await load.flows()
    clean(
        "28", "a certificate expired, for another name, of a foreign authority; then renewed", load, broker, 3
    )


async def test_a_new_authority_is_taken_up_from_its_file(
    broker: KafkaBroker, tls_link: Proxy, tmp_path: Path
) -> None:
    assert broker.authority
    topic = broker.create_topic("authorities")
    old, new = broker.authority.path.read_bytes(), Authority(tmp_path / "new")
    ca = tmp_path / "ca.pem"
    ca.write_bytes(old)
    tls = TlsSettings(ca=ca)
    async with Load.on(tmp_path, [tls_link.address], "authorities", topic, tls=tls) as load:
        await asyncio.to_thread(broker.show, "ssl", new.issue("by-the-new"))
        await tls_link.reset()
        await refused(load, "not signed by an authority")
        ca.write_bytes(old + new.path.read_bytes())
        await load.flows()
    await asyncio.to_thread(broker.show, "ssl", broker.authority.issue("good-again"))
    clean("28", "another authority, its certificate put into the gateway's file", load, broker)


def gateway_login() -> SaslSettings:
    return SaslSettings(mechanism="SCRAM-SHA-256", user="gateway", password=Secret(lambda: "secret", "test"))


async def test_a_password_is_withdrawn_and_given_back(
    broker: KafkaBroker, login_link: Proxy, tmp_path: Path
) -> None:
    topic = broker.create_topic("withdrawn")
    broker.add_scram_user("gateway", "secret")
    async with Load.on(tmp_path, [login_link.address], "withdrawn", topic, sasl=gateway_login()) as load:
        await asyncio.to_thread(broker.add_scram_user, "gateway", "another")
        await refused(load, "wrong user or password")
        since = len(login_link.frames)
        await asyncio.sleep(ATTEMPTS_S)
        attempts = [
            frame
            for frame in login_link.frames[since:]
            if (frame.api_key, frame.direction) == (Api.SASL_HANDSHAKE, UP)
        ]
        assert len(attempts) <= ATTEMPTS_MAX
        await asyncio.to_thread(broker.add_scram_user, "gateway", "secret")
        await load.flows()
    clean("29", f"a password withdrawn for {ATTEMPTS_S:.0f} s; {len(attempts)} attempts", load, broker)


async def test_a_broker_closes_connections_that_do_not_log_in_again(
    broker: KafkaBroker, login_link: Proxy, tmp_path: Path
) -> None:
    topic = broker.create_topic("again")
    broker.add_scram_user("gateway", "secret")
    async with Load.on(tmp_path, [login_link.address], "again", topic, sasl=gateway_login()) as load:
        before = {frame.connection for frame in login_link.frames}
        await until(lambda: len({frame.connection for frame in login_link.frames} - before) >= 5)
        await load.flows()
    clean("29", f"connections closed {WITHOUT_LOGIN_S} s after the login", load, broker, 5)
