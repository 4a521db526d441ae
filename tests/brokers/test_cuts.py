"""`make cuts`, small: every fault of a cluster and its links once, except the like of one another."""

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.testing.cluster import KafkaCluster
from gateway.testing.kafka import Delivered
from tests import proof
from tests.brokers.cuts import suffer
from tests.brokers.faults import FAULTS
from tests.brokers.load import Count, Stage, judge

COMMAND = "pytest tests/brokers/test_cuts.py"
ONE_OF = ("killed", "moved", "cut_within")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[KafkaCluster]:
    with KafkaCluster(tmp_path / "kafka") as cluster:
        yield cluster


@pytest.mark.kafka
@pytest.mark.slow
@pytest.mark.proof
@pytest.mark.timeout(600)
async def test_nothing_is_lost_and_nothing_is_there_twice(
    cluster: KafkaCluster, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    seed = os.environ.get("SEED") or str(random.randrange(1 << 16))
    command = f"SEED={seed} {COMMAND}"
    print(command)
    dice = random.Random(seed)
    alike = {
        word: dice.choice([fault for fault in FAULTS if word in fault.__name__]).__name__ for word in ONE_OF
    }
    deck = [
        fault
        for fault in FAULTS
        if all(word not in fault.__name__ or fault.__name__ == alike[word] for word in ONE_OF)
    ]
    rows = await suffer(cluster, tmp_path, deck, dice, command)
    assert "doesn't exist" not in caplog.text  # the gateway's own topics, which it had just made
    for row in rows:
        proof.tell(row)
    assert [(row.what, row.lost, row.twice) for row in rows if row.lost or row.twice] == []


def found(*numbers: int) -> list[Delivered]:
    return [Delivered(0, offset, b"press", b"%d" % number, {}, 0) for offset, number in enumerate(numbers)]


def test_what_is_lost_or_there_twice_is_counted_where_it_happened() -> None:
    stages = [Stage({"press": 0}, {"press": 3}), Stage({"press": 3}, {"press": 5})]
    assert judge(found(0, 1, 2, 3, 4, 5), stages) == [Count(3, 0, 0), Count(2, 0, 0)]
    assert judge(found(0, 2, 3, 3, 4), stages) == [Count(3, 1, 0), Count(2, 0, 1)]
    with pytest.raises(AssertionError, match="press: 1 comes after 2"):
        judge(found(0, 2, 1), stages)
