"""What a driver hands over is routed, stored, counted and shown; what is refused is counted too."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import pytest

from gateway.clock import SystemClock
from gateway.driver import Mark
from gateway.errors import TooLarge, Unroutable
from gateway.metrics import Metrics
from gateway.queue import Queue, QueueSettings
from gateway.record import Record
from gateway.routing import Router
from gateway.routing.settings import RouteSettings
from gateway.runtime.devices import DEVICES_MAX
from gateway.runtime.emit import QueueEmit
from gateway.runtime.tap import BACKLOG_BYTES, BACKLOG_RECORDS, Tap

ROUTES = [RouteSettings(from_="floor", match="site/+/telemetry", topic="telemetry", key="{1}")]


class Bench(NamedTuple):
    queue: Queue
    emit: QueueEmit
    tap: Tap
    metrics: Metrics


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    clock, metrics, tap = SystemClock(), Metrics(), Tap()
    settings = QueueSettings(min_free_bytes=0, commit_interval=0.001)
    queue = await Queue.open(tmp_path / "queue.db", settings, clock)
    yield Bench(queue, QueueEmit("floor", queue, Router(ROUTES, None), tap, metrics, clock), tap, metrics)
    await queue.close()


def record(device: str = "press", channel: str = "site/7/telemetry", body: bytes = b"1") -> Record:
    return Record(channel, device, body, 1_700_000_000_000, "text/plain")


async def test_a_record_lies_in_the_queue_as_kafka_will_get_it(bench: Bench) -> None:
    await bench.emit([record()])
    entry = (await bench.queue.peek("main", 0, 1, 1 << 20))[0].entries[0]
    assert (entry.shape.topic, entry.shape.key, entry.value) == ("telemetry", b"7", b"1")
    assert dict(entry.shape.headers)["tg.device"] == b"press"


async def test_devices_show_what_they_did_last(bench: Bench) -> None:
    bench.emit.device_failed("press", "no answer")
    assert bench.emit.devices.by_name["press"].error == "no answer"
    await bench.emit([record(), record(), record("lathe")])
    devices = bench.emit.devices.by_name
    assert {name: (one.records, one.error) for name, one in devices.items()} == {
        "press": (2, None),
        "lathe": (1, None),
    }
    assert bench.emit.stored.value == 3


async def test_the_devices_kept_are_bounded(bench: Bench) -> None:
    for number in range(DEVICES_MAX + 5):
        bench.emit.device_failed(f"d{number}", "gone")
    assert (len(bench.emit.devices.by_name), bench.emit.devices.forgotten) == (DEVICES_MAX, 5)


async def test_refused_records_are_counted_by_reason_and_nothing_of_their_call_is_stored(
    bench: Bench,
) -> None:
    with pytest.raises(Unroutable):
        bench.emit([record(), record(channel="elsewhere")])
    with pytest.raises(TooLarge):
        bench.emit([record(body=b"x" * (1 << 21))])
    assert bench.queue.next_seq("main") == 1
    text = bench.metrics.render()
    assert 'tidegate_refused_total{driver="floor",reason="Unroutable"} 2' in text
    assert 'tidegate_refused_total{driver="floor",reason="TooLarge"} 1' in text


async def test_large_numbers_are_told_to_the_last_digit(bench: Bench) -> None:
    bench.metrics.gauge("tidegate_queue_max_bytes", "Disk space the queue may use.", lambda: 2_147_483_648)
    bench.emit.told.value = 12_345_678
    text = bench.metrics.render()
    assert "tidegate_queue_max_bytes 2147483648\n" in text
    assert 'tidegate_accepted_total{driver="floor"} 12345678\n' in text


async def test_an_onlooker_sees_its_device_and_learns_what_it_missed(bench: Bench) -> None:
    with bench.tap.watch("floor", "press") as onlooker, bench.tap.watch("other") as deaf:
        await bench.emit([record("lathe"), record(body=b"first")])
        await bench.emit([record()] * (BACKLOG_RECORDS + 9))
        first = await onlooker.next()
        assert (first.record.body, first.lost) == (b"first", 0)
        for _ in range(BACKLOG_RECORDS - 1):
            assert (await onlooker.next()).lost == 0
        await bench.emit([record(body=b"after")])
        after = await onlooker.next()
        assert (after.record.body, after.lost) == (b"after", 10)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await deaf.next()
    assert bench.tap.onlookers == []


async def test_an_onlooker_that_takes_nothing_keeps_few_bytes(bench: Bench) -> None:
    fits = BACKLOG_BYTES >> 20
    with bench.tap.watch() as onlooker:
        for _ in range(3 * fits):
            await bench.emit([record(body=bytes(1 << 20))])
        await bench.emit([record()])
        for _ in range(fits):
            assert (await onlooker.next()).lost == 0
        await bench.emit([record(body=bytes(1 << 20))])
        assert (await onlooker.next()).lost == 2 * fits + 1


async def test_marks_reach_the_next_process(bench: Bench, tmp_path: Path) -> None:
    await bench.emit([record()], remember=[Mark("floor/ids", b"1", b"reply", 60)])
    assert bench.emit.recall("floor/ids") == {b"1": b"reply"}
