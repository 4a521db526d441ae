"""Images, copies and rivals on a real Kafka: nothing lost, nothing twice, and the audit understands it.

PROOF=file pytest -m proof tests/sync/test_copies.py          TIMES=5: so many images are put back
"""

import asyncio
import os
import random
import shutil
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from gateway.audit import audit
from gateway.clock import SystemClock
from gateway.queue import Queue, QueueSettings
from gateway.sync import LinkState, Sync, kafka_sync
from gateway.sync.ledger import ledger_shape
from gateway.sync.settings import KafkaSettings
from gateway.testing.kafka import KafkaBroker
from tests import proof
from tests.sync.rig import all_delivered, delivered, entries, numbers, until

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.proof]

TIMES = int(os.environ.get("TIMES", "3"))
COMMAND = "make proof"


class Site:
    """One topic that all gateways of a test deliver to; what devices were told, and what has arrived."""

    def __init__(self, kafka: KafkaBroker, topic: str) -> None:
        self.settings = KafkaSettings(
            bootstrap_servers=[kafka.bootstrap],
            linger=0.01,
            positions_topic=f"{topic}-positions",
            ledger_topic=f"{topic}-ledger",
        )
        self.told = 0
        self.recovery_s = 0.0
        self._kafka = kafka
        self._topic = topic

    async def open(self, folder: Path) -> Queue:
        ledger = ledger_shape(self.settings.ledger_topic, "plant")
        settings = QueueSettings(min_free_bytes=0, commit_interval=0.001)
        return await Queue.open(folder / "queue.db", settings, SystemClock(), ledger=ledger)

    async def store(self, queue: Queue, count: int) -> None:
        await queue.put(entries(self._topic, *range(self.told, self.told + count)))
        self.told += count

    @asynccontextmanager
    async def running(self, queue: Queue, gateway_id: str = "plant") -> AsyncIterator[Sync]:
        sync = kafka_sync(queue, self.settings, gateway_id, SystemClock())
        task = asyncio.create_task(sync.run())
        try:
            yield sync
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def recovered(self, queue: Queue, since: float) -> None:
        await delivered(queue)
        self.recovery_s = max(self.recovery_s, time.monotonic() - since)

    async def verdict(self, fault: str, what: str, times: int = 1) -> None:
        found = Counter(numbers(self._kafka.read(self._topic)))
        lost = [number for number in range(self.told) if not found[number]]
        twice = [number for number, count in found.items() if count > 1]
        command = f"TIMES={TIMES} {COMMAND}"
        proof.tell(
            proof.Row(fault, what, times, self.told, len(lost), len(twice), self.recovery_s or None, command)
        )
        assert (lost, twice) == ([], [])
        assert sorted(found) == list(range(self.told))
        report = await audit(self.settings)
        assert report.exit_code == 0, report
        assert all(lane.complete for lane in report.lanes), report


@pytest.fixture
def site(kafka: KafkaBroker, topic: str, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setattr("gateway.sync.sync.BACKOFF_S", (0.05, 0.2))
    return Site(kafka, topic)


async def held(sync: Sync) -> str:
    await until(lambda: sync.status().state is LinkState.HELD)
    return sync.status().alarm or ""


def copy(folder: Path, to: Path) -> Path:
    shutil.copytree(folder, to)
    return to


async def test_two_gateways_with_one_id_each_with_its_own_database(site: Site, tmp_path: Path) -> None:
    first, second = await site.open(tmp_path / "a"), await site.open(tmp_path / "b")
    async with site.running(first) as one:
        await site.store(first, 100)
        await delivered(first)
        async with site.running(second) as two:
            for _ in range(5):
                await site.store(second, 100)
                await site.store(first, 100)
                await delivered(second)
            assert "another gateway delivers as 'plant'" in await held(one)
            assert two.status().state is LinkState.LIVE
    async with site.running(first, "plant-2") as one:
        await held(one)
        since = time.monotonic()
        await one.adopt(None)
        await site.recovered(first, since)
    await site.verdict("21", "two gateways with one id; the one that was held then gets another id")
    for queue in (first, second):
        await queue.close()


async def test_two_copies_of_one_card_at_the_same_time(site: Site, tmp_path: Path) -> None:
    queue = await site.open(tmp_path / "a")
    async with site.running(queue):
        await site.store(queue, 100)
        await delivered(queue)
    await site.store(queue, 200)
    await queue.close()
    copy(tmp_path / "a", tmp_path / "b")
    first, second = await site.open(tmp_path / "a"), await site.open(tmp_path / "b")
    async with AsyncExitStack() as first_runs, AsyncExitStack() as second_runs:
        one = await first_runs.enter_async_context(site.running(first))
        await delivered(first)
        two = await second_runs.enter_async_context(site.running(second))

        def rivals() -> bool:
            return LinkState.HELD in (one.status().state, two.status().state)

        async with asyncio.timeout(60):
            while not rivals():
                await site.store(second, 50)
                await site.store(first, 50)
                await until(lambda: rivals() or all_delivered(first) or all_delivered(second))
        sides = [(one, first, first_runs), (two, second, second_runs)]
        if two.status().state is LinkState.HELD:
            sides.reverse()
        [(waits, its, _), (goes_on, others, others_run)] = sides
        assert "another gateway delivers as 'plant'" in await held(waits)
        await delivered(others)
        assert goes_on.status().state is LinkState.LIVE
        await others_run.aclose()
        since = time.monotonic()
        await waits.adopt(None)
        await site.recovered(its, since)
    await site.verdict("21", "two copies of one card with what waits in both; then one is switched off")
    for queue in (first, second):
        await queue.close()


async def test_an_older_image_is_put_back(site: Site, tmp_path: Path) -> None:
    seed = int(os.environ.get("SEED", random.randrange(1000)))
    print(f"SEED={seed}")
    dice = random.Random(seed)
    queue = await site.open(tmp_path / "0")
    for life in range(TIMES):
        async with site.running(queue):
            await site.store(queue, dice.randrange(1, 300))
            await delivered(queue)
        await site.store(queue, dice.randrange(300))
        image = copy(tmp_path / str(life), tmp_path / str(life + 1))
        async with site.running(queue):
            await site.store(queue, dice.randrange(1, 300))
            await delivered(queue)
        await queue.close()
        queue = await site.open(image)
        await site.store(queue, dice.randrange(1, 300))
        since = time.monotonic()
        async with site.running(queue) as sync:
            await site.recovered(queue, since)
            assert "an older image" in (sync.status().alarm or "")
            await until(lambda: queue.position("ledger") == queue.next_seq("ledger") - 1)  # noqa: B023
    await queue.close()
    await site.verdict("22", "an image is put back that the gateway had gone on from", TIMES)


async def test_the_database_is_lost(site: Site, tmp_path: Path) -> None:
    for life in range(TIMES):
        queue = await site.open(tmp_path / str(life))
        await site.store(queue, 100)
        since = time.monotonic()
        async with site.running(queue):
            await site.recovered(queue, since)
            await until(lambda: queue.position("ledger") == queue.next_seq("ledger") - 1)  # noqa: B023
        await queue.close()
    await site.verdict("23", "the database is lost after all of it was delivered", TIMES)


async def test_a_card_moves_and_a_copy_of_it_becomes_a_gateway_of_its_own(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    board: Callable[[str], None] = lambda name: monkeypatch.setenv("BALENA_DEVICE_UUID", name)  # noqa: E731
    board("a")
    queue = await site.open(tmp_path / "a")
    async with site.running(queue):
        await site.store(queue, 100)
        await delivered(queue)
    await site.store(queue, 100)
    await queue.close()
    copied = await site.open(copy(tmp_path / "a", tmp_path / "b"))
    board("b")
    async with site.running(copied, "plant-b") as sync:
        assert "another board (balena:a, this is balena:b)" in await held(sync)
        await site.store(copied, 100)
        await sync.adopt("fork")
        await delivered(copied)
    await copied.close()
    board("c")
    queue = await site.open(tmp_path / "a")
    async with site.running(queue) as sync:
        await held(sync)
        await site.store(queue, 100)
        since = time.monotonic()
        await sync.adopt(None)
        await site.recovered(queue, since)
    await queue.close()
    await site.verdict("23", "a card is copied and forks, then the original moves to a third board")
