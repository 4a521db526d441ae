"""Certificates and passwords that change while a gateway delivers."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator, Sequence
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
ATTEMPTS_S = 20.0
ATTEMPTS_MAX = 1
"""In that time."""

SOON_S = (0.5, 1.0)
SOON = "; refused, it tries again within 1 s here"


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    listener = "sasl_plaintext"
    with KafkaBroker(
        tmp_path_factory.mktemp("doors"),
        listeners=(listener,),
        advertised={listener: free_ports(1)[0]},
        settings={f"listener.name.{listener}.connections.max.reauth.ms": str(WITHOUT_LOGIN_S * 1000)},
    ) as one:
        yield one


@pytest.fixture
async def login_link(broker: KafkaBroker) -> AsyncIterator[Proxy]:
    listener = "sasl_plaintext"
    async with Proxy(broker.address(listener), broker.advertised_port(listener)) as link:
        yield link


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not after 30 s or more."""
    monkeypatch.setattr("gateway.sync.sync.REFUSED_BACKOFF_S", SOON_S)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


@pytest.fixture
async def tls_link(kafka: KafkaBroker, authority: Authority) -> AsyncIterator[Proxy]:
    """It and not Kafka shows the certificates: those can be changed at once."""
    tls = shown(authority.issue("first"))
    async with Proxy(kafka.address("proxied"), kafka.advertised_port("proxied"), tls=tls) as link:
        yield link


def shown(certificate: Certificate) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate.chain)
    return context


async def show(link: Proxy, certificate: Certificate) -> None:
    await link.cut()
    link.tls = shown(certificate)
    await link.restore()


def clean(fault: str, what: str, load: Load, broker: KafkaBroker, times: int = 1) -> None:
    [count] = judge(broker.read(load.topic), [Stage(dict.fromkeys(load.told, 0), load.told)])
    proof.tell(proof.Row(fault, what, times, *count, load.recovery_s, COMMAND))
    assert (count.lost, count.twice) == (0, 0)


async def refused(load: Load, words: str) -> None:
    await until(lambda: words in (load.sync.status().alarm or ""))
    assert load.sync.status().state is LinkState.DOWN


@pytest.mark.usefixtures("soon")
async def test_a_broker_shows_bad_certificates_and_then_a_new_one(
    kafka: KafkaBroker, authority: Authority, tls_link: Proxy, tmp_path: Path
) -> None:
    topic = kafka.create_topic("certificates")
    bad = [
        (authority.issue("old", valid_from=-2 * DAY, valid_until=-DAY), "has expired"),
        (authority.issue("elsewhere", ("kafka.example",)), "is for another name"),
        (Authority(tmp_path / "foreign").issue("foreign"), "not signed by an authority"),
    ]
    tls = TlsSettings(ca=authority.path)
    async with Load.on(tmp_path, [tls_link.address], "certificates", topic, tls=tls) as load:
        for number, (certificate, words) in enumerate(bad):
            await show(tls_link, certificate)
            await refused(load, words)
            await show(tls_link, authority.issue(f"new-{number}"))
            await load.flows()
    what = f"a certificate expired, for another name, of a foreign authority; then renewed{SOON}"
    clean("28", what, load, kafka, 3)


@pytest.mark.usefixtures("soon")
async def test_a_new_authority_is_taken_up_from_its_file(
    kafka: KafkaBroker, authority: Authority, tls_link: Proxy, tmp_path: Path
) -> None:
    topic = kafka.create_topic("authorities")
    old, new = authority.path.read_bytes(), Authority(tmp_path / "new")
    ca = tmp_path / "ca.pem"
    ca.write_bytes(old)
    tls = TlsSettings(ca=ca)
    async with Load.on(tmp_path, [tls_link.address], "authorities", topic, tls=tls) as load:
        await show(tls_link, new.issue("first-of-the-new"))
        await refused(load, "not signed by an authority")
        ca.write_bytes(old + new.path.read_bytes())
        await load.flows()
    what = f"another authority, its certificate put into the gateway's file{SOON}"
    clean("28", what, load, kafka)


def gateway_login(passwords: Sequence[str] = ("secret",)) -> SaslSettings:
    """With the last of `passwords`."""
    password = Secret(lambda: passwords[-1], "test")
    return SaslSettings(mechanism="SCRAM-SHA-256", user="gateway", password=password)


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


@pytest.mark.usefixtures("soon")
async def test_a_password_that_is_changed_on_both_sides_is_read_again(
    broker: KafkaBroker, login_link: Proxy, tmp_path: Path
) -> None:
    topic = broker.create_topic("changed")
    broker.add_scram_user("gateway", "secret")
    known = ["secret"]
    login = gateway_login(known)
    async with Load.on(tmp_path, [login_link.address], "changed", topic, sasl=login) as load:
        await asyncio.to_thread(broker.add_scram_user, "gateway", "another")
        await refused(load, "wrong user or password")
        known.append("another")
        await load.flows()
    clean("29", f"a password changed at the broker, then in the gateway's file{SOON}", load, broker)
