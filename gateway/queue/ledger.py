"""A statement of the lane "ledger": one JSON object, told by the queue or by the sync. Its kinds are in gateway.sync.ledger."""

import json
from contextlib import suppress

from gateway.codec import Entry, Shape


def statement(shape: Shape, kind: str, lane: str, time_ms: int, **fields: object) -> Entry:
    body = {"kind": kind, "lane": lane, "time": time_ms, **fields}
    return Entry(shape, time_ms, json.dumps(body, separators=(",", ":")).encode())


def of_queue(entry: Entry, queue_id: str) -> Entry:
    """The same statement, in the ledger of another queue."""
    with suppress(ValueError):
        body = json.loads(entry.value)
        if isinstance(body, dict):
            value = json.dumps({"of_queue": queue_id} | body, separators=(",", ":")).encode()
            return entry._replace(value=value)
    return entry
