"""Power cuts at every operation of a real queue; `make crash` does many more."""

from collections import Counter

import pytest

from gateway.queue.state import StorageDamaged
from tests.crash import crash
from tests.crash.mutants import MUTANTS
from tests.crash.promise import Promise

IMAGES = 5000
SEED = 1

MISSED_WHEN_OPENED = {"trim past the confirmed position"}
"""The broken queue itself may see that numbers are missing when it is opened again, without a power cut."""


def test_a_workload_is_the_same_for_the_same_seed() -> None:
    """Or no failure could be replayed. Only the salt of SQLite's log is another one."""
    one, other = (
        [
            (type(operation), *(len(part) if isinstance(part, bytes) else part for part in operation))
            for operation in crash.record(SEED, {}, Promise(), 30).operations
        ]
        for _ in range(2)
    )
    assert one == other


def test_the_power_goes_in_every_part_of_a_workload() -> None:
    trace = crash.record(SEED, {}, Promise(), crash.STEPS)
    cut = [one.operation for one, _, _ in crash.images(trace, SEED, 200, crash.Found())]
    assert 100 <= len(cut) <= 300
    tenths = Counter(10 * operation // (len(trace.operations) + 1) for operation in cut)
    assert all(tenths[tenth] >= 5 for tenth in range(10))


@pytest.mark.slow
@pytest.mark.proof
@pytest.mark.timeout(300)
def test_power_cuts_at_every_operation() -> None:
    found = crash.sweep(IMAGES, SEED, processes=1)
    assert found.failures == []
    assert found.images.total() >= IMAGES
    crash.tell_rows(found, f"make crash N={IMAGES} SEED={SEED}")


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTANTS)
def test_a_broken_queue_is_found(name: str) -> None:
    """The recording is of the broken queue; the start afterwards is of a sound one."""
    for seed in range(1, 20):
        with pytest.MonkeyPatch.context() as patch:
            MUTANTS[name](patch)
            try:
                trace = crash.record(seed, {}, Promise(), crash.STEPS)
            except StorageDamaged:
                assert name in MISSED_WHEN_OPENED
                return
        if crash.cut_power(trace, seed, 150).failures:
            return
    pytest.fail("no power cut shows it")
