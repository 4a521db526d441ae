"""What a payload means: records, by its Content-Format."""

import json

from drivers.coap import senml
from gateway.record import Record, reading

MIMES = {
    0: "text/plain; charset=utf-8",
    21: "image/gif",
    22: "image/jpeg",
    23: "image/png",
    40: "application/link-format",
    41: "application/xml",
    42: "application/octet-stream",
    47: "application/exi",
    50: "application/json",
    51: "application/json-patch+json",
    52: "application/merge-patch+json",
    60: "application/cbor",
    61: "application/cwt",
    62: "application/multipart-core",
    63: "application/cbor-seq",
    110: "application/senml+json",
    111: "application/sensml+json",
    112: "application/senml+cbor",
    113: "application/sensml+cbor",
    114: "application/senml-exi",
    115: "application/sensml-exi",
    310: "application/senml+xml",
    311: "application/sensml+xml",
    320: "application/senml-etch+json",
    322: "application/senml-etch+cbor",
    432: "application/td+json",
    10000: "application/vnd.ocf+cbor",
    11050: "application/json; content-coding=deflate",
    11060: "application/cbor; content-coding=deflate",
    11542: "application/vnd.oma.lwm2m+tlv",
    11543: "application/vnd.oma.lwm2m+json",
    11544: "application/vnd.oma.lwm2m+cbor",
}
"""IANA's CoAP Content-Formats that devices use."""


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
    """ "" without one; a number that is not in MIMES stays to be read."""
    if content_format is None:
        return ""
    return MIMES.get(content_format, f"application/octet-stream; content-format={content_format}")
