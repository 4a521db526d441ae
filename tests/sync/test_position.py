"""What Kafka says is delivered is believed only if a gateway can have written it: others may write to that topic."""

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import SinkHeld
from gateway.queue import Run
from gateway.sync.position import Key, Position, Progress, decode, encode, encode_key, position_at
from tests.sync.world import GATEWAY, World

OURS: dict[str, Any] = json.loads(
    encode(position_at(Progress(7, 9, {"alpha": 8}, 1), [Run("a", "main", 1), Run("b", "main", 5)], "soc:1"))
)


def test_a_position_survives_the_way_to_kafka_and_back() -> None:
    assert decode(json.dumps(OURS).encode()) == Position(
        Progress(7, 9, {"alpha": 8}, 1), "b", [("a", 1), ("b", 5)], "soc:1"
    )


@pytest.mark.parametrize(
    "change",
    [
        {"seq": 1 << 70},
        {"seq": 1 << 40},
        {"seq": -1},
        {"seq": 7.0},
        {"seq": "7"},
        {"seq": True, "frontier": None},
        {"frontier": 6},
        {"parked": {"alpha": -7}},
        {"parked": {"alpha": 7}},
        {"parked": {"alpha": 10}},
        {"parked": ["alpha"]},
        {"beyond": 1 << 70},
        {"beyond": -1},
        {"run": None},
        {"runs": []},
        {"runs": [["a", 1 << 70]]},
        {"runs": [[None, 1]]},
        {"runs": {"a": 1}},
        {"hw": 7},
    ],
    ids=str,
)
def test_what_no_gateway_wrote_is_held(change: dict[str, Any]) -> None:
    with pytest.raises(SinkHeld, match="can't be read"):
        decode(json.dumps(OURS | change).encode())


@pytest.mark.parametrize(
    "value", [b"", b"\xff", b"[]", b"null", b'{"seq": 1e999}', b"[" * 100_000], ids=lambda value: value[:9]
)
def test_what_is_no_position_is_held(value: bytes) -> None:
    with pytest.raises(SinkHeld, match="can't be read"):
        decode(value)


async def test_devices_are_heard_whatever_somebody_writes_to_the_positions(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.start()
    await world.emit(("alpha", b"k1", 10))
    await world.quiet()
    await world.disconnect()
    forged = json.dumps(OURS | {"seq": 1 << 70}).encode()
    world.cluster.commit([], [(encode_key(Key(GATEWAY, world.queue.queue_id, "main")), forged)])
    world.connect()
    await world.until(lambda: world.held)
    assert "can't be read" in (world.sync.status().alarm or "")
    assert await world.emit(("alpha", b"k1", 10))
    assert world.queue.pending("main")[0] == 1
    await world.stop()
