"""Damaged files: a start that always succeeds, and tells the truth. `make damage` does more of them."""

import pytest

from tests.damage import ext4, interrupted
from tests.damage.damage import SILENT, UNKNOWABLE, sweep, tell_rows
from tests.damage.wounds import OF_DATABASE, OF_LOG
from tests.queue.full_disk import needs_root

TIMES = 12
SEED = 2
IMAGES = 400


@pytest.mark.slow
@pytest.mark.proof
def test_damage_is_survived_and_told() -> None:
    found = sweep(TIMES, SEED)
    assert {wound: one.broken for wound, one in found.items() if one.broken} == {}
    assert set(found) == {*OF_DATABASE, *OF_LOG}
    assert {wound for wound, one in found.items() if one.outcomes[SILENT]} <= set(UNKNOWABLE)
    tell_rows(found, f"make damage N={TIMES} SEED={SEED}")


@pytest.mark.slow
@pytest.mark.proof
def test_power_goes_while_a_damaged_queue_is_saved() -> None:
    found = interrupted.sweep(IMAGES, str(SEED))
    assert found.failures == []
    assert found.images > IMAGES / 2
    interrupted.tell_row(found, f"make interrupted N={IMAGES} SEED={SEED}")


@pytest.mark.slow
@pytest.mark.proof
@needs_root
def test_a_mounted_ext4_loses_power() -> None:
    assert ext4.run(times=3, seed=1) == []
