"""Marks in memory; the store keeps the same on disk. Age counts the gateway's running time, not wall time, because a
board without a clock battery jumps from 1970 to today, and no mark may be forgotten for that."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from gateway.clock import Clock
from gateway.driver import Mark, MarkKey
from gateway.limits import MARKS_PER_SCOPE_MAX

FORGET = 2
"""So many at most with each mark that is written: what became too old in a quiet time must not go at once."""

SHARE_MAX = 0.125
"""Of the cap: what marks may take, or a small queue would be full of them for good. The oldest of the largest scope go."""

FEW = 256
"""A scope with no more is not forgotten for its size: it holds what a driver must never lose, not what it may do without."""

OVERHEAD_BYTES = 32
"""Of a row on the disk, beside scope, key and value, about."""


class Marks:
    """`alive` is {(scope, key): (value, expiry)} with expiries in seconds of running time."""

    def __init__(
        self,
        alive: Mapping[tuple[str, bytes], tuple[bytes, int]],
        age_s: int,
        clock: Clock,
        cap_bytes: int,
    ) -> None:
        self._clock = clock
        self._born = clock.monotonic() - age_s
        self._bytes_max = int(cap_bytes * SHARE_MAX)
        self._scopes: dict[str, dict[bytes, tuple[bytes, int]]] = {}
        self._bytes: Counter[str] = Counter()
        for (scope, key), (value, expires_s) in alive.items():
            self._put(scope, key, value, expires_s)

    def age_s(self) -> int:
        return int(self._clock.monotonic() - self._born)

    def recall(self, scope: str) -> dict[bytes, bytes]:
        age = self.age_s()
        return {key: value for key, (value, expires) in self._scopes.get(scope, {}).items() if expires >= age}

    def dated(self, marks: Sequence[Mark]) -> list[tuple[Mark, int] | MarkKey]:
        age = self.age_s()
        return [(mark, age + mark.lifetime_s) for mark in marks]

    def apply(self, written: Sequence[tuple[Mark, int] | MarkKey]) -> list[MarkKey]:
        """What is on disk now, in order; returns the keys that are too old or beyond the caps, to be deleted there too."""
        news: Counter[str] = Counter()
        for change in written:
            if isinstance(change, MarkKey):
                self._pop(change.scope, change.key)
                continue
            mark, expires_s = change
            self._pop(mark.scope, mark.key)
            self._put(mark.scope, mark.key, mark.value, expires_s)
            news[mark.scope] += 1
        gone = [key for name, count in news.items() for key in self._forget(name, FORGET * count)]
        return gone + list(self._forget_for_room(FORGET * news.total()))

    def _put(self, name: str, key: bytes, value: bytes, expires_s: int) -> None:
        self._scopes.setdefault(name, {})[key] = (value, expires_s)
        self._bytes[name] += _size(name, key, value)

    def _pop(self, name: str, key: bytes) -> None:
        mark = self._scopes.get(name, {}).pop(key, None)
        if mark is not None:
            self._bytes[name] -= _size(name, key, mark[0])

    def _forget(self, name: str, count: int) -> Iterator[MarkKey]:
        """What was written first becomes too old first: a driver's lifetimes differ little."""
        age, scope = self.age_s(), self._scopes[name]
        for _ in range(min(count, len(scope))):
            oldest = next(iter(scope))
            if scope[oldest][1] >= age and len(scope) <= MARKS_PER_SCOPE_MAX:
                return
            self._pop(name, oldest)
            yield MarkKey(name, oldest)

    def _forget_for_room(self, count: int) -> Iterator[MarkKey]:
        for _ in range(count):
            if self._bytes.total() <= self._bytes_max:
                return
            large = [name for name, scope in self._scopes.items() if len(scope) > FEW]
            if not large:
                return
            name = max(large, key=self._bytes.__getitem__)
            oldest = next(iter(self._scopes[name]))
            self._pop(name, oldest)
            yield MarkKey(name, oldest)


def _size(scope: str, key: bytes, value: bytes) -> int:
    return OVERHEAD_BYTES + len(scope) + len(key) + len(value)
