"""/tail: records as they are stored, one JSON object a line."""

import asyncio
import itertools
import json
from typing import Any

from gateway.control.http import Exchange
from gateway.control.wire import bytes_to_json
from gateway.runtime.tap import Onlooker, Seen

PAUSE_RECORDS = 100
PAUSE_S = 0.05
"""2,000 records a second at most: an onlooker may cost the devices' loop little, and misses the rest, counted."""


async def send_tail(exchange: Exchange, onlooker: Onlooker) -> None:
    """Until the client goes. Raises OSError once it takes nothing any more."""
    await exchange.start("application/x-ndjson")
    gone = asyncio.ensure_future(exchange.hung_up())
    try:
        for number in itertools.count(1):
            coming = asyncio.ensure_future(onlooker.next())
            await asyncio.wait([coming, gone], return_when=asyncio.FIRST_COMPLETED)
            if gone.done():
                coming.cancel()
                return
            await exchange.write(json.dumps(seen_to_json(coming.result())).encode() + b"\n")
            if number % PAUSE_RECORDS == 0:
                await asyncio.sleep(PAUSE_S)
    finally:
        gone.cancel()


def seen_to_json(seen: Seen) -> dict[str, Any]:
    record = seen.record
    shown: dict[str, Any] = {
        "driver": seen.driver,
        "device": record.device,
        "channel": record.channel,
        "time_ms": record.time_ms,
        "content_type": record.content_type,
        "headers": [{"name": name, **bytes_to_json("value", value)} for name, value in record.headers],
        **bytes_to_json("body", record.body),
    }
    if seen.lost:
        shown["lost"] = seen.lost
    return shown
