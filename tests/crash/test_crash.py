"""The queue through simulated power cuts, and the laws' own test: a queue that breaks a promise is caught."""

import pytest

from tests.crash.crash import KINDS, judge
from tests.proof import Row, tell

IMAGES = 2_500


@pytest.mark.slow
@pytest.mark.proof
@pytest.mark.parametrize("life", [1000, 1001])
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
