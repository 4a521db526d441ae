"""The other direction: amqtt keeps subscriptions and lasting sessions and delivers to subscribers.

It is started by the first SUBSCRIBE, sees neither a PUBLISH of a client nor its will or password, and is told of
messages once they are on disk. What it holds is in memory: a restart ends subscriptions. amqtt speaks MQTT 3.1.1;
packets from and to MQTT 5 clients are translated here, without their properties.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from amqtt.broker import Broker

    from drivers.mqtt.broker import Link

MESSAGES_MAX = 10_000
"""Messages that wait to be delivered; the newest are dropped beyond it: subscribers are served, Kafka is promised."""

OFFLINE_MESSAGES_MAX = 1000
SUBSCRIPTIONS_MAX = 10_000
"""Topic filters of all clients: each is matched with every message."""

STOP_S = 1.0

_log = logging.getLogger(__name__)


class Message:
    __slots__ = ("payload", "qos", "retain", "topic")

    def __init__(self, topic: str, payload: bytes, qos: int, retain: bool) -> None:
        self.topic = topic
        self.payload = payload
        self.qos = qos
        self.retain = retain


class Subscribers:
    def __init__(self, retained_max: int, session_expiry_s: float) -> None:
        self._retained: dict[str, Message] = {}
        self._retained_max = retained_max
        self._expiry_s = int(session_expiry_s)
        self._broker: Broker | None = None
        self._starting: asyncio.Task[Broker] | None = None
        self._messages: asyncio.Queue[Message] = asyncio.Queue(MESSAGES_MAX)
        self._delivery: asyncio.Task[None] | None = None
        self._links: set[Link] = set()
        self._dropping = False

    def has_session(self, client_id: str) -> bool:
        return self._broker is not None and client_id in self._broker.sessions

    async def forget(self, client_id: str) -> None:
        """The client's session is over, and its subscriptions with it."""
        if self._broker is not None and self.has_session(client_id):
            from drivers.mqtt.broker import forget

            await forget(self._broker, client_id)

    def has_room(self, topics: Iterable[str]) -> bool:
        """Whether these topic filters may be subscribed to. amqtt keeps those that nobody has any more."""
        filters = {} if self._broker is None else self._broker.subscriptions
        more = sum(topic not in filters for topic in topics)
        if more and len(filters) + more > SUBSCRIPTIONS_MAX:
            for unused in [topic for topic, sessions in filters.items() if not sessions]:
                del filters[unused]
        return not more or len(filters) + more <= SUBSCRIPTIONS_MAX

    @property
    def wanted(self) -> bool:
        """Whether anybody subscribed to anything."""
        return self._broker is not None and bool(self._broker.subscriptions)

    async def connect(
        self,
        client_id: str,
        clean: bool,
        version: int,
        write_out: Callable[[bytes], None],
        ended: Callable[[], None],
    ) -> "Link":
        """A client's way to amqtt; `write_out` writes to its socket, `ended` says that amqtt gave it up."""
        from drivers.mqtt.broker import Link  # 10 MB that a gateway without subscribers doesn't need

        if self._starting is None:
            self._starting = asyncio.create_task(self._start())
        broker = await asyncio.shield(self._starting)
        link = Link(version, write_out, ended)
        self._links.add(link)
        task = link.open(broker, client_id, clean)
        task.add_done_callback(lambda _: self._links.discard(link))
        return link

    def tell(self, message: Message) -> None:
        """A message is on disk: deliver it to whoever subscribed."""
        if message.retain:
            self._retain(message)
        if not self.wanted and not (message.retain and self._broker is not None):
            return
        try:
            self._messages.put_nowait(message)
        except asyncio.QueueFull:
            if not self._dropping:
                _log.warning("subscribers are slower than publishers: messages to them are dropped")
            self._dropping = True
        else:
            self._dropping = False

    async def stop(self) -> None:
        for link in list(self._links):
            link.end()
        for task in (self._delivery, self._starting):
            if task is not None:
                task.cancel()
        if self._broker is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(STOP_S):
                    await self._broker.shutdown()

    def _retain(self, message: Message) -> None:
        self._retained.pop(message.topic, None)
        if message.payload:
            self._retained[message.topic] = message
            if len(self._retained) > self._retained_max:
                oldest = next(iter(self._retained))
                del self._retained[oldest]
                if self._broker is not None:
                    self._broker.retained_messages.pop(oldest, None)

    async def _start(self) -> "Broker":
        from drivers.mqtt import broker as amqtt_broker

        broker = await amqtt_broker.start(self._expiry_s)
        for message in self._retained.values():
            await broker.retain_message(None, message.topic, message.payload, message.qos)
        self._broker = broker
        self._delivery = asyncio.create_task(self._deliver(broker))
        return broker

    async def _deliver(self, broker: "Broker") -> None:
        while True:
            message = await self._messages.get()
            if message.retain:
                if message.payload:
                    await broker.retain_message(None, message.topic, message.payload, message.qos)
                else:
                    broker.retained_messages.pop(message.topic, None)
            await broker.internal_message_broadcast(
                message.topic, message.payload, None if message.qos else 0
            )
            for session, _ in broker.sessions.values():
                while session.retained_messages.qsize() > OFFLINE_MESSAGES_MAX:
                    session.retained_messages.get_nowait()
