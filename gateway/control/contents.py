"""What lies in a queue, for people: the same whether a gateway runs or the command line has the queue open."""

from collections.abc import Mapping
from dataclasses import dataclass

from gateway.control.transfer import records
from gateway.control.wire import StoredRecord
from gateway.queue import LANES, Buried, Queue, QueueStats

PEEK_MAX = 1_000
PEEK_BYTES = 1 << 20
DEAD_MAX = 10_000


@dataclass(frozen=True)
class Contents:
    """`oldest_ms` by lane: wall time at which the oldest waiting record was stored, None where nothing waits."""

    queue_id: str
    stats: QueueStats
    oldest_ms: Mapping[str, int | None]


async def contents(queue: Queue) -> Contents:
    return Contents(queue.queue_id, queue.stats(), {lane: await queue.oldest_ms(lane) for lane in LANES})


async def peek(queue: Queue, lane: str, after: int | None, limit: int) -> list[StoredRecord]:
    """The first records that wait, or those behind number `after`."""
    start = queue.position(lane) if after is None else after
    segments = await queue.peek(lane, start, min(limit, PEEK_MAX), PEEK_BYTES)
    return [record for segment in segments for record in records(segment)]


async def dead(queue: Queue, limit: int) -> list[Buried]:
    """Oldest first."""
    return await queue.dead_list(min(limit, DEAD_MAX))


async def dead_record(queue: Queue, row_id: int) -> StoredRecord | None:
    """What a dead letter holds."""
    for one in await queue.dead([row_id]):
        return StoredRecord(one.lane, one.seq, "", one.entry)
    return None
