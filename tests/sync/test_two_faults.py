"""Two faults in one outage: each alone is survived, and the second must not undo what the first was answered with."""

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from gateway.errors import SinkRefused, SinkUnavailable
from gateway.queue.quarantine import Quarantine
from gateway.queue.state import StorageDamaged
from gateway.sync import note_board
from gateway.sync.memory import Memory
from gateway.sync.standing import Standing
from gateway.testing.sink import Fault, MemoryTopic
from tests.damage.wounds import FRAGMENTS, copy_page, flip_bit, misplace, root, swap_pages, take_rows
from tests.queue.rig import alter
from tests.sync.world import World, new_cluster, quick

SMALL = ("alpha", b"k1", 100)
OTHER = ("beta", b"k1", 100)
DOWN = SinkUnavailable("the link is down")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    quick(monkeypatch)


@pytest.fixture
async def world(tmp_path: Path) -> World:
    return World(tmp_path / "a")


def damage(world: World) -> None:
    """Seen in use; all of the file can be read."""
    Quarantine(world.folder / "queue.db").suspect(StorageDamaged("seen in use"))


async def killed_before_it_confirmed(
    world: World, monkeypatch: pytest.MonkeyPatch, *records: tuple[str, bytes, int]
) -> None:
    """Kafka has one record, and then `records`: more than the disk knows to be delivered."""
    monkeypatch.setattr("gateway.queue.queue.CONFIRM_INTERVAL_S", 3600.0)
    await world.start()
    await world.emit(SMALL)
    await world.quiet()
    await world.emit(*records)
    await world.quiet()
    await world.kill()


async def saved_without_a_link(world: World) -> None:
    damage(world)
    world.stored.clear()  # the numbers begin anew
    await world.start(connect=False)
    await world.emit(SMALL)
    await world.queue.close()


async def power_cut(world: World) -> None:
    """While nothing is connected."""
    image = await world.image()
    await world.queue.close()
    world.folder, world.stored = image.folder, dict(image.stored)


def bodies(world: World) -> Sequence[int]:
    """Which of all records that were ever emitted are in the cluster, from 1 on, and how often."""
    return sorted(int(record.value[:6]) for _, record in world.found())


async def test_saved_and_started_again_before_anything_new_it_is_no_older_copy(world: World) -> None:
    closed = world.cluster.topics.pop("beta")
    await world.start(connect=False)
    await world.emit(OTHER, SMALL, SMALL)
    await world.queue.close()
    damage(world)
    await world.start()
    await world.until(lambda: bodies(world) == [2, 3])
    await world.stop()
    await world.start()
    world.cluster.topics["beta"] = closed
    await world.until(lambda: bodies(world) == [1, 2, 3])
    assert not world.held
    await world.stop()


async def test_saved_with_nothing_in_it_and_killed_it_does_not_part(world: World) -> None:
    await world.start(connect=False)
    await world.queue.close()
    damage(world)
    await world.start()
    await world.quiet()
    queue_id = world.queue.queue_id
    await world.kill()
    await world.start()
    await world.emit(SMALL)
    await world.until(lambda: bodies(world) == [1])
    assert (world.queue.queue_id, world.sync.status().alarm) == (queue_id, None)
    await world.stop()


async def test_an_operators_word_is_not_about_what_came_after_it(world: World) -> None:
    """The power goes before the word could be acted on."""
    await world.start()
    await world.emit(SMALL)
    await world.quiet()
    await world.kill()
    world.cluster.positions.clear()
    await world.start(connect=False)
    await world.emit(SMALL)
    await power_cut(world)
    await world.start()
    await world.until(lambda: world.held)
    world.cluster.refusals.extend([DOWN] * 10_000)
    await world.sync.adopt("delivered")
    await world.emit(SMALL, SMALL)
    await world.kill()
    await world.start()
    world.cluster.refusals.clear()
    await world.until(lambda: bodies(world) == [1, 3, 4])
    await world.stop()


@pytest.mark.parametrize("fault", list(Fault))
async def test_a_word_that_a_broken_link_kept_from_being_acted_on_is_kept(world: World, fault: Fault) -> None:
    await world.start()
    await world.emit(SMALL)
    await world.quiet()
    await world.stop()
    await world.start(connect=False)
    await world.emit(SMALL, SMALL)
    await world.queue.close()
    world.clusters.append(new_cluster("two"))
    await world.start()
    await world.until(lambda: world.held)
    world.cluster.faults.append(fault)
    await world.sync.adopt(None)
    await world.until(lambda: world.drained)
    assert bodies(world)[-2:] == [2, 3]
    assert max(Counter(bodies(world)).values()) == 1
    await world.stop()


async def forked(world: World, root: Path) -> World:
    """A copy with records of both boards, that has parted from its original and sent nothing."""
    world.board = "soc:a"
    await world.start()
    await world.emit(SMALL)
    await world.quiet()
    await world.disconnect()
    await world.emit(SMALL, SMALL)
    await world.queue.close()
    copy = world.copied(root, "soc:b")
    copy.gateway = "plant-b"
    await copy.start()
    await copy.until(lambda: copy.held)
    await copy.emit(SMALL)
    before = copy.queue.queue_id
    copy.cluster.pause()
    await copy.sync.adopt("fork")
    await copy.until(lambda: copy.queue.queue_id != before)
    return copy


@pytest.mark.parametrize("damaged", [False, True])
async def test_a_fork_is_made_once_though_the_power_goes(world: World, tmp_path: Path, damaged: bool) -> None:
    copy = await forked(world, tmp_path / "b")
    await copy.kill()
    copy.cluster.resume()
    if damaged:
        damage(copy)
    await copy.start()
    await copy.until(lambda: copy.drained or copy.held)
    if damaged and copy.held:
        await copy.sync.adopt(None)
    await copy.until(lambda: copy.drained)
    assert bodies(copy) == [1, 4]
    await copy.stop()


async def test_what_is_imported_on_a_copied_card_before_it_runs_is_its_own(
    world: World, tmp_path: Path
) -> None:
    world.board = "soc:a"
    await world.start()
    await world.emit(SMALL)
    await world.quiet()
    await world.disconnect()
    await world.emit(SMALL)
    await world.queue.close()
    copy = world.copied(tmp_path / "b", "soc:b")
    copy.gateway = "plant-b"
    await copy.start(connect=False)
    await Standing(copy.queue, Memory(copy.queue), copy.gateway, copy.board, None).note_board()
    await copy.emit(SMALL)
    await copy.queue.close()
    await copy.start()
    await copy.until(lambda: copy.held)
    await copy.sync.adopt("fork")
    await copy.until(lambda: copy.drained)
    assert bodies(copy) == [1, 3]
    await copy.stop()


async def test_damage_takes_no_hold_away(world: World) -> None:
    """Nobody knows what was delivered, and a damaged database knows no better."""
    await world.start()
    await world.emit(SMALL)
    await world.quiet()
    await world.emit(SMALL)
    await world.quiet()
    await world.kill()
    world.cluster.positions.clear()
    await world.start()
    await world.until(lambda: world.held)
    await world.stop()
    damage(world)
    await world.start()
    await world.until(lambda: world.held)
    assert bodies(world) == [1, 2]
    await world.stop()


async def test_a_rival_stays_a_rival_when_our_database_is_damaged(world: World) -> None:
    await world.start()
    await world.quiet()
    world.rival()
    await world.emit(SMALL)
    await world.until(lambda: world.held)
    await world.stop()
    damage(world)
    await world.start()
    await world.until(lambda: world.held)
    assert bodies(world) == []
    await world.sync.adopt(None)
    await world.until(lambda: bodies(world) == [1])
    await world.stop()


async def test_a_dead_letter_of_a_damaged_database_is_not_delivered_beside_itself(world: World) -> None:
    await world.start()
    await world.quiet()
    await world.emit(("keyed", None, 100))
    await world.until(
        lambda: bool(world.queue.stats().lanes["main"].dead) or bool(world.queue.buried("main"))
    )
    world.cluster.refusals.extend([SinkRefused("not authorised")] * 10_000)
    await world.kill()
    damage(world)
    world.cluster.topics["keyed"] = MemoryTopic(partitions=2)
    world.cluster.refusals.clear()
    await world.start()
    await world.quiet()
    await world.queue.retry([letter.id for letter in await world.queue.dead_list(10)])
    await world.until(lambda: bodies(world) == [1])
    await world.stop()


@pytest.mark.parametrize("damaged", [False, True])
async def test_an_older_image_that_is_damaged_is_an_older_image(world: World, damaged: bool) -> None:
    """Its new records have numbers that Kafka has of others."""
    await world.start()
    await world.emit(SMALL)
    await world.quiet()
    await world.disconnect()
    image = await world.image()
    world.connect()
    await world.emit(SMALL, SMALL, SMALL)
    await world.quiet()
    await world.put_back(image)
    await world.start(connect=False)
    await world.emit(SMALL, SMALL)
    await power_cut(world)
    if damaged:
        damage(world)
    await world.start()
    await world.until(lambda: bodies(world) == [1, 2, 3, 4, 5, 6])
    await world.stop()


async def test_of_an_image_older_than_kafkas_memory_nobody_knows_though_it_is_damaged(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.sync.position.RUNS_TAIL", 2)
    await world.start()
    await world.emit(SMALL)
    await world.quiet()
    image = await world.image()
    for _ in range(4):
        await world.stop()
        await world.start()
        await world.emit(SMALL)
        await world.quiet()
    await world.put_back(image)
    await world.start(connect=False)
    await world.emit(SMALL)
    await power_cut(world)
    damage(world)
    await world.start()
    await world.until(lambda: world.held)
    assert "nobody can know" in (world.sync.status().alarm or "")
    await world.sync.adopt("lost")
    await world.until(lambda: 6 in bodies(world))
    await world.stop()


async def test_a_branch_that_is_damaged_knows_what_is_delivered_beyond_a_missing_topic(world: World) -> None:
    closed = world.cluster.topics.pop("beta")
    await world.start()
    await world.emit(SMALL, OTHER, SMALL, SMALL)
    await world.until(lambda: bodies(world) == [1, 3, 4])
    await world.quiet()
    image = await world.image()
    await world.emit(SMALL)
    await world.until(lambda: bodies(world) == [1, 3, 4, 5])
    await world.put_back(image)
    await world.start(connect=False)
    await world.emit(SMALL)
    before = world.queue.queue_id
    world.cluster.pause()
    world.connect()
    await world.until(lambda: world.queue.queue_id != before)
    await world.kill()
    world.cluster.resume()
    damage(world)
    await world.start()
    world.cluster.topics["beta"] = closed
    await world.until(lambda: bodies(world) == [1, 2, 3, 4, 5, 6])
    await world.stop()


@pytest.mark.parametrize(
    "flaw",
    ["DELETE FROM salvage", "DELETE FROM salvage WHERE lane='main'", "UPDATE salvage SET first=first+1", ""],
)
@pytest.mark.parametrize("formers", [1, 2])
async def test_damage_that_hits_what_is_known_of_a_former_queue(
    world: World, flaw: str, formers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kafka knows only the first, and has more of it than the disk knew. Of the nearest one the story tells it, too."""
    await killed_before_it_confirmed(world, monkeypatch, SMALL, SMALL)
    for _ in range(formers):
        await saved_without_a_link(world)
    alter(world.folder / "queue.db", flaw)
    damage(world)
    await world.start()
    await world.until(lambda: world.held or world.drained)
    if flaw and formers > 1:
        assert bodies(world) == [1, 2, 3]
        assert "damage has since then taken away which of its records" in (world.sync.status().alarm or "")
        await world.stop()
        damage(world)
        await world.start()
        await world.until(lambda: world.held)
        await world.sync.adopt("lost")
        await world.until(lambda: world.drained)
        assert bodies(world) == [1, 2, 2, 3, 3, 4, 5]
    else:
        assert bodies(world) == list(range(1, 4 + formers))
    await world.stop()


async def test_one_bit_is_damage_enough_for_a_former_queues_numbers(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also what the second salvage said of them is lost in a third one."""
    await killed_before_it_confirmed(world, monkeypatch, SMALL)
    for _ in range(2):
        await saved_without_a_link(world)
    take_rows(world.folder / "queue.db", "salvage")
    await world.start()
    await world.until(lambda: world.held or world.drained)
    await world.stop()
    alter(world.folder / "queue.db", "UPDATE meta SET value='' WHERE key='unmapped'")
    damage(world)
    await world.start()
    await world.until(lambda: world.held or world.drained)
    assert world.held
    assert bodies(world) == [1, 2]
    await world.stop()


async def test_an_empty_page_in_place_of_a_former_queues_numbers(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is wrong with it but what it does not say."""
    await saved_before_it_sent(world, monkeypatch)
    misplace(world.folder / "queue.db", copy_page, "gap", "salvage")
    with suppress(StorageDamaged):
        await world.start()
    await world.start()
    await world.until(lambda: world.held or world.drained)
    assert bodies(world) == [1, 2, 3]
    await world.stop()


async def test_where_no_former_queue_is_known_kafkas_word_for_one_is_enough_to_hold(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await saved_before_it_sent(world, monkeypatch)
    misplace(world.folder / "queue.db", swap_pages, "meta", "salvage")
    await world.start()
    await world.until(lambda: world.held or world.drained)
    assert bodies(world) == [1, 2]
    assert "damage has since then taken away which of its records" in (world.sync.status().alarm or "")
    await world.sync.adopt("lost")
    await world.until(lambda: world.drained)
    assert bodies(world) == [1, 2, 2, 3]
    await world.stop()


@pytest.mark.parametrize("times", [1, 2])
async def test_a_queue_whose_own_name_is_lost_may_be_the_one_that_kafka_knows(
    world: World, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the database nor the lock says it."""
    await killed_before_it_confirmed(world, monkeypatch, SMALL)
    for _ in range(times):
        await world.start(connect=False)
        await world.emit(SMALL)
        await world.queue.close()
        misplace(world.folder / "queue.db", copy_page, "gap", "meta")
        (world.folder / "queue.lock").unlink()
        world.stored.clear()
    await world.start()
    await world.emit(SMALL)
    await world.until(lambda: world.held or world.drained)
    assert world.held
    assert bodies(world) == [1, 2]
    await world.sync.adopt("lost")
    await world.until(lambda: world.drained)
    assert bodies(world) == [1, 2, 2, *range(3, 4 + times)]  # nobody knows that 2 is there
    await world.stop()


async def saved_before_it_sent(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kafka knows only the queue before, and has more of it than the disk knew."""
    await killed_before_it_confirmed(world, monkeypatch, SMALL)
    await saved_without_a_link(world)


@pytest.mark.parametrize("table", ["run", "segment"])
async def test_a_row_that_vanished_is_no_reason_to_send_others_twice(
    world: World, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.queue.queue.CONFIRM_INTERVAL_S", 3600.0)
    await world.start()
    await world.emit(SMALL)
    await world.quiet()
    await world.stop()
    await world.start()
    await world.emit(SMALL)
    await world.quiet()
    await world.emit(SMALL)
    await world.emit(SMALL)
    await world.quiet()
    await world.kill()
    await world.start(connect=False)
    await world.emit(SMALL)
    await world.queue.close()
    database = world.folder / "queue.db"
    take_rows(database, table)
    flip_bit(database, root(database, table) + FRAGMENTS, 1)  # or the page would say how many rows it has
    world.stored.clear()
    with suppress(StorageDamaged):  # then it is the next start that saves what is there
        await world.start(connect=False)
        await world.queue.close()
    await world.start()
    await world.until(lambda: world.held or world.drained)
    assert not world.held
    assert bodies(world) == ([1, 2, 3, 4, 5] if table == "run" else [1, 2, 3, 4])
    story = world.queue.stats().salvage
    assert story is not None
    assert story.main.lost_records == (0 if table == "run" else 2)  # 4 had been delivered
    await world.stop()


async def test_what_was_dropped_just_before_the_damage_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.queue.queue.CONFIRM_INTERVAL_S", 0.0)
    world = World(tmp_path / "a", max_bytes=1 << 18)
    await world.start()
    await world.emit(SMALL)
    await world.quiet()
    await world.disconnect()
    for _ in range(100):
        await world.emit(("alpha", b"k1", 10_000))
    world.connect()
    await world.until(lambda: world.queue.position("main") == 101)
    await world.emit(SMALL)
    await world.until(lambda: world.queue.position("main") == 102)
    await world.kill()
    damage(world)
    world.stored.clear()
    await world.start()
    await world.quiet()
    missing = {*range(1, 102)} - {*bodies(world)}
    assert missing == {number for first, last in world.told("dropped") for number in range(first, last + 1)}
    await world.stop()


@pytest.mark.parametrize("waiting", [0, 1])
async def test_it_does_not_matter_once_the_next_queue_has_sent(world: World, waiting: int) -> None:
    await world.start()
    await world.emit(SMALL)
    await world.quiet()
    await world.disconnect()
    await world.emit(SMALL)
    await world.queue.close()
    damage(world)
    world.stored.clear()
    await world.start()
    await world.emit(SMALL)
    await world.quiet()
    await world.disconnect()
    await world.emit(*[SMALL] * waiting)
    await world.queue.close()
    alter(world.folder / "queue.db", "DELETE FROM salvage")
    damage(world)
    world.stored.clear()
    await world.start()
    await world.emit(SMALL)
    await world.until(lambda: world.held or world.drained)
    assert bodies(world) == list(range(1, 5 + waiting))
    await world.stop()


async def test_no_import_makes_room_with_what_kafka_may_have(tmp_path: Path) -> None:
    """Behind a topic that is missing what is delivered lies on the disk, too."""
    world = World(tmp_path / "a", max_bytes=1 << 18)
    closed = world.cluster.topics.pop("beta")
    await world.start()
    await world.emit(OTHER, *[SMALL] * 5)
    await world.until(lambda: bodies(world) == [2, 3, 4, 5, 6])
    await world.stop()
    await world.start(connect=False)
    await note_board(world.queue, world.gateway)
    for _ in range(100):
        await world.emit(("alpha", b"k1", 10_000))
    await world.queue.close()
    world.cluster.topics["beta"] = closed
    await world.start()
    await world.until(lambda: world.drained)
    assert bodies(world)[:6] == [1, 2, 3, 4, 5, 6]
    assert len(bodies(world)) < 106
    assert len(bodies(world)) + world.queue.stats().lanes["main"].dropped == 106
    await world.stop()
