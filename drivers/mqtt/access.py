"""Who may connect, publish and subscribe."""

import asyncio
import hashlib
import hmac
import secrets
from collections.abc import Mapping, Sequence
from typing import cast
from weakref import WeakSet

from drivers.mqtt import Config, User
from drivers.mqtt.protocol import Malformed, decode_text
from gateway.limits import NAME_BYTES_MAX
from gateway.pattern import Pattern

SCRYPT_COST = 1 << 14
SCRYPT_MEMORY_MAX = 64 << 20
ADMITTED_MAX = 1000
TOPICS_BYTES_MAX = 8 << 20
TOPIC_BYTES = 256
"""What a remembered topic takes beside its name, twice: as it came and as text."""


def hashed(password: str) -> str:
    """What [drivers.NAME.users.USER] takes as password: scrypt:N:r:p:salt:hash (RFC 7914), hexadecimal."""
    salt = secrets.token_bytes(16)
    return (
        f"scrypt:{SCRYPT_COST}:8:1:{salt.hex()}:{_scrypt(password.encode(), SCRYPT_COST, 8, 1, salt).hex()}"
    )


def _scrypt(password: bytes, cost: int, block: int, parallel: int, salt: bytes) -> bytes:
    return hashlib.scrypt(
        password, salt=salt, n=cost, r=block, p=parallel, maxmem=SCRYPT_MEMORY_MAX, dklen=32
    )


def _is_password(password: bytes, stored: str) -> bool:
    _, cost, block, parallel, salt, digest = stored.split(":")
    found = _scrypt(password, int(cost), int(block), int(parallel), bytes.fromhex(salt))
    return hmac.compare_digest(found, bytes.fromhex(digest))


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
    """scrypt is slow on purpose: it runs beside the loop, one at a time, and who was let in is remembered."""

    def __init__(self, config: Config) -> None:
        self._users: Mapping[str, User] = config.users
        self._topics = Topics()
        self._anonymous = Rights(["#"], ["#"], self._topics) if config.anonymous else None
        self._pepper = secrets.token_bytes(32)
        self._admitted: dict[bytes, None] = {}
        self._turn = asyncio.Lock()

    async def rights(self, client_id: str, user: str | None, password: bytes | None) -> Rights | None:
        """None: not let in."""
        if user is None:
            return self._anonymous
        settings = self._users.get(user)
        if settings is None or password is None:
            return None
        shown = f"{len(user)}:{user}{settings.password}".encode() + password
        ticket = hmac.digest(self._pepper, shown, "sha256")
        if ticket not in self._admitted:
            async with self._turn:
                loop = asyncio.get_running_loop()
                if not await loop.run_in_executor(None, _is_password, password, settings.password):
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
