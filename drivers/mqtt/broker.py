"""amqtt behind the front door: an adapter for one client, and the broker itself. Imported by the first SUBSCRIBE."""

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING, Any

from amqtt.adapters import ReaderAdapter, WriterAdapter
from amqtt.broker import Broker

from drivers.mqtt.backlog import Backlog, Backlogs
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

if TYPE_CHECKING:
    from amqtt.session import Session

    from drivers.mqtt.subscriber import Subscriber
    from drivers.mqtt.subscribers import Message

LISTENER = "front-door"
REFUSED = 0x80
CLEAN_SESSION = 2
BROADCASTS_MAX = 10
"""Messages that amqtt has taken and not passed on: ours wait with us, where they are counted."""

UNACKNOWLEDGED_BYTES_MAX = 4 << 20
FLIGHT_BYTES = 1024
"""What amqtt keeps of a QoS 1 message until it is acknowledged or given up, beside the message."""

SUBSCRIBER_QOS_MAX = 1
"""amqtt sends at the subscription's QoS or at one that we name to all: with two levels, min(both) can be had so."""

USER_NAME = 0x80
QOS, RETAIN = 0x06, 0x01
"""Bits of a PUBLISH."""

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
    broker._broadcast_queue = asyncio.Queue(BROADCASTS_MAX)  # noqa: SLF001
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
    """One client's way to and from amqtt; so many requests are `waiting` for an answer."""

    def __init__(self, broker: Broker, subscriber: "Subscriber", backlogs: Backlogs) -> None:
        self.client_id, self.lasting = subscriber.client_id, subscriber.lasting
        self._broker = broker
        self._backlogs = backlogs
        self._subscriber = subscriber
        self._version = subscriber.version
        self._session: Session | None = None
        self._reader = _Reader()
        self._asked: deque[tuple[Subscribe, list[bool]]] = deque()
        self._unsubscribed: dict[int, int] = {}
        self._sent: dict[int, int] = {}
        self._unacknowledged_bytes = 0
        self.waiting = 0
        flags = USER_NAME | (0 if self.lasting else CLEAN_SESSION)
        body = text("MQTT") + bytes((V311, flags, 0, 0)) + text(self.client_id) + text("client")
        self.feed(packet(Packet.CONNECT << 4, body))
        self.gone = asyncio.create_task(broker.external_connected(self._reader, self, LISTENER))
        self.gone.add_done_callback(self._done)

    @property
    def unread_bytes(self) -> int:
        return self._reader.unread_bytes

    def feed(self, data: bytes) -> None:
        self._reader.feed(data)

    def acknowledged(self, number: int) -> None:
        """amqtt is told of its own messages only: the others would cost it 60 us and a line in the log, each."""
        if number in self._sent:
            self._unacknowledged_bytes -= self._sent.pop(number)
            self.feed(encode_ack(Packet.PUBACK, number))

    def subscribe(self, asked: Subscribe, allowed: list[bool]) -> None:
        self.waiting += 1
        self._asked.append((asked, allowed))
        kept = [one for one, may in zip(asked.filters, allowed, strict=True) if may]
        body = b"".join(text(topic) + bytes((min(qos, SUBSCRIBER_QOS_MAX),)) for topic, qos in kept)
        self.feed(packet(Packet.SUBSCRIBE << 4 | 2, asked.packet_id.to_bytes(2, "big") + body))

    def unsubscribe(self, asked: Unsubscribe) -> None:
        self.waiting += 1
        self._unsubscribed[asked.packet_id] = len(asked.filters)
        body = b"".join(text(topic) for topic in asked.filters)
        self.feed(packet(Packet.UNSUBSCRIBE << 4 | 2, asked.packet_id.to_bytes(2, "big") + body))

    def retained(self, message: "Message", qos: int) -> None:
        """Send a retained message. amqtt names its packet id and is not told of it: as with its own nobody would send it
        again."""
        qos = min(qos, message.qos)
        number = self._session.next_packet_id.to_bytes(2, "big") if qos and self._session else b""
        body = text(message.topic) + number + message.payload
        self._publish(packet(Packet.PUBLISH << 4 | qos << 1 | RETAIN, body))

    def end(self) -> None:
        self._reader.stream.feed_eof()

    def write(self, data: bytes) -> None:
        """amqtt writes whole packets, one a call."""
        kind = data[0] >> 4
        if kind == Packet.CONNACK:
            self._session, _ = self._broker.sessions[self.client_id]
            if not isinstance(self._session.retained_messages, Backlog):
                self._session.retained_messages = Backlog(self._backlogs)
        elif kind == Packet.SUBACK:
            self._subscribed(_body(data))
        elif kind == Packet.PUBLISH:
            self._deliver(data)
        else:
            if kind == Packet.UNSUBACK:
                self.waiting -= 1
                number = int.from_bytes(data[2:4], "big")
                codes = bytes(self._unsubscribed.pop(number, 1))
                if self._version == V5:
                    data = packet(Packet.UNSUBACK << 4, data[2:4] + b"\0" + codes)
            self._subscriber.write(data)

    def _subscribed(self, suback: bytes) -> None:
        self.waiting -= 1
        asked, allowed = self._asked.popleft()  # amqtt answers in order; their packet ids may be the same
        granted = iter(suback[2:])
        codes = bytes(next(granted, REFUSED) if may else REFUSED for may in allowed)
        self._subscriber.write(encode_suback(self._version, asked.packet_id, codes))
        topics = [topic for topic, _ in asked.filters]
        self._subscriber.granted(
            (topic, qos) for topic, qos in zip(topics, codes, strict=True) if qos != REFUSED
        )

    def _deliver(self, data: bytes) -> None:
        """What the client may not receive is dropped here, whatever amqtt makes of its subscriptions."""
        body = _body(data)
        at = 2 + int.from_bytes(body[:2], "big")
        number = int.from_bytes(body[at : at + 2], "big") if data[0] & QOS else 0
        if self._subscriber.may_receive(body[2:at].decode()):
            if number:
                self._expect(number, len(data) + FLIGHT_BYTES)
            self._publish(data)
        elif number:
            self.feed(encode_ack(Packet.PUBACK, number))

    def _expect(self, number: int, size: int) -> None:
        """An acknowledgement. What amqtt has given up is not looked for before it seems to be too much."""
        self._unacknowledged_bytes += size - self._sent.pop(number, 0)
        self._sent[number] = size
        if self._unacknowledged_bytes > UNACKNOWLEDGED_BYTES_MAX and self._session is not None:
            waited_for = self._session.inflight_out
            self._sent = {sent: size for sent, size in self._sent.items() if sent in waited_for}
            self._unacknowledged_bytes = sum(self._sent.values())
            if self._unacknowledged_bytes > UNACKNOWLEDGED_BYTES_MAX:
                self._subscriber.given_up("it does not acknowledge what it subscribed to")

    def _publish(self, data: bytes) -> None:
        self._subscriber.write(_with_properties(data) if self._version == V5 else data)

    async def drain(self) -> None:
        """The front door closes clients that don't read."""

    def get_peer_info(self) -> tuple[str, int]:
        return "front-door", 0

    def get_ssl_info(self) -> Any:
        return None

    async def close(self) -> None:
        self._subscriber.given_up("its subscriptions could not be served")

    def _done(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and task.exception() is not None:
            _log.warning("amqtt gave a subscriber up: %r", task.exception())
            self._subscriber.given_up("its subscriptions could not be served")


def _with_properties(data: bytes) -> bytes:
    """A PUBLISH of MQTT 3.1.1 as one of 5.0: an empty property length before the payload."""
    body = _body(data)
    head = 2 + int.from_bytes(body[:2], "big") + (2 if data[0] & QOS else 0)
    return packet(data[0], body[:head] + b"\0" + body[head:])


def _body(data: bytes) -> bytes:
    """What follows the remaining length."""
    at = 1
    while data[at] & 0x80:
        at += 1
    return data[at + 1 :]
