"""One cluster of three nodes for all of this folder."""

from collections.abc import Iterator

import pytest

from gateway.testing.cluster import KafkaCluster


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaCluster]:
    with KafkaCluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster
