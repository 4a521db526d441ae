"""Marks in memory; the store keeps the same on disk. Age counts the gateway's running time, not wall time, because a
board without a clock battery jumps from 1970 to today, and no mark may be forgotten for that."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from gateway.clock import Clock
from gateway.driver import Mark, MarkKey
from gateway.limits import MARKS_PER_SCOPE_MAX

FORGET = 2
"""So many at most with each mark that is written: what became too old in a quiet time must not go at once."""


class Marks:
    """`alive` is {(scope, key): (value, expiry)} with expiries in seconds of running time."""

    def __init__(
        self, alive: Mapping[tuple[str, bytes], tuple[bytes, int]], age_s: int, clock: Clock
    ) -> None:
        self._clock = clock
        self._born = clock.monotonic() - age_s
        self._scopes: dict[str, dict[bytes, tuple[bytes, int]]] = {}
        for (scope, key), mark in alive.items():
            self._scopes.setdefault(scope, {})[key] = mark

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
                self._scopes.get(change.scope, {}).pop(change.key, None)
                continue
            mark, expires_s = change
            scope = self._scopes.setdefault(mark.scope, {})
            scope.pop(mark.key, None)
            scope[mark.key] = (mark.value, expires_s)
            news[mark.scope] += 1
        return [gone for name, count in news.items() for gone in self._forget(name, FORGET * count)]

    def _forget(self, name: str, count: int) -> Iterator[MarkKey]:
        """What was written first becomes too old first: a driver's lifetimes differ little."""
        age, scope = self.age_s(), self._scopes[name]
        for _ in range(min(count, len(scope))):
            oldest = next(iter(scope))
            if scope[oldest][1] >= age and len(scope) <= MARKS_PER_SCOPE_MAX:
                return
            del scope[oldest]
            yield MarkKey(name, oldest)
