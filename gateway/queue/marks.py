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

    def dated(self, marks: Sequence[Mark]) -> list[tuple[Mark, int] | MarkKey]:
        age = self.age_s()
        return [(mark, age + mark.lifetime_s) for mark in marks]

    def apply(self, written: Sequence[tuple[Mark, int] | MarkKey]) -> list[tuple[Mark, int] | MarkKey]:
        """What is on disk now, in order; returns the keys that the caps push out, to be deleted there too."""
        pushed_out: list[tuple[Mark, int] | MarkKey] = []
        for change in written:
            if isinstance(change, MarkKey):
                self._scopes.get(change.scope, {}).pop(change.key, None)
                continue
            mark, expires_s = change
            scope = self._scopes.setdefault(mark.scope, {})
            scope.pop(mark.key, None)
            scope[mark.key] = (mark.value, expires_s)
            if len(scope) > MARKS_PER_SCOPE_MAX:
                oldest = next(iter(scope))
                del scope[oldest]
                pushed_out.append(MarkKey(mark.scope, oldest))
        return pushed_out
