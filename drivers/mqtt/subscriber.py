"""One client's way to the broker for subscribers, which its first request starts."""

import asyncio
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from drivers.mqtt import protocol as mqtt
from drivers.mqtt.access import Rights
from drivers.mqtt.door import Door
from drivers.mqtt.protocol import V5, Malformed, Reason
from drivers.mqtt.subscribers import LEVELS_MAX
from gateway.errors import Refused
from gateway.limits import NAME_BYTES_MAX

if TYPE_CHECKING:
    from drivers.mqtt.broker import Link

REQUESTS_MAX = 100
REQUESTS_BYTES_MAX = 16 << 10
"""SUBSCRIBE and UNSUBSCRIBE packets of a client that wait for their answer. Each costs the broker for subscribers a
millisecond, each topic filter 0.2, and it lets nobody on in between."""

FILTERS_MAX = 500
"""Topic filters of a client, and of one of its packets."""

REFUSED_311 = 0x80


class Subscriber:
    """`write` writes to the client's socket, which is `writable` while the client reads; `given_up` says that its
    subscriptions can't be served."""

    def __init__(
        self,
        door: Door,
        client_id: str,
        version: int,
        rights: Rights,
        lasting: bool,
        write: Callable[[bytes], None],
        writable: asyncio.Event,
        given_up: Callable[[str], None],
    ) -> None:
        self._door = door
        self.client_id = client_id
        self.version = version
        self.lasting = lasting
        self.write = write
        self.given_up = given_up
        self._writable = writable
        self._rights = rights
        self._filters: set[str] = set()
        self._link: Link | None = None
        self._linking: asyncio.Task[None] | None = None
        self._requests: list[Callable[[Link], None]] = []
        self._new: dict[str, int] = {}
        self._catching_up: asyncio.Task[None] | None = None

    def subscribe(self, asked: mqtt.Subscribe) -> None:
        """Raises Malformed."""
        allowed = [self._may_subscribe(topic) for topic, _ in asked.filters]
        topics = {topic for (topic, _), may in zip(asked.filters, allowed, strict=True) if may}
        reason = Reason.NOT_AUTHORIZED
        if topics and not self._has_room(asked, topics):
            allowed = [False] * len(allowed)
            reason = Reason.QUOTA_EXCEEDED
        if not any(allowed):
            codes = bytes(reason if self.version == V5 else REFUSED_311 for _ in allowed)
            self.write(mqtt.encode_suback(self.version, asked.packet_id, codes))
            return
        if self.lasting:
            try:
                self._door.sessions.subscribed(self.client_id)
            except Refused as refused:
                raise Malformed(f"can't subscribe: {refused}", Reason.SERVER_UNAVAILABLE) from refused
        self._filters |= topics
        self._linked(lambda link: link.subscribe(asked, allowed))

    def unsubscribe(self, asked: mqtt.Unsubscribe) -> None:
        """Raises Malformed."""
        if len(asked.filters) > FILTERS_MAX:
            raise Malformed(f"an UNSUBSCRIBE of more than {FILTERS_MAX} topic filters", Reason.QUOTA_EXCEEDED)
        self._filters.difference_update(asked.filters)
        self._linked(lambda link: link.unsubscribe(asked))

    def acknowledged(self, number: int) -> None:
        """A message that it was sent, or so it says."""
        if self._link is not None:
            self._link.acknowledged(number)

    def granted(self, filters: Iterable[tuple[str, int]]) -> None:
        """It is subscribed to these, with their QoS: what was retained follows."""
        self._new.update(filters)
        if self._catching_up is None:
            self._catching_up = asyncio.create_task(self._catch_up())

    def may_receive(self, topic: str) -> bool:
        return self._rights.may_subscribe(topic)

    async def attach(self) -> None:
        self._filters |= self._door.subscribers.filters_of(self.client_id)
        self._link = await self._door.subscribers.connect(self)
        requests, self._requests = self._requests, []
        for request in requests:
            request(self._link)

    def end(self) -> None:
        for task in (self._linking, self._catching_up):
            if task is not None:
                task.cancel()
        if self._link is not None:
            self._link.end()

    def _may_subscribe(self, topic: str) -> bool:
        return (
            not topic.startswith("$share/")
            and topic.count("/") < LEVELS_MAX
            and len(topic.encode()) <= NAME_BYTES_MAX
            and self._rights.may_subscribe(topic)
        )

    def _has_room(self, asked: mqtt.Subscribe, topics: set[str]) -> bool:
        if max(len(asked.filters), len(self._filters | topics)) > FILTERS_MAX:
            return False
        return self._door.subscribers.has_room(topics)

    async def _catch_up(self) -> None:
        """Send what was retained, as fast as the client reads. Between two filters the others have their turn."""
        retained = self._door.subscribers.retained
        while self._new and self._link is not None:
            topic_filter = next(iter(self._new))
            qos = self._new.pop(topic_filter)
            for topic in retained.topics(topic_filter):
                await self._writable.wait()
                message = retained.get(topic)
                if message is not None and self.may_receive(topic):
                    self._link.retained(message, qos)
            await asyncio.sleep(0)
        self._catching_up = None

    def _linked(self, request: "Callable[[Link], None]") -> None:
        """Now, or once the client is known to the broker."""
        if self._link is not None:
            request(self._link)
            if self._link.waiting > REQUESTS_MAX or self._link.unread_bytes > REQUESTS_BYTES_MAX:
                raise Malformed("too many subscriptions at once", Reason.QUOTA_EXCEEDED)
            return
        if len(self._requests) >= REQUESTS_MAX:
            raise Malformed("too many subscriptions at once", Reason.QUOTA_EXCEEDED)
        self._requests.append(request)
        if self._linking is None:
            self._linking = asyncio.create_task(self.attach())
