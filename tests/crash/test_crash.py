"""The queue through simulated power cuts, and the laws' own test: a queue that breaks a promise is caught."""

import pytest

from gateway.queue import Queue
from tests.crash.crash import KINDS, judge
from tests.crash.laws import Broken
from tests.crash.mutants import MUTANTS
from tests.proof import Row, tell

IMAGES = 1_250


@pytest.mark.slow
@pytest.mark.proof
@pytest.mark.parametrize("life", range(1000, 1004))
def test_nothing_acknowledged_is_lost_or_comes_twice_after_a_power_cut(life: int) -> None:
    judged = judge(life, IMAGES)
    assert judged.broken == []
    assert judged.images.total() > IMAGES / 2
    for kind, times in judged.images.items():
        acknowledged = judged.acknowledged[kind]
        tell(
            Row(
                "3",
                KINDS[kind],
                times,
                acknowledged,
                0,
                0,
                None,
                f"python -m tests.crash.crash --life {life}",
            )
        )


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_a_queue_that_breaks_a_promise_is_caught(mutant: type[Queue]) -> None:
    try:
        judged = judge(1, 300, queue_class=mutant)
    except Broken:
        return  # before any power was cut
    assert judged.broken
