"""Records of a real queue reach a real Kafka once and in order, whatever happens on the way."""

import asyncio
import gc
import random
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from aiokafka.errors import KafkaConnectionError, KafkaError

from gateway.clock import SystemClock
from gateway.codec import Entry, Shape
from gateway.errors import CommandError
from gateway.sync import LinkState
from gateway.sync.kafka.producer import Producer
from gateway.testing.kafka import KafkaBroker
from gateway.testing.proxy import Api, Direction, Proxy
from tests import proof
from tests.queue.rig import dead_letters
from tests.sync.rig import delivered, entries, numbers, open_queue, running, until

pytestmark = pytest.mark.kafka

COMMAND = "pytest tests/sync/test_kafka_delivery.py -m proof"

HOUR_MS = 3_600_000
NARROW_BYTES_PER_S = 5000
FETCHED_BYTES_MAX = 5000


async def test_records_arrive_once_in_order_and_say_where_they_come_from(
    kafka: KafkaBroker, topic: str, tmp_path: Path
) -> None:
    queue = await open_queue(tmp_path)
    async with running(queue, kafka.bootstrap, "plain-1") as sync:
        for start in range(0, 3000, 100):
            await queue.put(entries(topic, *range(start, start + 100)))
        await delivered(queue)
        assert sync.status().state is LinkState.LIVE
        assert sync.status().delivered["main"] == 3000
    found = kafka.read(topic)
    assert numbers(found) == list(range(3000))
    last = max(found, key=lambda record: int(record.headers["tg.seq"]))
    assert last.key == b"press"
    assert {
        name: last.headers[name] for name in ("tg.gateway", "tg.queue", "tg.run", "tg.lane", "tg.seq")
    } == {
        "tg.gateway": b"plain-1",
        "tg.queue": queue.queue_id.encode(),
        "tg.run": queue.run_id.encode(),
        "tg.lane": b"main",
        "tg.seq": b"3000",
    }
    await queue.close()


async def test_a_broker_that_hangs_delays_and_nothing_else(
    kafka: KafkaBroker, topic: str, tmp_path: Path
) -> None:
    queue = await open_queue(tmp_path)
    async with running(queue, kafka.bootstrap, "paused", transaction_timeout=6.0) as sync:
        await queue.put(entries(topic, 0))
        await delivered(queue)
        kafka.pause()
        try:
            await queue.put(entries(topic, *range(1, 50)))
            await until(lambda: sync.status().state is LinkState.DOWN)
            assert queue.position("main") == 1
        finally:
            kafka.resume()
        await delivered(queue)
    assert numbers(kafka.read(topic)) == list(range(50))
    await queue.close()


@pytest.mark.proof
@pytest.mark.parametrize("size", [1000, 1 << 20])
async def test_a_record_that_kafka_never_takes_is_put_aside_and_the_others_pass(
    size: int, kafka: KafkaBroker, new_topic: Callable[..., str], tmp_path: Path
) -> None:
    limit = {"max.message.bytes": "600"} if size == 1000 else {}
    topic = new_topic(**limit)
    queue = await open_queue(tmp_path)
    shape = entries(topic, 0)[0].shape
    # Random bytes: what compresses well would fit.
    await queue.put(
        [*entries(topic, 0, 1), Entry(shape, 0, random.Random(1).randbytes(size)), *entries(topic, 3)]
    )
    async with running(queue, kafka.bootstrap, f"poison-{size}"):
        await delivered(queue)
    assert numbers(kafka.read(topic)) == [0, 1, 3]
    [letter] = await dead_letters(queue)
    assert (letter.seq, len(letter.entry.value)) == (3, size)
    told = re.fullmatch(
        rf"topic {topic}: the record has ([0-9]+) bytes with its headers, "
        r"more than the topic's max\.message\.bytes allows",
        letter.reason,
    )
    assert told, letter.reason
    assert size < int(told[1]) < size + 1000
    stats = queue.stats().lanes["main"]
    assert (stats.stored, stats.delivered, stats.dead, stats.pending) == (4, 3, 1, 0)
    await queue.close()
    what = f"{size} bytes, more than {'its topic' if limit else 'any topic'} takes: to the dead letters once, the next flow"
    proof.tell(proof.Row("26", what, 1, 4, 0, 0, None, COMMAND))


async def test_each_dead_letter_s_reason_is_about_its_own_topic(
    kafka: KafkaBroker, new_topic: Callable[..., str], tmp_path: Path
) -> None:
    topics = [new_topic(**{"max.message.bytes": "600"}) for _ in range(2)]
    queue = await open_queue(tmp_path)
    large = random.Random(1).randbytes(1000)
    await queue.put([Entry(entries(topic, 0)[0].shape, 0, large) for topic in topics])
    async with running(queue, kafka.bootstrap, "two-topics"):
        await delivered(queue)
    letters = await dead_letters(queue)
    assert [letter.reason.partition(":")[0] for letter in letters] == [f"topic {name}" for name in topics]
    await queue.close()


async def test_a_compacted_topic_refuses_records_without_a_key_and_only_those(
    kafka: KafkaBroker, new_topic: Callable[..., str], tmp_path: Path
) -> None:
    topic = new_topic(**{"cleanup.policy": "compact"})
    queue = await open_queue(tmp_path)
    keyless = Entry(Shape(topic, None, ()), SystemClock().wall_ms(), b"no key")
    await queue.put([*entries(topic, *range(20)), keyless, *entries(topic, *range(20, 40))])
    async with running(queue, kafka.bootstrap, "compacted"):
        await delivered(queue)
    assert numbers(kafka.read(topic)) == list(range(40))
    assert [(letter.entry.value, letter.reason) for letter in await dead_letters(queue)] == [
        (
            b"no key",
            f"topic {topic}: Kafka finds the record invalid; a compacted topic takes none without a key",
        )
    ]
    await queue.close()


@pytest.mark.proof
async def test_a_missing_topic_parks_its_own_records_only_and_they_follow_in_order(
    kafka: KafkaBroker, new_topic: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.sync.topics.PARKED_S", 0.3)
    monkeypatch.setattr("gateway.sync.sync.PARKED_S", 0.3)
    there = new_topic()
    missing = f"{there}-missing"
    queue = await open_queue(tmp_path)
    for number in range(30):
        await queue.put(entries(missing if number % 3 else there, number))
    async with running(queue, kafka.bootstrap, "parked") as sync:
        await until(lambda: sync.status().delivered["main"] == 10)
        assert missing in (sync.status().alarm or "")
        assert queue.position("main") == 0
    position = queue.position("main")
    await queue.close()
    queue = await open_queue(tmp_path)
    assert queue.position("main") == position
    async with running(queue, kafka.bootstrap, "parked") as sync:
        await queue.put(entries(missing, 31))
        await queue.put(entries(there, 33))
        await until(lambda: sync.status().delivered["main"] == 1)
        kafka.create_topic(missing)
        began = time.monotonic()
        await delivered(queue)
        recovery_s = time.monotonic() - began
        assert sync.status().alarm is None
    assert numbers(kafka.read(there)) == [*range(0, 30, 3), 33]
    assert numbers(kafka.read(missing)) == [number for number in range(32) if number % 3]
    stats = queue.stats().lanes["main"]
    assert (stats.stored, stats.delivered, stats.pending, stats.dropped) == (32, 32, 0, 0)
    await queue.close()
    what = "auto-create off: its records wait, the others flow; made, also after a restart"
    proof.tell(proof.Row("25", what, 1, 32, 0, 0, recovery_s, COMMAND))


@pytest.mark.parametrize(("days", "retention_ms"), [(10, 7 * 24 * HOUR_MS), (-2 / 24, 7 * 24 * HOUR_MS)])
async def test_times_that_kafka_would_delete_or_refuse_are_moved_and_the_true_one_kept(
    days: float, retention_ms: int, kafka: KafkaBroker, new_topic: Callable[..., str], tmp_path: Path
) -> None:
    topic = new_topic(**{"retention.ms": str(retention_ms)})
    queue = await open_queue(tmp_path)
    now = SystemClock().wall_ms()
    true = round(now - days * 24 * HOUR_MS)
    await queue.put([*entries(topic, 0, 1, time_ms=true), *entries(topic, 2)])
    async with running(queue, kafka.bootstrap, f"time-{round(days)}"):
        await delivered(queue)
    first, second, third = kafka.read(topic)
    assert [one.headers.get("tg.time") for one in (first, second, third)] == [
        str(true).encode(),
        str(true).encode(),
        None,
    ]
    earliest, latest = now - retention_ms // 2 - 60_000, now + HOUR_MS
    assert earliest <= first.timestamp_ms <= latest
    assert abs(third.timestamp_ms - now) < 10_000
    await queue.close()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"delivery": "at_least_once"}, "delivery was 'exactly_once'"),
        ({"positions_topic": "elsewhere"}, "positions topic was 'tidegate-positions'"),
        ({"gateway_id": "renamed"}, "gateway id was 'moving'"),
    ],
)
async def test_records_are_never_silently_taken_to_another_place(
    change: dict[str, str], named: str, kafka: KafkaBroker, topic: str, tmp_path: Path
) -> None:
    before = "moving"
    queue = await open_queue(tmp_path)
    async with running(queue, kafka.bootstrap, before):
        await queue.put(entries(topic, 0))
        await delivered(queue)
    await queue.put(entries(topic, 1))
    now = {"gateway_id": before} | change
    async with running(queue, kafka.bootstrap, **now) as sync:
        await until(lambda: sync.status().state is LinkState.HELD)
        assert named in (sync.status().alarm or "")
        assert numbers(kafka.read(topic)) == [0]
        await sync.adopt(None)
        await delivered(queue)
        with pytest.raises(CommandError, match="nothing to decide"):
            await sync.adopt("lost")  # it would wait, and decide the next case unseen
    assert numbers(kafka.read(topic)) == [0, 1]
    await queue.close()


async def test_a_second_gateway_with_the_same_id_is_noticed_and_neither_delivers_twice(
    kafka: KafkaBroker, topic: str, tmp_path: Path
) -> None:
    first, second = await open_queue(tmp_path / "a"), await open_queue(tmp_path / "b")
    async with running(first, kafka.bootstrap, "twin") as one:
        await first.put(entries(topic, 0))
        await delivered(first)
        async with running(second, kafka.bootstrap, "twin"):
            await second.put(entries(topic, 1))
            await delivered(second)
            await first.put(entries(topic, 2))
            await until(lambda: one.status().state is LinkState.HELD)
            assert "another gateway delivers as 'twin'" in (one.status().alarm or "")
    assert numbers(kafka.read(topic)) == [0, 1]
    for queue in (first, second):
        await queue.close()


async def test_without_transactions_records_arrive_too(
    kafka: KafkaBroker, topic: str, tmp_path: Path
) -> None:
    queue = await open_queue(tmp_path)
    for _ in range(2):
        async with running(queue, kafka.bootstrap, "idempotent", delivery="at_least_once"):
            await queue.put(entries(topic, *range(100)))
            await delivered(queue)
    assert numbers(kafka.read(topic)) == [*range(100), *range(100)]
    await queue.close()


async def test_the_link_is_cut_again_and_again(
    kafka: KafkaBroker, link: Proxy, topic: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.sync.sync.BACKOFF_S", (0.05, 0.2))
    queue = await open_queue(tmp_path)
    dice = random.Random(7)
    async with running(queue, link.address, "flapping", transaction_timeout=6.0):
        for start in range(0, 2000, 100):
            link.cut_after(dice.choice((Direction.UP, Direction.DOWN)), dice.randrange(1, 4000))
            await queue.put(entries(topic, *range(start, start + 100)))
            await asyncio.sleep(dice.random() / 5)
        for direction in Direction:
            link.bytes_left[direction] = None
        await delivered(queue)
    assert numbers(kafka.read(topic)) == list(range(2000))
    await queue.close()


async def test_a_producer_that_broke_is_let_go_without_a_complaint(
    kafka: KafkaBroker, topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    """aiokafka fails what it could not send yet, and looks at only half of that."""
    producer = Producer(bootstrap_servers=kafka.bootstrap, transactional_id="broken")
    try:
        await producer.start()
        assert await producer.kafka.partitions_for(topic) == {0}
        await producer.kafka.begin_transaction()
        kafka.pause()
        batch = producer.kafka.create_batch()
        batch.append(key=None, value=b"1", timestamp=None)
        answer = await producer.kafka.send_batch(batch, topic, partition=0)
        sender = producer.kafka._sender  # noqa: SLF001
        sender.sender_task.cancel()
        await asyncio.wait([sender.sender_task])
        broken = KafkaError("Unexpected error during batch delivery")
        broken.__cause__ = KafkaConnectionError("the connection is closed")
        sender._message_accumulator.fail_all(broken)  # noqa: SLF001
        producer.kafka._txn_manager.fatal_error(broken)  # noqa: SLF001
        assert producer.cause(broken) is broken.__cause__
        with pytest.raises(KafkaError):
            await answer
    finally:
        await producer.hard_close()
        kafka.resume()
    del producer, answer, batch, sender
    gc.collect()
    assert [record.message for record in caplog.records if record.name == "asyncio"] == []


@pytest.mark.slow
async def test_a_reconnect_reads_no_positions_that_were_known(
    kafka: KafkaBroker, link: Proxy, topic: str, tmp_path: Path
) -> None:
    """Over a slow link it would never end."""
    queue = await open_queue(tmp_path)
    async with running(queue, link.address, "again", transaction_timeout=6.0) as sync:
        while sync.status().transactions < 100:
            await queue.put(entries(topic, sync.status().transactions))
            await delivered(queue)
        await link.cut()
        await queue.put(entries(topic, 100))
        await until(lambda: sync.status().state is LinkState.DOWN)
        since = len(link.frames)
        await link.restore()
        await delivered(queue)
    fetched = [
        frame.size
        for frame in link.frames[since:]
        if (frame.api_key, frame.direction) == (Api.FETCH, Direction.DOWN)
    ]
    assert 0 < sum(fetched) < FETCHED_BYTES_MAX
    await queue.close()


@pytest.mark.slow
@pytest.mark.proof
async def test_transactions_that_a_slow_link_does_not_carry_in_time_become_smaller(
    kafka: KafkaBroker, link: Proxy, topic: str, tmp_path: Path
) -> None:
    queue = await open_queue(tmp_path)
    shape, now = entries(topic, 0)[0].shape, SystemClock().wall_ms()
    await queue.put([Entry(shape, now, random.Random(number).randbytes(1000)) for number in range(100)])
    link.shape(Direction.UP, bytes_per_s=NARROW_BYTES_PER_S)
    async with running(queue, link.address, "narrow", transaction_timeout=6.0):
        await until(lambda: queue.position("main") > 0)
        await link.restore()
        await delivered(queue)
    found = [record.value for record in kafka.read(topic)]
    assert found == [random.Random(number).randbytes(1000) for number in range(100)]
    await queue.close()
    what = f"{NARROW_BYTES_PER_S * 8 // 1000} kbit/s, 6 s for a transaction, records that can't be compressed"
    proof.tell(proof.Row("13", what, 1, 100, 0, 0, None, COMMAND))
