"""One real Kafka for the whole run, a link to it that can be broken, and a fresh topic for whoever asks."""

import itertools
import re
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
from hypothesis import settings

from gateway.testing.kafka import KafkaBroker, free_ports
from gateway.testing.proxy import Proxy

# How long an example takes says something of the machine, not of the code.
settings.register_profile("tidegate", deadline=None)
settings.load_profile("tidegate")

_numbers = itertools.count(1)


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
