"""Reading the positions topic, so that another gateway's open transaction doesn't hide our own newest record."""

from collections.abc import Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from gateway.sync.kafka.producer import TaskOwner, close
from gateway.sync.sink import PositionRecord


async def read_positions(
    place: tuple[str, int], prefix: bytes, hint: PositionRecord | None, options: dict[str, Any]
) -> Sequence[PositionRecord]:
    """Committed records whose key starts with `prefix`, up to the end that read_uncommitted sees, waiting for the
    transactions of others to finish. From `hint` on, if that very record is still there; else from the earliest."""
    partition = TopicPartition(*place)
    async with Reader("read_uncommitted", options) as uncommitted:
        end = (await uncommitted.end_offsets([partition]))[partition]
        start = (await uncommitted.beginning_offsets([partition]))[partition]
    async with Reader("read_committed", options) as reader:
        reader.assign([partition])
        if hint is not None and start <= hint.offset < end:
            records = await _read(reader, partition, hint.offset, end, prefix)
            if records and records[0] == hint:
                return records
        return await _read(reader, partition, start, end, prefix)


async def _read(
    reader: AIOKafkaConsumer, partition: TopicPartition, start: int, end: int, prefix: bytes
) -> list[PositionRecord]:
    reader.seek(partition, start)
    found: list[PositionRecord] = []
    while await reader.position(partition) < end:
        fetched = await reader.getmany(partition, timeout_ms=200)
        found += [
            PositionRecord(message.offset, message.key, message.value)
            for message in fetched.get(partition, [])
            if message.key is not None and message.key.startswith(prefix) and message.value is not None
        ]
    return found


class Reader:
    """A consumer without a group that ends even if its broker is dead."""

    def __init__(self, isolation_level: str, options: dict[str, Any]) -> None:
        self._consumer = AIOKafkaConsumer(
            isolation_level=isolation_level, enable_auto_commit=False, fetch_max_wait_ms=100, **options
        )
        self._owner = TaskOwner()

    async def __aenter__(self) -> AIOKafkaConsumer:
        try:
            with self._owner:
                await self._consumer.start()
        except BaseException:
            await self._close()
            raise
        return self._consumer

    async def __aexit__(self, *_: object) -> None:
        await self._close()

    async def _close(self) -> None:
        try:
            await close(self._consumer.stop())
        finally:
            await self._owner.cancel()
