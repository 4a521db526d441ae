"""Who may send where."""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

from drivers.http import Config
from drivers.http.protocol import Problem
from gateway.errors import DeviceError
from gateway.pattern import Pattern

ANONYMOUS = ""


class Sender(NamedTuple):
    """`name` is the token's, ANONYMOUS without one."""

    name: str
    channels: Sequence[Pattern]

    def may_send(self, channel: str) -> bool:
        return any(pattern.match(channel) is not None for pattern in self.channels)


class Access:
    """Tokens are found by their hash, so the time that this takes says nothing about them. Raises DeviceError."""

    def __init__(self, config: Config) -> None:
        self._anonymous = Sender(ANONYMOUS, [Pattern("#")]) if config.anonymous else None
        self._senders: dict[bytes, Sender] = {}
        for name, token in config.tokens.items():
            if token.secret is not None:
                try:
                    secret = token.secret.reveal()
                except (OSError, LookupError) as error:
                    raise DeviceError(f"secret of token {name}: {error}") from error
                digest = hashlib.sha256(secret.encode()).digest()
            else:
                digest = bytes.fromhex(token.sha256 or "")
            self._senders[digest] = Sender(name, [Pattern(text) for text in token.channels])

    def sender(self, authorization: bytes | None) -> Sender:
        """Raises Problem."""
        if authorization is None and self._anonymous:
            return self._anonymous
        if authorization is None:
            raise Problem(401, "a bearer token is needed", headers=_challenge(b""))
        scheme, _, credentials = authorization.partition(b" ")
        digest = hashlib.sha256(credentials.strip()).digest()
        sender = self._senders.get(digest)
        if sender and scheme.lower() == b"bearer":
            return sender
        raise Problem(401, "not a token known here", headers=_challenge(b', error="invalid_token"'))


def _challenge(error: bytes) -> tuple[tuple[bytes, bytes]]:
    return ((b"www-authenticate", b'Bearer realm="tidegate"' + error),)
