"""The Sink on Kafka: transactions with exactly_once, acknowledged batches with at_least_once."""

import asyncio
import logging
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, cast

from aiokafka import errors
from aiokafka.partitioner import murmur2
from aiokafka.producer.message_accumulator import BatchBuilder

from gateway.errors import SinkRefused, SinkUnavailable
from gateway.sync.kafka.batch import ProducerBatch
from gateway.sync.kafka.connection import FencedByNewer, InvalidRecord, options, preflight
from gateway.sync.kafka.positions import read_positions
from gateway.sync.kafka.producer import Producer, look
from gateway.sync.kafka.topics import describe, ensure, own_topics, positions_partitions, positions_unfit
from gateway.sync.settings import KafkaSettings
from gateway.sync.sink import (
    Batch,
    Fenced,
    InvalidTimestamp,
    PositionRecord,
    Receipt,
    Rejected,
    Topic,
    TopicUnusable,
)

START_TIMEOUT_S = 40.0
POSITIONS_TIMEOUT_S = 90.0
"""A gateway that vanished in a transaction on the same partition is waited for: its time-out and the broker's sweep."""

DESCRIBE_TIMEOUT_S = 15.0
TOPIC_AGE_MAX_S = 300.0
PRODUCER_AGE_MAX_S = 24 * 3600.0
"""Batch sequence numbers must never reach 2**31 on a partition."""

POSITIONS_BYTES_MAX = 1_000_000
"""What a topic takes by default is a little more."""

KEYS_MAX = 20_000
"""Keys whose partition is remembered: murmur2 in Python costs more than all the rest of a record."""

_LIMITS = {
    errors.MessageSizeTooLargeError: "max.message.bytes",
    errors.RecordListTooLargeError: "segment.bytes",
}
"""Settings of the topic that Kafka's refusals are about."""

_log = logging.getLogger(__name__)


@lru_cache(KEYS_MAX)
def partition_of(key: bytes, partitions: int) -> int:
    """As Kafka's default partitioner does."""
    return cast(int, (murmur2(key) & 0x7FFFFFFF) % partitions)


def position_batch(positions: Sequence[tuple[bytes, bytes]], transactional: bool) -> BatchBuilder:
    """All of them, or SinkRefused: records must never be committed without the position behind them."""
    batch = BatchBuilder(POSITIONS_BYTES_MAX, 0, is_transactional=transactional)
    for key, value in positions:
        appended = batch.append(timestamp=None, key=key, value=value)
        if appended is None or batch.size() > POSITIONS_BYTES_MAX:
            raise SinkRefused(f"the position {key.decode()} is too large to be written with the records")
    batch.close()
    return batch


def _rejected(bad: Sequence[Batch], kind: type[errors.KafkaError]) -> Rejected:
    """Those of one topic, for the reason is told of each. It speaks of one record: a batch of more is taken apart first."""
    topic = bad[0].topic
    alike = [batch for batch in bad if batch.topic == topic]
    if kind is InvalidRecord:
        why = "Kafka finds the record invalid; a compacted topic takes none without a key"
    else:
        size = f"{alike[0].data.size} bytes with its headers" if len(alike) == 1 else "too many bytes"
        why = f"the record has {size}, more than the topic's {_LIMITS[kind]} allows"
    return Rejected(alike, kind is not InvalidRecord, f"topic {topic}: {why}")


class KafkaSink:
    def __init__(self, settings: KafkaSettings, gateway_id: str) -> None:
        self._settings = settings
        self._gateway_id = gateway_id
        self._producer: Producer | None = None
        self._topics: dict[str, tuple[float, Topic]] = {}
        self._place = (settings.positions_topic, 0)
        self._transactional = settings.delivery == "exactly_once"

    async def open(self) -> str:
        cluster = await preflight(self._settings)
        self._topics.clear()
        self._producer = await self._start()
        try:
            async with asyncio.timeout(DESCRIBE_TIMEOUT_S):
                client = self._producer.kafka.client
                await ensure(client, own_topics(self._settings), self._settings)
                partitions = await positions_partitions(client, self._settings)
        except (TimeoutError, OSError, errors.KafkaError) as error:
            raise self._translate(error, "preparing the gateway's own topics") from error
        self._place = (self._settings.positions_topic, partition_of(self._gateway_id.encode(), partitions))
        return cluster.cluster_id

    async def positions(self, hint: PositionRecord | None) -> Sequence[PositionRecord]:
        try:
            async with asyncio.timeout(POSITIONS_TIMEOUT_S):
                prefix = f"{self._gateway_id}/".encode()
                return await read_positions(self._place, prefix, hint, self._client_options())
        except (TimeoutError, OSError, errors.KafkaError) as error:
            raise self._translate(error, "reading the positions") from error

    async def topic(self, name: str) -> Topic:
        now = asyncio.get_running_loop().time()
        known = self._topics.get(name)
        if known is not None and known[0] > now:
            return known[1]
        try:
            async with asyncio.timeout(DESCRIBE_TIMEOUT_S):
                topic = await describe(self._running().kafka.client, name, self._settings)
        except (TimeoutError, OSError, errors.KafkaError) as error:
            raise self._translate(error, f"asking for topic {name}") from error
        self._topics[name] = (now + TOPIC_AGE_MAX_S, topic)
        return topic

    async def deliver(self, batches: Sequence[Batch], positions: Sequence[tuple[bytes, bytes]]) -> Receipt:
        producer = self._running()
        if producer.indefinite or producer.age_s > PRODUCER_AGE_MAX_S:
            producer = await self._rotate(producer)
        try:
            async with asyncio.timeout(self._settings.transaction_timeout * 0.9):
                return await self._transact(producer, batches, positions)
        except (TimeoutError, OSError, AssertionError, errors.IllegalOperation, errors.KafkaError) as error:
            raise self._translate(producer.cause(error), "delivering") from error

    async def close(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            await producer.hard_close()

    async def _start(self) -> Producer:
        timeout_ms = int(self._settings.transaction_timeout * 1000)
        extra: dict[str, Any] = {"enable_idempotence": True}
        if self._transactional:
            extra = {
                "transactional_id": f"tidegate.{self._gateway_id}",
                "transaction_timeout_ms": timeout_ms,
            }
        producer = Producer(
            acks="all", compression_type=None, max_batch_size=1 << 20, **extra, **self._client_options()
        )
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await producer.start()
        except (TimeoutError, OSError, AssertionError, errors.KafkaError) as error:
            await producer.hard_close()
            raise self._translate(error, "starting the producer") from error
        except asyncio.CancelledError:
            await producer.hard_close()
            raise
        producer.indefinite = False
        return producer

    async def _rotate(self, old: Producer) -> Producer:
        """A late request of the old producer can't reach the next transaction: the new epoch fences it."""
        _log.debug("a new producer, because an answer of the old one never came or it is a day old")
        self._producer = None
        await old.hard_close()
        self._producer = await self._start()
        return self._producer

    async def _transact(
        self, producer: Producer, batches: Sequence[Batch], positions: Sequence[tuple[bytes, bytes]]
    ) -> Receipt:
        kafka = producer.kafka
        note = position_batch(positions, self._transactional)
        sent = [
            ProducerBatch(batch.data, self._settings.compression, self._transactional) for batch in batches
        ]
        if self._transactional:
            await kafka.begin_transaction()
        answers = []
        try:
            for batch, data in zip(batches, sent, strict=True):
                answers.append(await kafka.send_batch(data, batch.topic, partition=batch.partition))
            if not self._transactional:
                await self._settle(producer, batches, answers)
            answers.append(await kafka.send_batch(note, self._place[0], partition=self._place[1]))
            await self._settle(producer, batches, answers)
            if self._transactional:
                await kafka.commit_transaction()
        finally:
            for answer in answers:
                if not answer.cancel():
                    look(answer)
        written = answers[-1].result()
        if written.timestamp < 0:
            raise positions_unfit({"message.timestamp.type": "LogAppendTime"}, self._settings)
        delivered: dict[str, int] = {}
        for batch in batches:
            delivered[batch.lane] = delivered.get(batch.lane, 0) + batch.data.records
        return Receipt(
            delivered,
            written.timestamp,
            PositionRecord(written.offset, *positions[0]),
            sum(batch.size() for batch in sent) + note.size(),
        )

    async def _settle(
        self, producer: Producer, batches: Sequence[Batch], answers: Sequence["asyncio.Future[Any]"]
    ) -> None:
        """Wait for every answer; a commit would succeed although a batch failed. Raises the failure to act upon."""
        whole: asyncio.Future[list[Any]] = asyncio.gather(*answers, return_exceptions=True)
        broken = producer.failure if self._transactional else None
        await asyncio.wait(
            [whole] if broken is None else [whole, broken], return_when=asyncio.FIRST_COMPLETED
        )
        if broken is not None and broken.done():
            whole.add_done_callback(look)
            whole.cancel()
            broken.result()
        results = await whole
        failures = [
            (index, result) for index, result in enumerate(results) if isinstance(result, BaseException)
        ]
        for kind in (*_LIMITS, InvalidRecord):
            bad = [
                batches[index]
                for index, failure in failures
                if isinstance(failure, kind) and index < len(batches)
            ]
            if bad:
                raise _rejected(bad, kind)
        for _, failure in failures:
            if not isinstance(failure, errors.OutOfOrderSequenceNumber):
                raise failure
        if failures:
            raise failures[0][1]

    def _running(self) -> Producer:
        if self._producer is None:
            raise SinkUnavailable("not connected")
        return self._producer

    def _client_options(self) -> dict[str, Any]:
        return {
            "bootstrap_servers": self._settings.bootstrap_servers,
            "client_id": f"tidegate.{self._gateway_id}",
            "request_timeout_ms": int(self._settings.transaction_timeout * 600),
            **options(self._settings),
        }

    def _translate(self, error: BaseException, doing: str) -> SinkUnavailable:
        if isinstance(error, errors.ProducerFenced | errors.InvalidProducerEpoch | FencedByNewer):
            return Fenced(
                f"{doing}: another producer has our transactional id, or the transaction took too long"
            )
        if isinstance(error, errors.InvalidTimestampError):
            return InvalidTimestamp(f"{doing}: {error}")
        if isinstance(error, errors.TransactionalIdAuthorizationFailed):
            return SinkRefused(
                f"not authorised for transactional id tidegate.{self._gateway_id}: the user needs Write and Describe on it"
            )
        if isinstance(error, errors.TopicAuthorizationFailedError):
            return self._forbidden(error)
        if isinstance(error, errors.ClusterAuthorizationFailedError):
            return SinkRefused("not authorised: the user needs IdempotentWrite on the cluster")
        if isinstance(error, TimeoutError):
            return SinkUnavailable(f"{doing}: no answer in time")
        return SinkUnavailable(f"{doing}: {error or type(error).__name__}")

    def _forbidden(self, error: errors.TopicAuthorizationFailedError) -> SinkRefused:
        """aiokafka names one topic, or a set of them."""
        named = error.args[0] if error.args else "?"
        topic = str(named if isinstance(named, str) else min(named))
        message = f"not authorised for topic {topic}: the user needs the operation Write on it"
        return SinkRefused(message) if topic == self._place[0] else TopicUnusable(topic, message)
