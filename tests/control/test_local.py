"""The queue opened by the command line, while no gateway runs."""

import asyncio
from pathlib import Path

import pytest

from gateway.codec import Entry, Shape
from gateway.config import Config, load
from gateway.control.local import LocalQueue
from gateway.control.transfer import Origin, frame, segment_frame
from gateway.errors import CommandError
from gateway.testing.gateway import FakeGateway
from tests.control.test_server import records

TEXT = """
gateway = { id = "plant-7", data_dir = "data", default_topic = "all" }
queue.min_free_bytes = "0 B"
kafka.bootstrap_servers = ["kafka-1:9092"]
"""


@pytest.fixture
def config(tmp_path: Path) -> Config:
    path = tmp_path / "tidegate.toml"
    path.write_text(TEXT)
    (tmp_path / "data").mkdir()
    return load(path)


def fill(config: Config, count: int) -> list[str]:
    """A gateway's life; the ids of the runs it knows then."""

    async def life() -> list[str]:
        gateway = await FakeGateway.open(config.gateway.data_dir)
        await gateway.accept("floor", records(count))
        runs = [run.run_id for run in gateway.queue.runs("main")]
        await gateway.queue.close()
        return runs

    return asyncio.run(life())


def test_without_a_queue_none_is_made(config: Config) -> None:
    with pytest.raises(CommandError, match="no gateway runs here, and there is no queue either"):
        LocalQueue(config)
    assert not list(config.gateway.data_dir.iterdir())


def test_it_is_the_only_one(config: Config) -> None:
    fill(config, 1)
    with (
        LocalQueue(config),
        pytest.raises(CommandError, match="in use by another tidegate process") as raised,
    ):
        LocalQueue(config)
    assert raised.value.exit_code == 75
    with LocalQueue(config) as queue:
        assert queue.contents().stats.lanes["main"].pending == 1


def test_looking_often_pushes_no_run_out_that_gave_numbers(config: Config) -> None:
    """Kafka's position names a run; an unknown one would stop the gateway."""
    known = fill(config, 2)
    for _ in range(5):
        with LocalQueue(config) as queue:
            queue.peek("main", None, 1)
    again = fill(config, 2)
    assert again[:-1] == known
    assert fill(config, 0)[:-1] == again


def test_a_damaged_import_is_one_sentence(config: Config) -> None:
    fill(config, 1)
    with LocalQueue(config) as queue, pytest.raises(CommandError, match="the first frame is not an origin"):
        queue.import_part("f", 0, b"")


def test_nothing_is_imported_for_a_topic_that_only_the_gateway_writes(config: Config) -> None:
    fill(config, 1)
    forged = Entry(Shape(config.kafka.positions_topic, None, ()), 1, b"{}")
    part = frame(Origin("a", "b")) + segment_frame("main", 1, "r", [forged])
    with LocalQueue(config) as queue, pytest.raises(CommandError, match="where only the gateway writes"):
        queue.import_part("f", 0, part)
