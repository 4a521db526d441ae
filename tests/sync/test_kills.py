"""The gateway is killed at every step of a transaction; the proxy shows that the step was reached."""

import asyncio
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from confluent_kafka import IsolationLevel, TopicPartition
from confluent_kafka.admin import OffsetSpec

from gateway.testing.kafka import Delivered, KafkaBroker
from gateway.testing.proxy import Api, Direction, Proxy
from tests import proof

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(300)]

KILLS = 5
RECORDS = 300
CHILD = Path(__file__).with_name("child.py")

Reached = Callable[[Proxy], Awaitable[None]]


async def after_begin(link: Proxy) -> None:
    """The transaction has its partitions; no record was sent. The first transaction only publishes positions."""
    await link.hold(Api.ADD_PARTITIONS_TO_TXN, Direction.DOWN, skip=1).reached.wait()


async def between_produce_answers(link: Proxy) -> None:
    await link.hold(Api.PRODUCE, Direction.DOWN, skip=2).reached.wait()


async def after_end_transaction_was_sent(link: Proxy) -> None:
    """The broker has committed, and nobody told us."""
    await link.hold(Api.END_TXN, Direction.DOWN, skip=1).reached.wait()


async def before_the_local_confirmation(link: Proxy) -> None:
    """The commit is known, the position not yet on disk: that is up to five seconds later."""
    since = len(link.frames)
    for _ in range(2):
        await link.seen(Api.END_TXN, Direction.DOWN, since=since)
        since = 1 + next(
            index
            for index in range(since, len(link.frames))
            if (link.frames[index].api_key, link.frames[index].direction) == (Api.END_TXN, Direction.DOWN)
        )


async def start(folder: Path, link: Proxy, topic: str, life: str, count: int) -> Process:
    arguments = (str(folder), link.address, "killed", topic, life, str(count))
    return await asyncio.create_subprocess_exec(sys.executable, str(CHILD), *arguments, stdout=PIPE)


@pytest.mark.parametrize(
    "point",
    [after_begin, between_produce_answers, after_end_transaction_was_sent, before_the_local_confirmation],
    ids=lambda point: point.__name__,
)
async def test_killed_at(
    point: Reached, kafka: KafkaBroker, link: Proxy, new_topic: Callable[..., str], tmp_path: Path
) -> None:
    topic = new_topic(partitions=2, **{"max.message.bytes": "4096"})
    told: list[str] = []
    for life in range(KILLS):
        reached = asyncio.ensure_future(point(link))
        process = await start(tmp_path, link, topic, f"{life:02}", 1_000_000)
        assert process.stdout is not None
        reader = asyncio.ensure_future(read(process, told))
        async with asyncio.timeout(40):
            await reached
        process.send_signal(signal.SIGKILL)
        await process.wait()
        await reader
        await link.reset()
        for trap in link.traps:
            trap.release()
        link.traps.clear()
    process = await start(tmp_path, link, topic, "99", RECORDS)
    async with asyncio.timeout(60):
        await read(process, told)
        assert await process.wait() == 0
    check(kafka.read(topic), told)


@pytest.mark.proof
async def test_stopped_until_its_transaction_has_timed_out(
    kafka: KafkaBroker, link: Proxy, topic: str, tmp_path: Path
) -> None:
    told: list[str] = []
    trap = link.hold(Api.PRODUCE, Direction.DOWN, skip=2)
    process = await start(tmp_path, link, topic, "00", RECORDS)
    reader = asyncio.ensure_future(read(process, told))
    async with asyncio.timeout(40):
        await trap.reached.wait()
    process.send_signal(signal.SIGSTOP)
    assert await asyncio.to_thread(open_transaction, kafka, topic)
    trap.release()
    async with asyncio.timeout(60):
        while await asyncio.to_thread(open_transaction, kafka, topic):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    since, began = len(link.frames), time.monotonic()
    process.send_signal(signal.SIGCONT)
    await link.seen(Api.INIT_PRODUCER_ID, Direction.DOWN, since=since)
    recovery_s = time.monotonic() - began
    async with asyncio.timeout(60):
        await reader
        assert await process.wait() == 0
    records = kafka.read(topic)
    check(records, told)
    what = "SIGSTOP of a gateway until the broker has given its transaction up"
    command = "pytest tests/sync/test_kills.py -k timed_out"
    proof.tell(proof.Row("20", what, 1, len(told), 0, 0, recovery_s, command))


def open_transaction(kafka: KafkaBroker, topic: str) -> bool:
    """Whether the topic has records of one: who reads what is committed doesn't come to the end."""
    partition = TopicPartition(topic, 0)
    latest: OffsetSpec = OffsetSpec.latest()  # type: ignore[no-untyped-call]
    committed, end = (
        kafka.admin.list_offsets({partition: latest}, isolation_level=level)[partition].result(10)
        for level in (IsolationLevel.READ_COMMITTED, IsolationLevel.READ_UNCOMMITTED)
    )
    return bool(committed.offset < end.offset)


def check(records: list[Delivered], told: list[str]) -> None:
    found = [record.value.decode() for record in records]
    assert len(found) == len(set(found)), "delivered twice"
    assert set(told) <= set(found), "told as stored, and lost"
    for key in {record.key for record in records}:
        ordered = sorted(
            (one for one in records if one.key == key), key=lambda one: (one.partition, one.offset)
        )
        values = [one.value for one in ordered]
        assert values == sorted(values), f"out of order: {key!r}"
    numbers = sorted(int(record.headers["tg.seq"]) for record in records)
    assert numbers == list(range(1, len(records) + 1))


async def read(process: Process, told: list[str]) -> None:
    assert process.stdout is not None
    async for line in process.stdout:
        told.append(line.decode().strip())
