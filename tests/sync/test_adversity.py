"""What was once lost, doubled or stuck, each alone; the sync's model found it or should have."""

from pathlib import Path

import pytest

from gateway.errors import SinkRefused, SinkUnavailable
from gateway.queue.quarantine import Quarantine
from gateway.testing.sink import Fault, MemoryTopic
from tests.sync.world import GATEWAY, World, new_cluster, quick

SMALL = ("alpha", b"k1", 100)
OTHER = ("beta", b"k1", 100)
LARGE = [("alpha", b"k1", 60_000)] * 4


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    quick(monkeypatch)


async def fill(world: World, commits: int) -> None:
    for _ in range(commits):
        await world.emit(*LARGE)


async def test_a_queue_that_was_full_before_the_first_connection_is_delivered(tmp_path: Path) -> None:
    world = World(tmp_path, "reject")
    await world.start(connect=False)
    await fill(world, 10)
    for size in (50_000, 5000, 500, 0):
        while await world.emit(("alpha", b"k1", size)):
            pass
    world.connect()
    await world.balance()


async def test_what_was_dropped_is_told_although_the_position_has_passed_it(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.start()
    await world.emit(SMALL)
    await world.quiet()
    await world.disconnect()
    await fill(world, 10)
    world.connect()
    await world.quiet()
    await world.balance()
    assert len(world.told("dropped")) > 0


async def test_what_was_dropped_before_the_connection_is_told_although_the_power_goes_after_it(
    tmp_path: Path,
) -> None:
    world = World(tmp_path)
    await world.start()
    await world.emit(SMALL)
    await world.quiet()
    await world.stop()
    await world.start(connect=False)
    await fill(world, 10)
    world.connect()
    await world.until(lambda: world.queue.position("main") > 1)
    await world.kill()
    await world.start()
    await world.balance()
    assert len(world.told("dropped")) > 0


@pytest.mark.parametrize("fault", list(Fault))
async def test_what_is_in_flight_is_not_dropped_nor_told_as_dropped(fault: Fault, tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.start()
    await world.quiet()
    world.cluster.faults.append(fault)
    world.cluster.pause()
    await world.emit(SMALL, SMALL)
    await fill(world, 10)
    world.cluster.resume()
    await world.balance()


@pytest.mark.parametrize("fault", list(Fault))
async def test_what_was_in_flight_when_the_power_went_is_dropped_or_delivered_and_counted_so(
    fault: Fault, tmp_path: Path
) -> None:
    world = World(tmp_path)
    await world.start()
    await world.quiet()
    world.cluster.faults.append(fault)
    world.cluster.pause()
    await world.emit(SMALL, SMALL)
    await world.until(lambda: not world.cluster.faults)
    await world.kill()
    await world.start(connect=False)
    await fill(world, 10)
    world.connect()
    await world.balance()


async def test_a_dead_letter_that_waits_for_its_position_is_not_dropped_too(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.start()
    await world.quiet()
    await world.emit(("keyed", None, 100), SMALL)
    await world.until(lambda: bool(world.queue.stats().lanes["main"].dead))
    world.cluster.refusals.append(SinkRefused("not authorised"))
    await fill(world, 10)
    await world.kill()
    await world.start(connect=False)
    await fill(world, 10)
    world.connect()
    await world.balance()


async def test_a_dead_letter_that_is_tried_again_counts_once_although_the_power_goes(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.start()
    for records in ([SMALL], [("keyed", None, 100), SMALL]):
        await world.emit(*records)
        await world.quiet()
    await world.retry()
    await world.kill()
    await world.start()
    await world.balance()


async def test_many_dead_letters_are_a_line_for_each_topic_and_then_one_a_minute(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path)
    await world.start()

    async def lines(*records: tuple[str, bytes | None, int]) -> list[str]:
        caplog.clear()
        for record in records:
            await world.emit(record)
            await world.quiet()
        return [message for message in caplog.messages if "put aside" in message]

    keyless, large = ("keyed", None, 100), ("beta", b"k1", 50_000)
    first = await lines(keyless, keyless, large, keyless, large)
    assert [line.split(" is ")[0] for line in first] == ["record 1 of lane main", "record 3 of lane main"]
    monkeypatch.setattr("gateway.repeats.INTERVAL_S", 0.0)
    [again] = await lines(keyless)
    assert again.endswith("(3 such since this was told last)")
    assert world.queue.stats().lanes["main"].dead == 6
    await world.disconnect()
    await world.queue.close()


@pytest.mark.parametrize("power_goes", [False, True])
async def test_behind_a_parked_topic_nothing_delivered_is_taken_for_dropped(
    power_goes: bool, tmp_path: Path
) -> None:
    world = World(tmp_path)
    closed = world.cluster.topics.pop("beta")
    await world.start()
    for _ in range(20):
        await world.emit(("beta", b"k1", 3000), ("alpha", b"k1", 3000))
    await world.quiet()
    await (world.kill() if power_goes else world.stop())
    world.cluster.refusals.extend([SinkUnavailable("connection refused")] * 100_000)
    await world.start()
    await fill(world, 10)
    world.cluster.topics["beta"] = closed
    world.cluster.refusals.clear()
    await world.balance()


async def test_a_parked_topic_survives_the_loss_of_the_positions(tmp_path: Path) -> None:
    world = World(tmp_path)
    closed = world.cluster.topics.pop("beta")
    await world.start()
    await world.emit(("beta", b"k1", 10), SMALL, ("beta", b"k1", 10), SMALL)
    await world.quiet()
    await world.stop()
    world.cluster.positions.clear()
    world.cluster.topics["beta"] = closed
    await world.start()
    await world.balance()


async def test_positions_that_are_gone_are_a_doubt_for_what_was_not_confirmed(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.start()
    for _ in range(2):
        await world.emit(SMALL)
        await world.quiet()
    await world.kill()
    world.cluster.positions.clear()
    await world.start()
    await world.until(lambda: world.held)
    assert "1 waiting records were delivered is unknown" in (world.sync.status().alarm or "")
    await world.sync.adopt("delivered")
    await world.balance()


async def test_a_move_to_another_cluster_waits_for_the_operator_and_repeats_nothing(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.cluster.topics.pop("beta")
    await world.start()
    await world.emit(("beta", b"k1", 10), SMALL)
    await world.quiet()
    await world.stop()
    world.clusters.append(new_cluster("two"))
    await world.start()
    await world.until(lambda: world.held)
    assert "cluster was 'one', is 'two'" in (world.sync.status().alarm or "")
    assert world.cluster.transactions == 0
    await world.balance()


async def test_a_cluster_that_is_an_older_copy_is_noticed(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.start()
    await world.emit(SMALL)
    await world.quiet()
    older = world.cluster.copy()
    await world.emit(SMALL)
    await world.quiet()
    await world.stop()
    world.clusters = [older]
    await world.start()
    await world.until(lambda: world.held)
    assert "record 2 to 2" in (world.sync.status().alarm or "").replace("records", "record")
    await world.sync.adopt("lost")
    await world.quiet()
    assert world.queue.position("main") == 2
    await world.stop()


async def test_an_older_image_goes_on_with_what_was_not_delivered_and_says_so(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.start()
    await world.emit(SMALL)
    await world.quiet()
    await world.disconnect()
    await world.emit(SMALL, SMALL)
    older = await world.image()
    world.connect()
    await world.emit(SMALL)
    await world.quiet()
    first_life = world.queue.queue_id
    await world.put_back(older)
    await world.start(connect=False)
    await world.emit(SMALL, SMALL)
    world.connect()
    await world.quiet()
    assert "an older image of it was put back" in (world.sync.status().alarm or "")
    assert world.queue.queue_id.startswith(f"{first_life}.")
    await world.balance()
    assert len(world.found()) == 6


async def test_an_older_image_is_put_back_while_a_topic_is_missing(tmp_path: Path) -> None:
    world = World(tmp_path)
    closed = world.cluster.topics.pop("beta")
    await world.start()
    await world.emit(SMALL, OTHER, SMALL)
    older = await world.image()
    await world.emit(OTHER, SMALL)
    await world.quiet()
    await world.put_back(older)
    await world.start(connect=False)
    await world.emit(SMALL, OTHER)
    world.connect()
    await world.quiet()
    assert len(world.found()) == 4
    world.cluster.topics["beta"] = closed
    await world.quiet()
    assert len(world.found()) == 6
    lane = world.queue.stats().lanes["main"]
    assert (lane.stored, lane.delivered, lane.pending, lane.dropped) == (5, 5, 0, 0)
    await world.balance()


async def test_a_damaged_database_is_saved_while_a_topic_is_missing(tmp_path: Path) -> None:
    world = World(tmp_path)
    closed = world.cluster.topics.pop("beta")
    await world.start()
    await world.emit(SMALL, OTHER, SMALL)
    await world.quiet()
    await world.emit(SMALL, OTHER)
    await world.quiet()
    await world.kill()
    Quarantine(world.folder / "queue.db").set_aside("damaged")
    await world.start()
    await world.emit(SMALL)
    await world.quiet()
    assert len(world.found()) == 4
    world.cluster.topics["beta"] = closed
    await world.quiet()
    lane = world.queue.stats().lanes["main"]
    assert (lane.stored, lane.delivered, lane.pending, lane.dropped) == (6, 6, 0, 0)
    world.branched = True
    await world.balance()
    assert len(world.found()) == 6


async def test_another_gateway_with_our_id_holds_us_until_an_operator_speaks(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.start()
    await world.quiet()
    world.rival()
    await world.emit(SMALL)
    await world.until(lambda: world.held)
    assert f"another gateway delivers as {GATEWAY!r}" in (world.sync.status().alarm or "")
    await world.balance()


async def test_small_batches_that_are_too_large_all_the_same_are_taken_apart(tmp_path: Path) -> None:
    """As when the topic's limit was lowered after it was asked for."""
    world = World(tmp_path)
    world.cluster.topics["alpha"] = MemoryTopic(batch_bytes_max=500)
    await world.start()
    await world.emit(*[SMALL] * 10, ("alpha", b"k1", 600), SMALL)
    await world.quiet()
    assert [letter.seq for letter in await world.queue.dead_list(10)] == [11]
    await world.balance()


async def test_a_topic_that_can_be_written_again_is_caught_up_without_a_pause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path, max_bytes=16 << 20)
    closed = world.cluster.topics.pop("alpha")
    await world.start()
    await fill(world, 10)
    await world.quiet()
    await world.stop()
    world.cluster.topics["alpha"] = closed
    monkeypatch.setattr("gateway.sync.sync.PARKED_S", 600.0)
    await world.start()
    await world.balance()


async def test_new_records_stay_behind_those_that_waited_for_their_topic(tmp_path: Path) -> None:
    world = World(tmp_path, max_bytes=16 << 20)
    closed = world.cluster.topics.pop("alpha")
    await world.start()
    await fill(world, 10)
    await world.quiet()
    world.cluster.topics["alpha"] = closed
    for _ in range(50):
        await world.emit(SMALL)
    await world.balance()
