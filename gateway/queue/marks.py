"""Marks in memory; the store keeps the same on disk. Age counts the gateway's running time, not wall time, because a
board without a clock battery jumps from 1970 to today, and no mark may be forgotten for that."""

from collections.abc import Mapping, Sequence

from gateway.clock import Clock
from gateway.driver import Mark, MarkKey
from gateway.limits import MARKS_PER_SCOPE_MAX


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

    def remember(self, marks: Sequence[Mark]) -> list[tuple[Mark, int] | MarkKey]:
        """What to write, in order: marks with their expiries, and the keys that the cap of a scope pushes out."""
        age = self.age_s()
        writes: list[tuple[Mark, int] | MarkKey] = []
        for mark in marks:
            scope = self._scopes.setdefault(mark.scope, {})
            scope.pop(mark.key, None)
            scope[mark.key] = (mark.value, age + mark.lifetime_s)
            writes.append((mark, age + mark.lifetime_s))
            if len(scope) > MARKS_PER_SCOPE_MAX:
                oldest = next(iter(scope))
                del scope[oldest]
                writes.append(MarkKey(mark.scope, oldest))
        return writes

    def forget(self, keys: Sequence[MarkKey]) -> None:
        for key in keys:
            self._scopes.get(key.scope, {}).pop(key.key, None)
