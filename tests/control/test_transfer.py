"""Records go from one queue to another once, however often the import is interrupted or repeated."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.codec import Entry, Shape
from gateway.control.client import Client
from gateway.control.server import ControlServer
from gateway.control.transfer import (
    PART_INFLATED_BYTES_MAX,
    BadTransfer,
    Imported,
    Origin,
    export_frames,
    frame,
    import_part,
    read_frames,
    read_origin,
    read_segment,
    records,
    segment_frame,
)
from gateway.errors import CommandError
from gateway.queue import Queue
from gateway.testing.gateway import FakeGateway
from tests.control.test_server import records as device_records

SHAPE = Shape("telemetry", b"press-4", (("tg.driver", b"floor"),))


def entries(count: int, first: int = 1) -> list[Entry]:
    return [Entry(SHAPE, number, b"%d" % number) for number in range(first, first + count)]


def part(first: int, count: int) -> bytes:
    return frame(Origin("plant-1", "q1")) + segment_frame("main", first, "r1", entries(count, first))


async def waiting(queue: Queue) -> list[Entry]:
    segments = await queue.peek("main", 0, 100_000, 1 << 30)
    return [entry for segment in segments for entry in segment.entries]


async def test_an_export_holds_what_waits_byte_for_byte(gateway: FakeGateway, client: Client) -> None:
    for _ in range(3):
        await gateway.accept("floor", device_records(1500))
    gateway.queue.advance("main", 100)
    chunks: list[bytes] = await asyncio.to_thread(lambda: list(client.export()))
    frames = read_frames(chunks)
    assert read_origin(next(frames)) == Origin("plant-7", gateway.queue.queue_id)
    exported = [record for content in frames for record in records(read_segment(content))]
    assert [record.seq for record in exported] == list(range(101, 4501))
    assert {record.run for record in exported} == {gateway.queue.run_id}
    assert [record.entry for record in exported] == (await waiting(gateway.queue))[100:]


async def test_what_comes_in_while_an_export_runs_is_left_to_the_next(gateway: FakeGateway) -> None:
    await gateway.accept("floor", device_records(10))
    frames = export_frames(gateway.queue, "plant-7")
    await anext(frames)
    await gateway.accept("floor", device_records(10))
    segments = [read_segment(content) async for one in frames for content in read_frames([one])]
    assert segments[-1].last == 10


async def test_imported_records_keep_everything_and_say_where_they_came_from(gateway: FakeGateway) -> None:
    assert await import_part(gateway.queue, "f", 0, part(5, 2)) == Imported(2, 2)
    first, second = await waiting(gateway.queue)
    assert (first.time_ms, first.value, first.shape.topic, first.shape.key) == (
        5,
        b"5",
        "telemetry",
        b"press-4",
    )
    assert first.shape.headers == (*SHAPE.headers, ("tg.imported", b"plant-1/q1/main/5"))
    assert second.shape.headers[-1] == ("tg.imported", b"plant-1/q1/main/6")


async def test_a_repeated_part_is_not_stored_again_even_after_a_restart(tmp_path: Path) -> None:
    gateway = await FakeGateway.open(tmp_path)
    assert await import_part(gateway.queue, "f", 0, part(1, 10)) == Imported(10, 10)
    assert await import_part(gateway.queue, "f", 0, part(1, 10)) == Imported(10, 0)
    await gateway.queue.close()
    again = await FakeGateway.open(tmp_path)
    assert await import_part(again.queue, "f", 0, part(1, 10)) == Imported(10, 0)
    assert await import_part(again.queue, "f", 5, part(6, 10)) == Imported(15, 5)
    assert await import_part(again.queue, "g", 0, part(1, 1)) == Imported(1, 1)
    assert [entry.value for entry in await waiting(again.queue)] == [b"%d" % n for n in [*range(1, 16), 1]]
    await again.queue.close()


async def test_two_imports_of_one_file_at_once_store_it_once(
    gateway: FakeGateway, server: ControlServer, client: Client
) -> None:
    done = await asyncio.gather(
        *(asyncio.to_thread(client.import_part, "f", 0, part(1, 50)) for _ in range(4))
    )
    assert sorted(one.added for one in done) == [0, 0, 0, 50]
    assert len(await waiting(gateway.queue)) == 50


@pytest.mark.parametrize(
    ("transfer", "told"),
    [
        (b"", "the first frame is not an origin"),
        (b"\x00\x00", "middle of a frame"),
        (part(1, 3)[:-1], "middle of a frame"),
        (b"\x00\x00\x00\x01\xc1", "a frame is not msgpack"),
        (b"\x00\x00\x00\x01\x05", "a frame is not an array"),
        (segment_frame("main", 1, "r", entries(1)), "the first frame is not an origin"),
        (frame(Origin("a", "b")) + frame(("main", 1, "r", b"\x01abcd")), "checksum"),
        (frame(Origin("a", "b")) + frame(("main", 1)), "a frame is not a segment"),
        (b"\xff\xff\xff\xff", "middle of a frame"),
    ],
)
async def test_a_damaged_transfer_stores_nothing(gateway: FakeGateway, transfer: bytes, told: str) -> None:
    with pytest.raises(BadTransfer, match=told):
        await import_part(gateway.queue, "f", 0, transfer)
    assert gateway.queue.stats().lanes["main"].stored == 0


@pytest.mark.parametrize(
    "times", [[(1 << 64) - 1, -(1 << 63)], [(1 << 63) - 1, -(1 << 63)], [-(1 << 62) - 1]]
)
async def test_times_that_no_segment_can_have_are_refused(gateway: FakeGateway, times: list[int]) -> None:
    """They came one a frame; together in a commit their difference ended the gateway."""
    frames = [
        segment_frame("main", number, "r", [Entry(SHAPE, time_ms, b"x")])
        for number, time_ms in enumerate(times, 7)
    ]
    with pytest.raises(BadTransfer, match="record main/7 has no time that can be"):
        await import_part(gateway.queue, "f", 0, frame(Origin("a", "b")) + b"".join(frames))
    assert gateway.queue.stats().lanes["main"].stored == 0


async def test_the_times_that_lie_farthest_apart_are_stored(gateway: FakeGateway) -> None:
    times = [1 << 62, -(1 << 62), 1 << 62]
    whole = segment_frame("main", 1, "r", [Entry(SHAPE, time_ms, b"x") for time_ms in times])
    assert await import_part(gateway.queue, "f", 0, frame(Origin("a", "b")) + whole) == Imported(3, 3)
    assert [entry.time_ms for entry in await waiting(gateway.queue)] == times


async def test_nothing_is_imported_for_a_topic_that_only_the_gateway_writes(
    gateway: FakeGateway, server: ControlServer, client: Client
) -> None:
    for topic in gateway.own_topics:
        forged = segment_frame("main", 1, "r", [Entry(SHAPE._replace(topic=topic), 1, b"{}")])
        with pytest.raises(CommandError, match=f"record main/1 is for topic {topic}"):
            await asyncio.to_thread(client.import_part, "f", 0, frame(Origin("a", "b")) + forged)
    assert gateway.queue.stats().lanes["main"].stored == 0


@pytest.mark.parametrize("split", [1, 40])
async def test_what_a_part_inflates_to_is_bounded(gateway: FakeGateway, split: int) -> None:
    """Also by what its records have but their values; and all its frames together."""
    half = PART_INFLATED_BYTES_MAX // 2
    shape = SHAPE._replace(headers=(("h", bytes(half // split)),))
    frames = [segment_frame("main", number, "r", [Entry(shape, 1, b"x")]) for number in range(split)]
    entries_of_all = frame(Origin("a", "b")) + b"".join(frames)
    assert (await import_part(gateway.queue, "f", 0, entries_of_all)).added == split
    with pytest.raises(BadTransfer, match="or inflates to more than"):
        await import_part(gateway.queue, "g", 0, entries_of_all + b"".join(frames) * 2)


async def test_a_part_may_not_be_left_out(gateway: FakeGateway) -> None:
    with pytest.raises(BadTransfer, match="records 0 to 4 of the file are missing"):
        await import_part(gateway.queue, "f", 5, part(6, 1))


def test_frames_may_be_cut_anywhere() -> None:
    whole = part(1, 3)

    def pieces(size: int) -> Iterator[bytes]:
        return (whole[at : at + size] for at in range(0, len(whole), size))

    assert list(read_frames(pieces(1))) == list(read_frames(pieces(7))) == list(read_frames([whole]))


async def test_an_export_whose_gateway_goes_away_is_an_error(
    gateway: FakeGateway, server: ControlServer, client: Client
) -> None:
    await gateway.accept("floor", device_records(5000, size=1000))
    export = client.export()
    await asyncio.to_thread(next, export)
    await server.close()
    with pytest.raises(CommandError, match="the connection to the gateway broke"):
        await asyncio.to_thread(list, export)
