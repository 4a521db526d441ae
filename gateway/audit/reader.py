"""Reads a cluster into the books: positions first, then the ledger, then all that lanes went to."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition, errors
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from gateway.audit.books import Books
from gateway.audit.report import Report
from gateway.errors import SinkUnavailable
from gateway.sync.kafka.connection import options, preflight
from gateway.sync.kafka.positions import Reader
from gateway.sync.settings import KafkaSettings

STALL_S = 90.0
"""A gateway that vanished in a transaction hides what is behind it until its time-out and the broker's sweep."""

FETCH_RECORDS = 5000
ASK_MS = 30_000
FOREVER = -1
EXPIRY = ("cleanup.policy", "retention.ms", "retention.bytes")


class Progress(NamedTuple):
    """How much is read of what is known to be there, in offsets; `total` grows when the ledger names more topics."""

    topic: str
    done: int
    total: int


async def audit(
    settings: KafkaSettings, topics: Sequence[str] = (), progress: Callable[[Progress], None] = lambda _: None
) -> Report:
    """Read the positions, the ledger, and every topic that the ledger names or `topics` adds, as far as they are
    filled now, and check each gateway's numbers. The cluster's gateways may go on meanwhile.

    Only `settings`' connection and own topics are used. `progress` is called after every fetch. The exit code of the
    report is 0 if all that is missing is explained and nothing is there twice. Needs the operations Read and Describe
    on the topics, and DescribeConfigs to tell what retention may have deleted. Raises SinkUnavailable if the cluster
    can't be reached or an unfinished transaction hides records for too long, CommandError if the numbers have so many
    holes that memory would not be bounded.
    """
    await preflight(settings)
    chosen = {
        "bootstrap_servers": settings.bootstrap_servers,
        "client_id": "tidegate-audit",
        **options(settings),
    }
    admin = AIOKafkaAdminClient(request_timeout_ms=ASK_MS, **chosen)
    try:
        await admin.start()
        async with Reader("read_uncommitted", chosen) as ends, Reader("read_committed", chosen) as records:
            return await _Audit(settings, admin, ends, records, progress).run(topics)
    except (OSError, TimeoutError, errors.KafkaError) as error:
        raise SinkUnavailable(f"reading from Kafka: {error or type(error).__name__}") from error
    finally:
        await admin.close()


class _Audit:
    def __init__(
        self,
        settings: KafkaSettings,
        admin: AIOKafkaAdminClient,
        ends: AIOKafkaConsumer,
        records: AIOKafkaConsumer,
        progress: Callable[[Progress], None],
    ) -> None:
        self._settings = settings
        self._books = Books(settings.ledger_topic)
        self._admin = admin
        self._ends = ends
        self._records = records
        self._progress = progress
        self._done = self._total = 0
        self._from: dict[TopicPartition, int] = {}

    async def run(self, topics: Sequence[str]) -> Report:
        """The ledger once more at the end: what the positions passed without sending is told a little later."""
        ledger = self._settings.ledger_topic
        await self._read([self._settings.positions_topic], self._position)
        await self._look_for_expiry([ledger])
        await self._read([ledger], self._statement)
        announced = {*topics, *self._books.topics()} - {ledger}
        await self._look_for_expiry(sorted(announced))
        await self._read(sorted(announced), self._record)
        await self._read([ledger], self._statement)
        return self._books.findings()

    def _position(self, message: ConsumerRecord) -> None:
        if message.key is not None and message.value is not None:
            self._books.position(message.key, message.value)

    def _statement(self, message: ConsumerRecord) -> None:
        self._record(message)
        self._books.statement(message.headers, message.value or b"")

    def _record(self, message: ConsumerRecord) -> None:
        self._books.record((message.topic, message.partition), message.timestamp, message.headers)

    async def _read(self, topics: Sequence[str], take: Callable[[ConsumerRecord], None]) -> None:
        """All that was written up to now and is committed, or is once the transactions of others have ended."""
        partitions = await self._partitions(topics)
        if not partitions:
            return
        starts = await self._ends.beginning_offsets(partitions)
        ends = await self._ends.end_offsets(partitions)
        at = {one: max(starts[one], self._from.get(one, 0)) for one in partitions}
        self._total += sum(ends[one] - at[one] for one in partitions)
        self._records.assign(partitions)
        for one in partitions:
            self._records.seek(one, at[one])
        moved = time.monotonic()
        while open_ := [one for one in partitions if at[one] < ends[one]]:
            fetched = await self._records.getmany(*open_, timeout_ms=500, max_records=FETCH_RECORDS)
            for messages in fetched.values():
                for message in messages:
                    take(message)
            for one in open_:
                position = await self._records.position(one)
                if position > at[one]:
                    self._done += min(position, ends[one]) - min(at[one], ends[one])
                    at[one], moved = position, time.monotonic()
            self._progress(Progress(open_[0].topic, self._done, self._total))
            if time.monotonic() - moved > STALL_S:
                raise SinkUnavailable(
                    f"{open_[0].topic}, partition {open_[0].partition}: nothing can be read behind offset "
                    f"{at[open_[0]]} of {ends[open_[0]]} for {STALL_S:.0f} s: an unfinished transaction hides it; "
                    "audit again when it has ended"
                )
        self._from |= at

    async def _partitions(self, topics: Sequence[str]) -> list[TopicPartition]:
        """All topics are asked for, because a cluster may create one that is asked for by its name."""
        there = {topic["topic"]: topic["partitions"] for topic in await self._admin.describe_topics()}
        for topic in topics:
            if topic not in there:
                self._books.problem(
                    f"topic {topic} can't be read: it doesn't exist, or this user lacks the operations Read and "
                    "Describe on it"
                )
        return [TopicPartition(topic, one["partition"]) for topic in topics for one in there.get(topic, ())]

    async def _look_for_expiry(self, topics: Sequence[str]) -> None:
        partitions = await self._partitions(topics)
        if not partitions:
            return
        starts = await self._ends.beginning_offsets(partitions)
        expiry = await _expiry(self._admin, sorted({one.topic for one in partitions}))
        now_ms = round(time.time() * 1000)
        for topic, config in expiry.items():
            policy = config.get("cleanup.policy", "delete")
            if "compact" in policy.split(","):
                self._books.compacted(topic)
            oldest_ms = _oldest_ms(config, now_ms)
            for one in partitions:
                if one.topic == topic and starts[one] > 0 and oldest_ms is not None:
                    self._books.lost_beginning((topic, one.partition), oldest_ms)


def _oldest_ms(config: Mapping[str, str], now_ms: int) -> int | None:
    """Kafka may have deleted records up to this time; None if it deletes none. Of an unknown topic, all."""
    retention_ms, retention_bytes = (
        int(config.get(key, FOREVER)) for key in ("retention.ms", "retention.bytes")
    )
    if not config or retention_bytes != FOREVER:
        return now_ms
    return None if retention_ms == FOREVER else now_ms - retention_ms


async def _expiry(admin: AIOKafkaAdminClient, topics: Sequence[str]) -> Mapping[str, Mapping[str, str]]:
    """The settings that make Kafka delete records; empty for a topic whose configuration may not be read."""
    wanted = [ConfigResource(ConfigResourceType.TOPIC, topic, dict.fromkeys(EXPIRY, "")) for topic in topics]
    answers: Any = await admin.describe_configs(wanted)
    found: dict[str, dict[str, str]] = {topic: {} for topic in topics}
    for answer in answers:
        for code, _, _, name, entries in answer.resources:
            if code == 0:
                found[name] = {entry[0]: entry[1] for entry in entries if entry[1] is not None}
    return found
