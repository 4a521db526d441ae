"""What the sync says about itself, and what an operator may say to it when."""

import time
from pathlib import Path

import pytest

from gateway.errors import CommandError, SinkRefused, SinkUnavailable
from gateway.sync import LinkState
from gateway.testing.sink import Fault
from tests.sync.world import World, quick

SMALL = ("alpha", b"k1", 100)
OTHER = ("beta", b"k1", 100)
TRIES = 5


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    quick(monkeypatch)


async def test_an_outage_began_when_the_first_try_failed(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.start()
    await world.emit(SMALL)
    await world.quiet()
    live = time.monotonic()
    world.cluster.refusals += [SinkUnavailable("the link is down")] * (2 * TRIES)
    world.cluster.faults.append(Fault.FAILS)
    await world.emit(SMALL)
    await world.until(lambda: world.sync.status().state is LinkState.DOWN)
    down_s, down = world.sync.status().since_s, time.monotonic()
    assert down_s <= down - live
    await world.until(lambda: len(world.cluster.refusals) <= TRIES)
    still = time.monotonic()
    assert world.sync.status().since_s >= down_s + still - down
    await world.quiet()
    assert world.sync.status().since_s <= time.monotonic() - still
    await world.stop()


async def test_nothing_can_be_agreed_to_before_it_was_found(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.cluster.refusals += [SinkUnavailable("the link is down")] * 10_000
    await world.start()
    await world.until(lambda: world.sync.status().state is LinkState.DOWN)
    for answer in (None, "lost", "delivered"):
        with pytest.raises(CommandError, match="nothing was found yet"):
            await world.sync.adopt(answer)
    await world.stop()


async def test_what_is_mended_is_no_longer_told_although_records_wait_for_a_topic(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.sync.sync.REFUSED_BACKOFF_S", (0.01, 0.01))
    world = World(tmp_path)
    missing = world.cluster.topics.pop("beta")
    await world.start()
    await world.emit(OTHER, SMALL)
    await world.quiet()
    await world.stop()
    world.cluster.refusals.append(SinkRefused("wrong user or password"))
    await world.start()
    await world.until(lambda: "wrong user" in (world.sync.status().alarm or ""))
    await world.quiet()
    await world.until(lambda: "beta" in world.sync.status().parked)
    status = world.sync.status()
    assert (status.state, status.error, status.beyond) == (LinkState.LIVE, None, 1)
    assert "beta" in (status.alarm or "")
    world.cluster.topics["beta"] = missing
    await world.balance()
