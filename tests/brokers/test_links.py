"""The links to a real cluster break in every way while a gateway delivers over them."""

import random
from pathlib import Path

import pytest

from gateway.testing.cluster import KafkaCluster
from tests.brokers.faults import LINK_FAULTS, Fault, Site
from tests.brokers.links import Links
from tests.brokers.load import Load, prove

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.proof, pytest.mark.timeout(300)]

COMMAND = "pytest tests/brokers/test_links.py"


@pytest.mark.parametrize("fault", LINK_FAULTS, ids=lambda fault: fault.__name__)
async def test_a_link_breaks(fault: Fault, cluster: KafkaCluster, tmp_path: Path) -> None:
    seed = random.randrange(1 << 16)
    print(f"seed {seed}")
    gateway_id = fault.__name__.replace("_", "-")
    topic = cluster.create_topic(gateway_id, partitions=3)
    async with (
        Links.to(cluster) as links,
        Load.on(tmp_path, links.addresses, gateway_id, topic) as load,
    ):
        await fault(Site(links, load, random.Random(seed)))
        await load.flows()
    number, what = LINK_FAULTS[fault]
    prove(number, what, load, cluster.read(topic), COMMAND)
