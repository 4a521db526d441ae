"""Answers that are kept under their Idempotency-Key, in memory and as marks beside the records they speak of.

A mark's value is: Unix ms when it expires (8 bytes) | hash of the request (32) | number of records accepted (4).
"""

import struct
from collections.abc import Callable, Sequence
from itertools import islice
from typing import NamedTuple

from drivers.http.protocol import Problem
from gateway.driver import Emit, Mark, MarkKey

_VALUE = struct.Struct(">Q32sI")


class Reply(NamedTuple):
    expires_ms: int
    request: bytes
    accepted: int


class Replies:
    """Of one token. Oldest first, which is also the order in which they expire."""

    def __init__(self, scope: str, emit: Emit, lifetime_s: float, keys_max: int) -> None:
        self._scope = scope
        self._lifetime_s = int(lifetime_s)
        self._keys_max = keys_max
        remembered = {key: Reply(*_VALUE.unpack(value)) for key, value in emit.recall(scope).items()}
        self._replies = dict(sorted(remembered.items(), key=lambda item: item[1].expires_ms))
        self._in_flight: set[bytes] = set()

    def find(self, key: bytes, request: bytes, now_ms: int) -> Reply | None:
        """The answer that this request already got. Raises Problem if the key is in use for another one."""
        if key in self._in_flight:
            raise Problem(
                409,
                "the request with this Idempotency-Key is being stored",
                headers=((b"retry-after", b"1"),),
            )
        reply = self._replies.get(key)
        if reply is None or reply.expires_ms <= now_ms:
            return None
        if reply.request != request:
            raise Problem(422, "this Idempotency-Key came with another request before")
        return reply

    def begin(
        self, key: bytes, request: bytes, accepted: int, now_ms: int
    ) -> tuple[Mark, Sequence[MarkKey], Callable[[bool], None]]:
        """What to remember and forget along with the records, and what to call once they are stored, or not."""
        reply = Reply(now_ms + self._lifetime_s * 1000, request, accepted)
        surplus = len(self._replies) + len(self._in_flight) + 1 - self._keys_max
        oldest = [old for old in islice(self._replies, max(0, surplus)) if old != key]
        mark = Mark(self._scope, key, _VALUE.pack(*reply), self._lifetime_s)

        def end(stored: bool) -> None:
            self._in_flight.discard(key)
            if stored:
                self._replies.pop(key, None)
                self._replies[key] = reply
                for old in oldest:
                    self._replies.pop(old, None)

        self._in_flight.add(key)
        return mark, [MarkKey(self._scope, old) for old in oldest], end
