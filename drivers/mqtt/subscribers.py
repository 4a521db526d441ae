"""The other direction: amqtt keeps subscriptions and lasting sessions and delivers to subscribers.

It is started by the first SUBSCRIBE, sees neither a PUBLISH of a client nor its will or password, and is told of
messages once they are on disk. What it holds is in memory: a restart ends subscriptions. amqtt speaks MQTT 3.1.1;
packets from and to MQTT 5 clients are translated here, without their properties.
"""

import asyncio
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import TYPE_CHECKING

from drivers.mqtt.backlog import Backlogs
from drivers.mqtt.losses import SESSIONS, SLOW, Losses
from drivers.mqtt.retained import Retained
from gateway.limits import RECORD_OVERHEAD_BYTES

if TYPE_CHECKING:
    from amqtt.broker import Broker

    from drivers.mqtt.broker import Link
    from drivers.mqtt.subscriber import Subscriber

MESSAGES_MAX = 10_000
MESSAGES_BYTES_MAX = 8 << 20
"""Messages that wait to be delivered; the newest are dropped beyond it: subscribers are served, Kafka is promised."""

ABSENT_SESSIONS_MAX = 500
"""Sessions that wait for their clients, of 35 KiB each and more; beyond it the one absent longest is forgotten."""

SUBSCRIPTIONS_MAX = 10_000
"""Topic filters of all clients: each is matched with every message."""

LEVELS_MAX = 32
"""Of a topic filter, and of a topic that subscribers get to see: each level costs time at every match."""

STOP_S = 1.0


class Message:
    __slots__ = ("payload", "qos", "retain", "topic")

    def __init__(self, topic: str, payload: bytes, qos: int, retain: bool) -> None:
        self.topic = topic
        self.payload = payload
        self.qos = qos
        self.retain = retain

    @property
    def bytes(self) -> int:
        return len(self.payload) + len(self.topic) + RECORD_OVERHEAD_BYTES


class Subscribers:
    def __init__(self, retained_max: int, session_expiry_s: float, count: Callable[[str], None]) -> None:
        self._losses = Losses(count)
        self.retained = Retained(retained_max, self._losses)
        self._backlogs = Backlogs(self._losses)
        self._absent: dict[str, None] = {}
        self._expiry_s = int(session_expiry_s)
        self._broker: Broker | None = None
        self._starting: asyncio.Task[Broker] | None = None
        self._messages: asyncio.Queue[Message] = asyncio.Queue()
        self._messages_bytes = 0
        self._delivery: asyncio.Task[None] | None = None
        self._links: dict[str, Link] = {}

    def has_session(self, client_id: str) -> bool:
        return self._broker is not None and client_id in self._broker.sessions

    async def forget(self, client_id: str) -> None:
        """The client's session is over, and its subscriptions with it."""
        self._absent.pop(client_id, None)
        if self._broker is not None and self.has_session(client_id):
            from drivers.mqtt.broker import forget

            await forget(self._broker, client_id)

    def filters_of(self, client_id: str) -> set[str]:
        """What the client's session is subscribed to."""
        filters = {} if self._broker is None else self._broker.subscriptions
        return {
            topic
            for topic, sessions in filters.items()
            if any(session.client_id == client_id for session, _ in sessions)
        }

    def has_room(self, topics: Collection[str]) -> bool:
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

    async def connect(self, subscriber: "Subscriber") -> "Link":
        """A client's way to amqtt."""
        from drivers.mqtt.broker import Link  # 10 MB that a gateway without subscribers doesn't need

        if self._starting is None:
            self._starting = asyncio.create_task(self._start())
        broker = await asyncio.shield(self._starting)
        await self._forget_absent(subscriber.client_id)
        before = self._links.get(subscriber.client_id)
        if before is not None:  # amqtt would take the session, which both have, for one whose client has gone
            before.end()
            await asyncio.wait([before.gone], timeout=STOP_S)
        link = self._links[subscriber.client_id] = Link(broker, subscriber, self._backlogs)
        link.gone.add_done_callback(lambda _: self._left(link))
        return link

    def _left(self, link: "Link") -> None:
        if self._links.get(link.client_id) is not link:
            return
        del self._links[link.client_id]
        self._absent.pop(link.client_id, None)
        if link.lasting:
            self._absent[link.client_id] = None

    async def _forget_absent(self, comes: str) -> None:
        """A client whose session is forgotten hears so when it comes back: Session Present is 0."""
        for client_id in [*self._absent]:
            if client_id == comes or client_id in self._links or not self.has_session(client_id):
                del self._absent[client_id]
        while len(self._absent) > ABSENT_SESSIONS_MAX:
            await self.forget(next(iter(self._absent)))
            self._losses.add(SESSIONS)

    def tell(self, message: Message) -> None:
        """A message is on disk: deliver it to whoever subscribed."""
        if message.topic.count("/") >= LEVELS_MAX:
            return
        if message.retain:
            self.retained.keep(message)
        if not self.wanted:
            return
        waiting = self._messages_bytes + message.bytes
        if waiting > MESSAGES_BYTES_MAX or self._messages.qsize() >= MESSAGES_MAX:
            self._losses.add(SLOW)
            return
        self._messages_bytes = waiting
        self._messages.put_nowait(message)

    async def stop(self) -> None:
        for link in list(self._links.values()):
            link.end()
        for task in (self._delivery, self._starting):
            if task is not None:
                task.cancel()
        if self._broker is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(STOP_S):
                    await self._broker.shutdown()

    async def _start(self) -> "Broker":
        from drivers.mqtt import broker as amqtt_broker

        broker = await amqtt_broker.start(self._expiry_s)
        self._broker = broker
        self._delivery = asyncio.create_task(self._deliver(broker))
        return broker

    async def _deliver(self, broker: "Broker") -> None:
        while True:
            message = await self._messages.get()
            self._messages_bytes -= message.bytes
            await broker.internal_message_broadcast(
                message.topic, message.payload, None if message.qos else 0
            )
