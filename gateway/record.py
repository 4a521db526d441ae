"""What a driver hands over: one message of one device, as bytes."""

import json
from collections.abc import Mapping
from typing import NamedTuple


class Record(NamedTuple):
    """`channel` is where the device said it (MQTT topic, HTTP path below /ingest/, register group), without wildcards.

    `time_ms` is wall time at reception. `content_type` is a MIME type, "" where the protocol doesn't carry one.
    """

    channel: str
    device: str
    body: bytes
    time_ms: int
    content_type: str = ""
    headers: tuple[tuple[str, bytes], ...] = ()


Value = bool | int | float | str


def reading(device: str, time_ms: int, values: Mapping[str, Value], quality: Mapping[str, str]) -> bytes:
    """The JSON body of drivers that read values. A value that could not be read is absent and named in `quality`."""
    body = {"device": device, "time": time_ms, "values": values, "quality": quality}
    return json.dumps(body, separators=(",", ":"), allow_nan=False).encode()
