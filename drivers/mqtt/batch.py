"""What is stored and answered together, and what a message's properties become."""

from collections.abc import Sequence

from drivers.mqtt import protocol as mqtt
from drivers.mqtt.protocol import Property, Reason, Will
from drivers.mqtt.subscribers import Message
from gateway.driver import Mark, MarkKey
from gateway.record import Record

DUP = ("tg.dup", b"1")
RETAINED = ("tg.retained", b"1")
WILL = ("tg.will", b"1")
USER_HEADERS_MAX = 8
HEADER_BYTES_MAX = 256


class Batch:
    """What one read of a socket brought: stored together, acknowledged in one write."""

    __slots__ = ("acks", "bytes", "done", "forget", "messages", "promised", "records", "remember")

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.remember: list[Mark] = []
        self.forget: list[MarkKey] = []
        self.messages: list[Message] = []
        self.acks = bytearray()
        self.promised = 0
        self.bytes = 0
        self.done = False


def refused_acks(acks: bytearray) -> tuple[bytearray, int]:
    """MQTT 5: the same acknowledgements with reason 0x97 where they had none, and how many those are."""
    answers, refusals, at = bytearray(), 0, 0
    while at < len(acks):
        size = 2 + acks[at + 1]
        ack = acks[at : at + size]
        answers += ack if size > mqtt.ACK_BYTES else bytes((ack[0], 3, ack[2], ack[3], Reason.QUOTA_EXCEEDED))
        refusals += size == mqtt.ACK_BYTES
        at += size
    return answers, refusals


def headers_of(properties: mqtt.Properties) -> Sequence[tuple[str, bytes]]:
    """MQTT 5 user properties travel as headers, but for those too large and those that look like ours."""
    pairs = properties.get(Property.USER_PROPERTY, ()) if properties else ()
    fit = [
        (name, value.encode())
        for name, value in pairs
        if not name.startswith("tg.") and len(name) + len(value) <= HEADER_BYTES_MAX
    ]
    return fit[:USER_HEADERS_MAX]


def will_record(will: Will, channel: str, device: str, now_ms: int) -> Record:
    headers = (*headers_of(will.properties), WILL, *((RETAINED,) if will.retain else ()))
    content_type = str(will.properties.get(Property.CONTENT_TYPE, ""))
    return Record(channel, device, will.payload, now_ms, content_type, headers)
