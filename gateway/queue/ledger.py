"""A statement of the lane "ledger": one JSON object, told by the queue or by the sync. Its kinds are in gateway.sync.ledger."""

import json

from gateway.codec import Entry, Shape


def statement(shape: Shape, kind: str, lane: str, time_ms: int, **fields: object) -> Entry:
    body = {"kind": kind, "lane": lane, "time": time_ms, **fields}
    return Entry(shape, time_ms, json.dumps(body, separators=(",", ":")).encode())
