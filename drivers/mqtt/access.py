"""Who may connect, publish and subscribe."""

import hmac
import secrets
from collections.abc import Mapping, Sequence
from typing import cast
from weakref import WeakSet

from drivers.mqtt import Config, User
from drivers.mqtt.passwords import Passwords
from drivers.mqtt.protocol import Malformed, decode_text
from gateway.limits import NAME_BYTES_MAX
from gateway.pattern import Pattern

ADMITTED_MAX = 1000
TOPICS_BYTES_MAX = 8 << 20
TOPIC_BYTES = 256
"""What a remembered topic takes beside its name, twice: as it came and as text."""


class Topics:
    """Room for the topics that were looked at, of all clients together. When it is full all are forgotten: that costs
    one more look at each, and a client that invents topics takes no memory from the others for long."""

    def __init__(self) -> None:
        self.bytes = 0
        self._known: WeakSet[Rights] = WeakSet()

    def join(self, rights: "Rights") -> None:
        self._known.add(rights)

    def take(self, count: int) -> None:
        self.bytes += count
        if self.bytes > TOPICS_BYTES_MAX:
            for rights in self._known:
                rights.forget_topics()
            self.bytes = count


class Rights:
    """What a client may do. Topics that were looked at are remembered, as long as there is room."""

    def __init__(self, publish: Sequence[str], subscribe: Sequence[str], topics: Topics) -> None:
        self._publish = [Pattern(text) for text in publish]
        self._subscribe = subscribe
        self._known: dict[bytes, str | None] = {}
        self._topics = topics
        topics.join(self)

    def forget_topics(self) -> None:
        self._known.clear()

    def channel(self, topic: bytes) -> str | None:
        """The topic's name; None if the client may not publish to it. Raises Malformed for what is no topic name."""
        try:
            return self._known[topic]
        except KeyError:
            pass
        name = decode_text(topic, "topic name")
        if not name or "+" in name or "#" in name or len(topic) > NAME_BYTES_MAX:
            raise Malformed(f"{name[:50]!r} can't be a topic name: empty, with a wildcard, or too long")
        allowed = not name.startswith("$") and any(one.match(name) is not None for one in self._publish)
        self._topics.take(TOPIC_BYTES + 2 * len(topic))
        found = self._known[topic] = name if allowed else None
        return found

    def channels(self, topics: Sequence[bytes]) -> list[str] | None:
        """The topics' names, if all of them were asked for before and may be published to."""
        try:
            found = [self._known[topic] for topic in topics]
        except KeyError:
            return None
        return None if None in found else cast(list[str], found)

    def may_subscribe(self, topic_filter: str) -> bool:
        return any(covers(allowed, topic_filter) for allowed in self._subscribe)


def covers(allowed: str, asked: str) -> bool:
    """Whether every topic that `asked` matches is matched by `allowed`."""
    ours, theirs = allowed.split("/"), asked.split("/")
    for index, level in enumerate(ours):
        if level == "#":
            return True
        if index == len(theirs) or theirs[index] == "#":
            return False
        if level != "+" and level != theirs[index]:
            return False
    return len(ours) == len(theirs)


class Access:
    """Who was let in is remembered: a password takes long to look at."""

    def __init__(self, config: Config) -> None:
        self._users: Mapping[str, User] = config.users
        self._topics = Topics()
        self._anonymous = Rights(["#"], ["#"], self._topics) if config.anonymous else None
        self._pepper = secrets.token_bytes(32)
        self._admitted: dict[bytes, None] = {}
        self._passwords = Passwords()

    async def rights(
        self, client_id: str, user: str | None, password: bytes | None, address: str
    ) -> Rights | None:
        """None: not let in. Raises Busy."""
        if user is None:
            return self._anonymous
        settings = self._users.get(user)
        if settings is None or password is None:
            return None
        shown = f"{len(user)}:{user}{settings.password}".encode() + password
        ticket = hmac.digest(self._pepper, shown, "sha256")
        if ticket not in self._admitted:
            if not await self._passwords.is_right(password, settings.password, address):
                return None
            if len(self._admitted) >= ADMITTED_MAX:
                self._admitted.clear()
            self._admitted[ticket] = None
        names = {"{client}": client_id, "{user}": user}
        return Rights(_filled(settings.publish, names), _filled(settings.subscribe, names), self._topics)


def _filled(patterns: Sequence[str], names: Mapping[str, str]) -> list[str]:
    """A name with a separator or wildcard in it stands for nothing: it would reach into others' topics."""
    filled = []
    for text in patterns:
        for field, name in names.items():
            if field in text and any(sign in name for sign in "/+#"):
                break
            text = text.replace(field, name)
        else:
            filled.append(text)
    return filled
