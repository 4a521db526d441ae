"""amqtt behind the front door: an adapter for one client, and the broker itself. Imported by the first SUBSCRIBE."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from amqtt.adapters import ReaderAdapter, WriterAdapter
from amqtt.broker import Broker

from drivers.mqtt.protocol import (
    V5,
    V311,
    Packet,
    Subscribe,
    Unsubscribe,
    encode_ack,
    encode_suback,
    packet,
    text,
)

LISTENER = "front-door"
REFUSED = 0x80
CLEAN_SESSION = 2
SUBSCRIBER_QOS_MAX = 1
"""amqtt sends at the subscription's QoS or at one that we name to all: with two levels, min(both) can be had so."""

USER_NAME = 0x80

_log = logging.getLogger(__name__)


async def start(session_expiry_s: int) -> Broker:
    """It opens no socket. A user name keeps amqtt from taking its clients for anonymous: those have no lasting session."""
    broker = Broker(
        {
            "listeners": {"default": {"type": "external"}, LISTENER: {"type": "external"}},
            "session_expiry_interval": session_expiry_s,
            "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": False}},
        }
    )
    await broker.start()
    return broker


async def forget(broker: Broker, client_id: str) -> None:
    """amqtt has no other word for it than a clean CONNECT, whose session would not last."""
    await broker._delete_session(client_id)  # noqa: SLF001


class _Reader(ReaderAdapter):  # type: ignore[misc]
    def __init__(self) -> None:
        self.stream = asyncio.StreamReader()
        self.unread_bytes = 0

    def feed(self, data: bytes) -> None:
        self.unread_bytes += len(data)
        self.stream.feed_data(data)

    async def read(self, n: int = -1) -> bytes:
        try:
            data = await (self.stream.readexactly(n) if n > 0 else self.stream.read(n))
        except asyncio.IncompleteReadError as error:
            return error.partial
        self.unread_bytes -= len(data)
        return data

    def feed_eof(self) -> None:
        self.stream.feed_eof()


class Link(WriterAdapter):  # type: ignore[misc]
    """One client's way to and from amqtt. `write_out` writes to its socket; so many requests are `waiting` for an answer."""

    def __init__(self, version: int, write_out: Callable[[bytes], None], ended: Callable[[], None]) -> None:
        self._version = version
        self._write_out = write_out
        self._ended = ended
        self._reader = _Reader()
        self._refused: dict[int, list[bool]] = {}
        self._unsubscribed: dict[int, int] = {}
        self._sent: set[int] = set()
        self.waiting = 0

    def open(self, broker: Broker, client_id: str, clean: bool) -> asyncio.Task[None]:
        flags = USER_NAME | (CLEAN_SESSION if clean else 0)
        body = text("MQTT") + bytes((V311, flags, 0, 0)) + text(client_id) + text("client")
        self.feed(packet(Packet.CONNECT << 4, body))
        task = asyncio.create_task(broker.external_connected(self._reader, self, LISTENER))
        task.add_done_callback(self._done)
        return task

    @property
    def unread_bytes(self) -> int:
        return self._reader.unread_bytes

    def feed(self, data: bytes) -> None:
        self._reader.feed(data)

    def acknowledged(self, number: int) -> None:
        """amqtt is told of its own messages only: the others would cost it 60 us and a line in the log, each."""
        if number in self._sent:
            self._sent.discard(number)
            self.feed(encode_ack(Packet.PUBACK, number))

    def subscribe(self, asked: Subscribe, allowed: list[bool]) -> None:
        self.waiting += 1
        self._refused[asked.packet_id] = allowed
        kept = [one for one, may in zip(asked.filters, allowed, strict=True) if may]
        body = b"".join(text(topic) + bytes((min(qos, SUBSCRIBER_QOS_MAX),)) for topic, qos in kept)
        self.feed(packet(Packet.SUBSCRIBE << 4 | 2, asked.packet_id.to_bytes(2, "big") + body))

    def unsubscribe(self, asked: Unsubscribe) -> None:
        self.waiting += 1
        self._unsubscribed[asked.packet_id] = len(asked.filters)
        body = b"".join(text(topic) for topic in asked.filters)
        self.feed(packet(Packet.UNSUBSCRIBE << 4 | 2, asked.packet_id.to_bytes(2, "big") + body))

    def end(self) -> None:
        self._reader.stream.feed_eof()

    def write(self, data: bytes) -> None:
        """amqtt writes whole packets, one a call."""
        kind = data[0] >> 4
        if kind == Packet.CONNACK:
            return
        if kind in (Packet.SUBACK, Packet.UNSUBACK):
            self.waiting -= 1
        if kind == Packet.SUBACK:
            body = _body(data)
            granted = iter(body[2:])
            allowed = self._refused.pop(int.from_bytes(body[:2], "big"), [])
            codes = bytes(next(granted, REFUSED) if may else REFUSED for may in allowed)
            data = encode_suback(self._version, int.from_bytes(body[:2], "big"), codes)
        elif self._version == V5 and kind == Packet.UNSUBACK:
            number = int.from_bytes(data[2:4], "big")
            body = data[2:4] + b"\0" + bytes(self._unsubscribed.pop(number, 1))
            data = packet(Packet.UNSUBACK << 4, body)
        elif kind == Packet.PUBLISH:
            if data[0] & 6:
                body = _body(data)
                at = 2 + int.from_bytes(body[:2], "big")
                self._sent.add(int.from_bytes(body[at : at + 2], "big"))
            if self._version == V5:
                data = _with_properties(data)
        self._write_out(data)

    async def drain(self) -> None:
        """The front door closes clients that don't read."""

    def get_peer_info(self) -> tuple[str, int]:
        return "front-door", 0

    def get_ssl_info(self) -> Any:
        return None

    async def close(self) -> None:
        self._ended()

    def _done(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and task.exception() is not None:
            _log.warning("amqtt gave a subscriber up: %r", task.exception())
            self._ended()


def _with_properties(data: bytes) -> bytes:
    """A PUBLISH of MQTT 3.1.1 as one of 5.0: an empty property length before the payload."""
    body = _body(data)
    head = 2 + int.from_bytes(body[:2], "big") + (2 if data[0] & 6 else 0)
    return packet(data[0], body[:head] + b"\0" + body[head:])


def _body(data: bytes) -> bytes:
    """What follows the remaining length."""
    at = 1
    while data[at] & 0x80:
        at += 1
    return data[at + 1 :]
