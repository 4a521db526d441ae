"""One client's way to the broker for subscribers, which its first request starts."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from drivers.mqtt import protocol as mqtt
from drivers.mqtt.access import Rights
from drivers.mqtt.door import Door
from drivers.mqtt.protocol import V5, Malformed, Reason
from gateway.errors import Refused

if TYPE_CHECKING:
    from drivers.mqtt.broker import Link

REQUESTS_MAX = 100
REQUESTS_BYTES_MAX = 16 << 10
"""SUBSCRIBE and UNSUBSCRIBE packets of a client that wait for their answer. Each costs the broker for subscribers a
millisecond, each topic filter 0.2, and it lets nobody on in between."""

REFUSED_311 = 0x80


class Subscriber:
    """`write` writes to the client's socket; `given_up` says that its subscriptions can't be served."""

    def __init__(
        self,
        door: Door,
        client_id: str,
        version: int,
        rights: Rights,
        lasting: bool,
        write: Callable[[bytes], None],
        given_up: Callable[[], None],
    ) -> None:
        self._door = door
        self._client_id = client_id
        self._version = version
        self._rights = rights
        self._lasting = lasting
        self._write = write
        self._given_up = given_up
        self._link: Link | None = None
        self._linking: asyncio.Task[None] | None = None
        self._requests: list[Callable[[Link], None]] = []

    def subscribe(self, asked: mqtt.Subscribe) -> None:
        """Raises Malformed."""
        allowed = [
            not topic.startswith("$share/") and self._rights.may_subscribe(topic)
            for topic, _ in asked.filters
        ]
        reason = Reason.NOT_AUTHORIZED
        if any(allowed) and not self._door.subscribers.has_room(topic for topic, _ in asked.filters):
            allowed = [False] * len(allowed)
            reason = Reason.QUOTA_EXCEEDED
        if not any(allowed):
            codes = bytes(reason if self._version == V5 else REFUSED_311 for _ in allowed)
            self._write(mqtt.encode_suback(self._version, asked.packet_id, codes))
            return
        if self._lasting:
            try:
                self._door.sessions.subscribed(self._client_id)
            except Refused as refused:
                raise Malformed(f"can't subscribe: {refused}", Reason.SERVER_UNAVAILABLE) from refused
        self._linked(lambda link: link.subscribe(asked, allowed))

    def unsubscribe(self, asked: mqtt.Unsubscribe) -> None:
        """Raises Malformed."""
        self._linked(lambda link: link.unsubscribe(asked))

    def acknowledged(self, number: int) -> None:
        """A message that it was sent, or so it says."""
        if self._link is not None:
            self._link.acknowledged(number)

    async def attach(self) -> None:
        self._link = await self._door.subscribers.connect(
            self._client_id, not self._lasting, self._version, self._write, self._given_up
        )
        requests, self._requests = self._requests, []
        for request in requests:
            request(self._link)

    def end(self) -> None:
        if self._linking is not None:
            self._linking.cancel()
        if self._link is not None:
            self._link.end()

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
