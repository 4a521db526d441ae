"""What a payload means: records, by its Content-Format."""

import json

from aiocoap.numbers import ContentFormat

from drivers.coap import senml
from gateway.record import Record, reading


def records(channel: str, device: str, body: bytes, content_format: int | None, now_ms: int) -> list[Record]:
    """SenML becomes a reading for each time in it; anything else passes as it is. Raises Problem."""
    if content_format not in (senml.JSON_FORMAT, senml.CBOR_FORMAT):
        return [Record(channel, device, body, now_ms, mime(content_format))]
    found = []
    for one in senml.readings(body, content_format, now_ms):
        units = (("units", json.dumps(one.units).encode()),) if one.units else ()
        content = reading(device, one.time_ms, one.values, {})
        found.append(Record(channel, device, content, now_ms, "application/json", units))
    return found


def mime(content_format: int | None) -> str:
    """ "" without one; a number that is in no registry stays to be read."""
    if content_format is None:
        return ""
    known = ContentFormat(content_format)
    if not known.is_known():
        return f"application/octet-stream; content-format={int(content_format)}"
    coding = "" if known.encoding == "identity" else f"; content-coding={known.encoding}"
    return f"{known.media_type}{coding}"
