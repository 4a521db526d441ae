"""One real Kafka for the whole run, a link to it that can be broken, and a fresh topic for whoever asks."""

import itertools
import re
from collections.abc import AsyncIterator, Callable, Generator, Iterator

import pytest
from hypothesis import settings

from gateway.testing.kafka import KafkaBroker, free_ports
from gateway.testing.proxy import Proxy
from tests.descriptors import both_ends
from tests.proof import INJECTED, Row, tell

# How long an example takes says something of the machine, not of the code.
settings.register_profile("tidegate", deadline=None)
settings.load_profile("tidegate")

_numbers = itertools.count(1)

STORED_ONCE = ("31", "34")
"""Faults whose tests compare all that is stored with all that was acknowledged."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _fault(item):
            item.add_marker(pytest.mark.proof)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "call" and report.passed and (fault := _fault(item)):
        _, what, number = fault
        injected = dict(item.user_properties).get(INJECTED, what)
        none = 0 if number in STORED_ONCE else None
        command = f"pytest {item.nodeid.partition('[')[0]}"
        tell(Row(number, f"{item.path.parent.name}: {injected}", 1, None, none, none, None, command))
    return report


def _fault(item: pytest.Item) -> tuple[str, str, str] | None:
    """Kind, what and number of a fault that has a row in tests/PROOF.md."""
    mark = item.get_closest_marker("fault")
    return mark.args if mark is not None and len(mark.args) == 3 else None


@pytest.fixture
def connections() -> Iterator[int]:
    """How many a test may hold both ends of, to stand for 5,000."""
    with both_ends(5000) as count:
        yield count


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    """Its listener "proxied" is advertised where the fixture `link` listens."""
    directory = tmp_path_factory.mktemp("kafka")
    with KafkaBroker(
        directory, listeners=("plain", "proxied"), advertised={"proxied": free_ports(1)[0]}
    ) as broker:
        yield broker


@pytest.fixture
async def link(kafka: KafkaBroker) -> AsyncIterator[Proxy]:
    """The only way to Kafka for a client of `link.address`."""
    async with Proxy(kafka.address("proxied"), kafka.advertised_port("proxied")) as proxy:
        yield proxy


@pytest.fixture
def topic(kafka: KafkaBroker, request: pytest.FixtureRequest) -> str:
    """A fresh topic with one partition."""
    return kafka.create_topic(_topic_name(request))


@pytest.fixture
def new_topic(kafka: KafkaBroker, request: pytest.FixtureRequest) -> Callable[..., str]:
    """Makes fresh topics: `new_topic(partitions=3, retention_ms="1000")`."""

    def create(partitions: int = 1, **config: str) -> str:
        return kafka.create_topic(_topic_name(request), partitions, **config)

    return create


def _topic_name(request: pytest.FixtureRequest) -> str:
    words = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")
    return f"{words[:60]}-{next(_numbers)}"
