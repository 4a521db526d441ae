"""Cards that move, are copied or put back: who goes on, who is held, and that each record arrives once."""

from pathlib import Path

import apsw
import pytest

from gateway.errors import CommandError
from tests.sync.world import World, quick

RECORD = ("alpha", b"k1", 100)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    quick(monkeypatch)


@pytest.fixture
async def world(tmp_path: Path) -> World:
    """On board A: one record is delivered, two wait."""
    world = World(tmp_path / "a")
    world.board = "soc:a"
    await world.start()
    await world.emit(RECORD)
    await world.quiet()
    await world.disconnect()
    await world.emit(RECORD, RECORD)
    await world.queue.close()
    return world


async def held(world: World) -> str:
    await world.until(lambda: world.held)
    return world.sync.status().alarm or ""


async def test_a_card_in_another_board_collects_and_waits_for_the_operator(world: World) -> None:
    world.board = "soc:b"
    await world.start()
    alarm = await held(world)
    assert "another board (soc:a, this is soc:b)" in alarm
    assert "tidegate adopt" in alarm
    assert "tidegate fork" in alarm
    await world.emit(RECORD)
    assert len(world.found()) == 1
    queue_id = world.queue.queue_id
    await world.sync.adopt(None)
    await world.balance()
    assert world.queue.queue_id == queue_id
    assert len(world.found()) == 4


async def test_a_swap_that_was_planned_needs_no_operator(world: World) -> None:
    world.board, world.replaces = "soc:b", "soc:a"
    await world.start()
    await world.until(lambda: world.drained)
    await world.stop()
    world.board = "soc:c"
    await world.start()
    assert "another board (soc:b, this is soc:c)" in await held(world)
    await world.balance()


async def test_a_copy_becomes_a_gateway_of_its_own_and_leaves_to_the_original_what_is_its(
    world: World, tmp_path: Path
) -> None:
    copy = world.copied(tmp_path / "b", "soc:b")
    await copy.start()
    await held(copy)
    await copy.emit(("beta", b"k2", 50))
    with pytest.raises(CommandError, match=r"needs a gateway\.id of its own: 'plant' is the other's"):
        await copy.sync.adopt("fork")
    await copy.stop()
    copy.gateway = "plant-b"
    await copy.start()
    assert "another board" in await held(copy)
    await copy.emit(("beta", b"k2", 50))
    await copy.sync.adopt("fork")
    await copy.until(lambda: copy.drained)
    await copy.emit(("beta", b"k2", 50))
    await copy.quiet()
    assert sorted(number for number, _ in copy.found()) == [1, 4, 5, 6]
    assert copy.queue.pending("main")[0] == 0
    await copy.stop()
    await world.start()
    await world.quiet()
    await world.stop()
    assert sorted(number for number, _ in world.found()) == [1, 2, 3, 4, 5, 6]
    world.audit()


async def test_the_power_goes_between_a_fork_and_its_first_transaction(world: World, tmp_path: Path) -> None:
    copy = world.copied(tmp_path / "b", "soc:b")
    copy.gateway = "plant-b"
    await copy.start()
    await held(copy)
    await copy.emit(RECORD)
    copy.cluster.pause()
    await copy.sync.adopt("fork")
    await copy.until(lambda: copy.queue.position("main") == 3)
    await copy.kill()
    copy.cluster.resume()
    await copy.start()
    await copy.until(lambda: copy.drained)
    assert sorted(number for number, _ in copy.found()) == [1, 4]
    await copy.stop()


async def test_a_rival_that_an_operator_has_dealt_with_is_forgotten(world: World) -> None:
    await world.start()
    await world.quiet()
    world.rival()
    await world.emit(RECORD)
    await held(world)
    older = await world.image()
    await world.sync.adopt(None)
    await world.until(lambda: world.drained)
    again = await world.image()
    await world.emit(RECORD)
    await world.quiet()
    await world.put_back(again)
    await world.start()
    await world.emit(RECORD)
    await world.until(lambda: world.drained)
    assert not world.held
    await world.put_back(older)
    await world.start()
    assert "another gateway" in await held(world)
    await world.balance()


async def test_a_board_s_own_database_is_no_copy(world: World) -> None:
    world.cluster.refusals.clear()
    world.gateway = "renamed"
    await world.start()
    await held(world)
    with pytest.raises(CommandError, match="this database is this board's own"):
        await world.sync.adopt("fork")
    await world.balance()


async def test_an_image_of_this_board_goes_on_and_one_that_another_board_sent_for_does_not(
    world: World,
) -> None:
    await world.start(connect=False)
    older = await world.image()
    world.connect()
    await world.emit(RECORD)
    await world.quiet()
    await world.put_back(older)
    await world.start()
    await world.until(lambda: world.drained)
    assert "older image" in (world.sync.status().alarm or "")
    copy = world.copied(world.root / "b", "soc:b")
    await world.stop()
    await copy.start()
    await held(copy)
    await copy.sync.adopt(None)
    await copy.until(lambda: not copy.held)
    await copy.emit(RECORD)
    await copy.quiet()
    await copy.stop()
    await world.start()
    await world.emit(RECORD)
    assert "another gateway delivers as" in await held(world)
    world.lost += copy.stored.values()
    await world.balance()
    assert len(world.found()) == 6


@pytest.mark.parametrize("restarts", [False, True])
async def test_of_two_copies_at_the_same_time_one_stops_and_each_record_arrives_once(
    world: World, tmp_path: Path, restarts: bool
) -> None:
    """Boards that have no identity: the copy is not noticed at its start."""
    world.board = None
    copy = world.copied(tmp_path / "b", None)
    await world.start()
    await copy.start(connect=False)
    await copy.emit(RECORD)
    await world.emit(RECORD)
    await world.until(lambda: world.drained)
    copy.connect()
    await copy.until(lambda: copy.drained)
    await world.emit(RECORD)
    assert "another gateway delivers as 'plant'" in await held(world)
    if restarts:
        await world.kill()
        await world.start()
        await held(world)
    transactions = copy.cluster.transactions
    await copy.emit(RECORD)
    await copy.until(lambda: copy.drained)
    assert copy.cluster.transactions > transactions
    assert not copy.held
    await copy.stop()
    world.lost = list(copy.stored.values())
    await world.balance()
    assert len(world.found()) == 3 + 2 + 2


async def test_a_copied_card_that_is_damaged_and_saved_still_tells_its_own_records(
    world: World, tmp_path: Path
) -> None:
    """Saved records get new numbers: 1 and 2 came with the card then, 3 to 5 are this board's."""
    copy = world.copied(tmp_path / "b", "soc:b")
    await copy.start()
    await held(copy)
    own = [("beta", b"k2", size) for size in (50, 60, 70)]
    await copy.emit(*own)
    await copy.stop()
    file = copy.folder / "queue.db"
    content = bytearray(file.read_bytes())
    connection = apsw.Connection(str(file))
    [(page,)] = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name='gap'")
    connection.close()
    content[(page - 1) * 4096 : page * 4096] = b"x" * 4096
    file.write_bytes(content)
    file.with_name("queue.db-wal").write_bytes(b"an unclean stop")
    copy.gateway = "plant-b"
    await copy.start()
    await held(copy)
    assert copy.queue.pending("main")[0] == 5
    await copy.sync.adopt("fork")
    await copy.until(lambda: copy.drained)
    assert [one.topic for number, one in copy.found() if number > 2] == ["beta"] * 3
    assert len(copy.found()) == 1 + 3
    await copy.stop()
