"""Answers that are kept under their Idempotency-Key, in memory and as marks beside the records they speak of.

A mark's value is: hash of the request (32 bytes) | number of records accepted (4). Lifetimes, here and on the disk,
count the gateway's running time, so a board whose clock jumps from 1970 to today forgets none. How old a mark is that
was recalled nobody knows: it lives once more.
"""

import struct
from collections.abc import Callable, Sequence
from itertools import islice
from typing import NamedTuple

from drivers.http.protocol import Problem
from gateway.clock import Clock
from gateway.driver import Emit, Mark, MarkKey

_VALUE = struct.Struct(">32sI")


class Reply(NamedTuple):
    """`expires` is in monotonic seconds."""

    request: bytes
    accepted: int
    expires: float


class Replies:
    """Of one token. Oldest first, as the marks are recalled."""

    def __init__(self, scope: str, emit: Emit, lifetime_s: float, keys_max: int, clock: Clock) -> None:
        self._scope = scope
        self._clock = clock
        self._lifetime_s = int(lifetime_s)
        self._keys_max = keys_max
        expires = clock.monotonic() + self._lifetime_s
        self._replies: dict[bytes, Reply] = {}
        for key, value in emit.recall(scope).items():
            request, accepted = _VALUE.unpack(value)
            self._replies[key] = Reply(request, accepted, expires)
        self._in_flight: set[bytes] = set()

    def find(self, key: bytes, request: bytes) -> Reply | None:
        """The answer that this request already got. Raises Problem if the key is in use for another one."""
        if key in self._in_flight:
            raise Problem(
                409,
                "the request with this Idempotency-Key is being stored",
                headers=((b"retry-after", b"1"),),
            )
        self._expire()
        reply = self._replies.get(key)
        if reply is not None and reply.request != request:
            raise Problem(422, "this Idempotency-Key came with another request before")
        return reply

    def begin(
        self, key: bytes, request: bytes, accepted: int
    ) -> tuple[Mark, Sequence[MarkKey], Callable[[bool], None]]:
        """What to remember and forget along with the records, and what to call once they are stored, or not."""
        reply = Reply(request, accepted, self._clock.monotonic() + self._lifetime_s)
        surplus = len(self._replies) + len(self._in_flight) + 1 - self._keys_max
        oldest = [old for old in islice(self._replies, max(0, surplus)) if old != key]
        mark = Mark(self._scope, key, _VALUE.pack(request, accepted), self._lifetime_s)

        def end(stored: bool) -> None:
            self._in_flight.discard(key)
            if stored:
                self._replies.pop(key, None)
                self._replies[key] = reply
                for old in oldest:
                    self._replies.pop(old, None)

        self._in_flight.add(key)
        return mark, [MarkKey(self._scope, old) for old in oldest], end

    def _expire(self) -> None:
        """Their marks on the disk go by themselves."""
        now = self._clock.monotonic()
        while self._replies:
            oldest = next(iter(self._replies))
            if self._replies[oldest].expires > now:
                return
            del self._replies[oldest]
