"""What is remembered of clients beyond a connection: who is connected, and packet ids of unfinished QoS 2 messages."""

import asyncio
import math
from collections.abc import Container, Iterable
from functools import partial
from typing import TYPE_CHECKING

from gateway.driver import Emit, Mark, MarkKey
from gateway.limits import MARKS_PER_SCOPE_MAX

if TYPE_CHECKING:
    from drivers.mqtt.connection import Connection

CLIENT_ID_BYTES_MAX = 256
ANONYMOUS = "\0"
"""A user of its own; nobody else can be called so (MQTT 1.5.4)."""


def packet_id(mark: Mark | MarkKey) -> int:
    return int(mark.key.rpartition(b"\0")[2])


class Sessions:
    """Marks: scope mqtt/<driver>/qos2, key client id, NUL, packet id, value the session's expiry in seconds, NUL, user;
    scope mqtt/<driver>/subscribers, key client id, value user. `now` is monotonic seconds: sessions of the process
    before end as if their clients had been lost now. Those of users that are not among `users` any more are for whoever
    comes first: a device that was anonymous and has a name now goes on where it was."""

    def __init__(self, driver: str, emit: Emit, lifetime_s: float, now: float, users: Container[str]) -> None:
        self.connected: dict[str, Connection] = {}
        self._emit = emit
        self._qos2 = f"mqtt/{driver}/qos2"
        self._subscribers = f"mqtt/{driver}/subscribers"
        self._lifetime_s = int(lifetime_s)
        self._unfinished: dict[str, set[int]] = {}
        self._disowned: dict[str, set[int]] = {}
        self._under_way: dict[str, dict[asyncio.Future[None], list[int]]] = {}
        self._ends: dict[str, float] = {}
        self._users: dict[str, str] = {}
        recalled: dict[str, str] = {}
        for key, value in emit.recall(self._qos2).items():
            client, _, number = key.rpartition(b"\0")
            expiry_s, _, user = value.partition(b"\0")
            recalled[client.decode()] = user.decode()
            self._unfinished.setdefault(client.decode(), set()).add(int(number))
            self._ends[client.decode()] = now + int(expiry_s)
        for key, user in emit.recall(self._subscribers).items():
            recalled[key.decode()] = user.decode()
            self._ends.setdefault(key.decode(), now + lifetime_s)
        self._had_subscriptions = {key.decode() for key in emit.recall(self._subscribers)}
        self._users.update((client, user) for client, user in recalled.items() if user in users)

    def is_another_s(self, client_id: str, user: str, now: float) -> bool:
        """Whether a connection or a session of another user has this client id."""
        connection = self.connected.get(client_id)
        if connection is not None:
            return connection.user != user
        return not self.ended(client_id, now) and self._users.get(client_id, user) != user

    def resume(self, client_id: str, user: str) -> set[int]:
        """Packet ids whose message is stored, or on its way, and not released by the client yet. To be changed."""
        self._ends.pop(client_id, None)
        self._users[client_id] = user
        return self._unfinished.setdefault(client_id, set())

    def disowned(self, client_id: str, present: bool) -> set[int]:
        """Of those the ones that the client may have forgotten, because a CONNACK denied its session: until they are used
        again, over later connections too, they mean new messages without DUP. To be changed."""
        numbers = self._disowned.setdefault(client_id, set())
        if not present:
            numbers |= self._unfinished[client_id]
        return numbers

    def changing(
        self, client_id: str, marks: Iterable[Mark | MarkKey], stored: "asyncio.Future[None]"
    ) -> None:
        """Until then nobody knows whether these packet ids are remembered, or forgotten."""
        self._under_way.setdefault(client_id, {})[stored] = [packet_id(mark) for mark in marks]
        stored.add_done_callback(partial(self._changed, client_id))

    def _changed(self, client_id: str, stored: "asyncio.Future[None]") -> None:
        under_way = self._under_way[client_id]
        del under_way[stored]
        if not under_way:
            del self._under_way[client_id]

    async def settled(self, client_id: str) -> None:
        """Until nothing of the client is under way: an older connection of it, perhaps lost by now, left it behind."""
        while under_way := self._under_way.get(client_id):
            await asyncio.wait(under_way)

    def mark(self, client_id: str, packet_id: int, expiry_s: float) -> Mark:
        value = b"%d\0%s" % (expiry_s, self._users[client_id].encode())
        return Mark(self._qos2, self._key(client_id, packet_id), value, self._lifetime_s)

    def mark_key(self, client_id: str, packet_id: int) -> MarkKey:
        return MarkKey(self._qos2, self._key(client_id, packet_id))

    def clear(self, client_id: str, *, waits: bool = True) -> "asyncio.Future[None]":
        """The client's session is over; done when its marks are gone. Raises Refused, or fails: nothing is forgotten."""
        numbers = self._unfinished.get(client_id, set()).union(*self._under_way.get(client_id, {}).values())
        keys = [self.mark_key(client_id, number) for number in numbers]
        if client_id in self._had_subscriptions:
            keys.append(MarkKey(self._subscribers, client_id.encode()))
        if not keys:
            nothing: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            nothing.set_result(None)
            return nothing
        gone = asyncio.ensure_future(self._emit((), forget=keys, waits=waits))
        gone.add_done_callback(partial(self._cleared, client_id))
        return gone

    def _cleared(self, client_id: str, gone: "asyncio.Future[None]") -> None:
        if not gone.cancelled() and gone.exception() is None:
            self._forget(client_id)
            self._had_subscriptions.discard(client_id)

    def subscribed(self, client_id: str) -> None:
        """A lasting session has subscriptions now, which don't outlive this process: the next one must know. Raises
        Refused."""
        if client_id not in self._had_subscriptions:
            user = self._users[client_id].encode()
            mark = Mark(self._subscribers, client_id.encode(), user, self._lifetime_s)
            self._emit((), remember=(mark,), waits=False)
            self._had_subscriptions.add(client_id)

    def has_subscriptions(self, client_id: str) -> bool:
        return client_id in self._had_subscriptions

    def present(self, client_id: str, subscriptions_kept: bool) -> bool:
        """Session Present: false if anything of the client's session was lost."""
        if client_id in self._had_subscriptions:
            return subscriptions_kept
        return bool(self._unfinished.get(client_id))

    def left(self, client_id: str, ends_at: float) -> None:
        """Its session ends then (monotonic seconds), if it does not come back before. So many are remembered as marks
        are, the oldest go first."""
        self._ends.pop(client_id, None)
        known = self._unfinished.get(client_id) or client_id in self._under_way
        if not known and client_id not in self._had_subscriptions:
            self._forget(client_id)
            self._users.pop(client_id, None)
            return
        self._ends[client_id] = ends_at
        if len(self._ends) > MARKS_PER_SCOPE_MAX:
            oldest = next(iter(self._ends))
            del self._ends[oldest]
            self._forget(oldest)
            self._users.pop(oldest, None)

    def _forget(self, client_id: str) -> None:
        self._unfinished.pop(client_id, None)
        self._disowned.pop(client_id, None)

    def ended(self, client_id: str, now: float) -> bool:
        """Whether a client that comes back does so too late for its session."""
        return self._ends.get(client_id, math.inf) <= now

    @staticmethod
    def _key(client_id: str, packet_id: int) -> bytes:
        return b"%s\0%d" % (client_id.encode(), packet_id)
