"""The audit of a real Kafka."""

import asyncio
import json
import time
from collections.abc import Callable, Iterable

import pytest
from confluent_kafka import Producer, TopicPartition

from gateway.audit import Cause, Lane, Missing, Progress, Range, Report, audit
from gateway.errors import SinkUnavailable
from gateway.sync.settings import KafkaSettings
from gateway.testing.kafka import KafkaBroker

pytestmark = pytest.mark.kafka


class Plant:
    """Writes what a gateway would, or shouldn't."""

    def __init__(self, kafka: KafkaBroker, topic: str, ledger: str, positions: str) -> None:
        self.kafka = kafka
        self.topic = topic
        self.settings = KafkaSettings(
            bootstrap_servers=[kafka.bootstrap], ledger_topic=ledger, positions_topic=positions
        )
        self._producer = Producer({"bootstrap.servers": kafka.bootstrap})
        self._stated = 0

    def deliver(self, numbers: Iterable[int], *, partition: int = 0, age_s: int = 0) -> None:
        for seq in numbers:
            time_ms = round((time.time() - age_s) * 1000)
            self._producer.produce(
                self.topic, b"{}", partition=partition, timestamp=time_ms, headers=headers(seq, "main")
            )
        self._producer.flush(10)

    def position(self, seq: int, lane: str = "main") -> None:
        value = json.dumps({"seq": seq, "run": "r", "runs": [["r", 1]], "hw": None})
        self._producer.produce(self.settings.positions_topic, value, key=f"plant/q/{lane}")
        self._producer.flush(10)

    def say(self, kind: str, **fields: object) -> None:
        self._stated += 1
        value = json.dumps({"kind": kind, "lane": "main", "time": 0, **fields})
        self._producer.produce(
            self.settings.ledger_topic, value, key="plant", headers=headers(self._stated, "ledger")
        )
        self._producer.flush(10)
        self.position(self._stated, "ledger")

    async def audit(self, *topics: str) -> Report:
        return await audit(self.settings, topics)


def headers(seq: int, lane: str) -> list[tuple[str, str | bytes | None]]:
    named = {"tg.gateway": "plant", "tg.queue": "q", "tg.run": "r", "tg.lane": lane, "tg.seq": str(seq)}
    return list(named.items())


def main(report: Report) -> Lane:
    return next(lane for lane in report.lanes if lane.lane == "main")


@pytest.fixture
def plant(kafka: KafkaBroker, new_topic: Callable[..., str]) -> Plant:
    positions = new_topic(3, cleanup_policy="compact")
    return Plant(kafka, new_topic(2), new_topic(2, retention_ms="-1"), positions)


async def test_a_removed_and_a_repeated_record_are_found_and_a_drop_is_explained(plant: Plant) -> None:
    plant.say("topics", topics={plant.topic: 1}, from_seq=1)
    plant.say("dropped", first=31, last=40, reason="queue full: oldest dropped", records=10)
    plant.deliver([*range(1, 17), *range(18, 31), *range(41, 51)])
    plant.deliver([23, *range(51, 61)], partition=1)
    plant.position(60)
    seen: list[Progress] = []
    report = await audit(plant.settings, progress=seen.append)
    assert main(report).missing == (
        Missing(17, 17, Cause.UNEXPLAINED, ""),
        Missing(31, 40, Cause.DROPPED, "queue full: oldest dropped"),
    )
    assert main(report).twice == (Range(23, 23),)
    assert main(report).judged == 60
    assert report.exit_code == 1
    assert report.problems == ()
    assert seen[-1].done == seen[-1].total > 50


async def test_a_complete_lane_of_several_topics(plant: Plant, topic: str) -> None:
    plant.say("topics", topics={plant.topic: 1}, from_seq=1)
    plant.say("topics", topics={topic: 1}, from_seq=11)
    plant.deliver(range(1, 11))
    plant.topic = topic
    plant.deliver(range(11, 21))
    plant.position(20)
    report = await plant.audit()
    assert report.exit_code == 0
    assert [lane.complete for lane in report.lanes] == [True, True]
    assert [lane.records for lane in report.lanes] == [2, 20]


async def test_what_retention_deleted_is_no_fault(plant: Plant, new_topic: Callable[..., str]) -> None:
    plant.topic = new_topic(2, retention_ms="3600000")
    plant.say("topics", topics={plant.topic: 1}, from_seq=1)
    plant.deliver(range(1, 11), age_s=7000)
    plant.deliver([11, 12, 14])
    plant.position(14)
    deleted = TopicPartition(plant.topic, 0, 10)
    plant.kafka.admin.delete_records([deleted])[deleted].result(10)
    report = await plant.audit()
    assert [missing[:3] for missing in main(report).missing] == [
        (1, 10, Cause.EXPIRED),
        (13, 13, Cause.UNEXPLAINED),
    ]


async def test_deleting_what_retention_would_keep_is_a_fault(plant: Plant) -> None:
    plant.say("topics", topics={plant.topic: 1}, from_seq=1)
    plant.deliver(range(1, 11))
    plant.position(10)
    deleted = TopicPartition(plant.topic, 0, 4)
    plant.kafka.admin.delete_records([deleted])[deleted].result(10)
    plant.deliver(range(1, 2), partition=1)
    assert main(await plant.audit()).missing == (Missing(2, 4, Cause.UNEXPLAINED, ""),)


async def test_a_transaction_that_is_still_open_is_waited_for(plant: Plant) -> None:
    """Somebody else's: it hides our records behind it from read_committed consumers."""
    plant.say("topics", topics={plant.topic: 1}, from_seq=1)
    other = Producer({"bootstrap.servers": plant.kafka.bootstrap, "transactional.id": f"other-{plant.topic}"})
    other.init_transactions(10)
    other.begin_transaction()
    other.produce(plant.topic, b"not ours", partition=0)
    other.flush(10)
    plant.deliver(range(1, 11))
    plant.position(10)
    waiting = asyncio.Event()
    auditing = asyncio.create_task(audit(plant.settings, progress=lambda _: waiting.set()))
    await asyncio.wait_for(waiting.wait(), 20)
    await asyncio.to_thread(other.abort_transaction, 10)
    report = await auditing
    assert report.exit_code == 0
    assert main(report).records == 10


async def test_an_announced_topic_that_is_gone_is_a_problem(plant: Plant) -> None:
    plant.say("topics", topics={"gone": 1}, from_seq=1)
    plant.position(5)
    report = await plant.audit()
    assert "topic gone can't be read" in report.problems[0]
    assert main(report).counts == {Cause.UNEXPLAINED: 5}
    assert report.exit_code == 1


async def test_records_of_others_in_the_same_topic(plant: Plant) -> None:
    producer = Producer({"bootstrap.servers": plant.kafka.bootstrap})
    producer.produce(plant.topic, b"not ours")
    producer.flush(10)
    plant.deliver([1, 2])
    plant.position(2)
    report = await plant.audit(plant.topic)
    assert (report.foreign, report.records) == (1, 3)


async def test_without_kafka() -> None:
    with pytest.raises(SinkUnavailable, match="no broker listens there"):
        await audit(KafkaSettings(bootstrap_servers=["127.0.0.1:1"]))
