"""Sets of sequence numbers as intervals: memory goes with the holes, not with the numbers."""

from array import array
from collections.abc import Iterable, Iterator
from typing import NamedTuple

BUFFER_MIN = 256
INTERVAL_BYTES = 16


class Range(NamedTuple):
    """From `first` to `last`, both included."""

    first: int
    last: int

    @property
    def size(self) -> int:
        return self.last - self.first + 1


class Numbers:
    """A set that remembers what was added more than once. Numbers may come in any order; nearly ascending is cheap."""

    __slots__ = ("_firsts", "_fresh", "_lasts", "_repeated", "added")

    def __init__(self) -> None:
        self.added = 0
        self._fresh = array("q")
        self._firsts = array("q")
        self._lasts = array("q")
        self._repeated: list[Range] = []

    def add(self, number: int) -> None:
        self.added += 1
        self._fresh.append(number)
        if len(self._fresh) >= BUFFER_MIN and len(self._fresh) >= len(self._firsts):
            self.settle()

    def settle(self) -> None:
        """Merge what was added last into the intervals."""
        if not self._fresh:
            return
        firsts, lasts = array("q"), array("q")
        repeated: list[Range] = []
        for first, last in self._merged():
            if not lasts or first > lasts[-1] + 1:
                firsts.append(first)
                lasts.append(last)
                continue
            if first <= lasts[-1]:
                repeated.append(Range(first, min(last, lasts[-1])))
            lasts[-1] = max(last, lasts[-1])
        self._firsts, self._lasts, self._fresh = firsts, lasts, array("q")
        if repeated:
            self._repeated = joined([*self._repeated, *repeated])

    def ranges(self) -> list[Range]:
        self.settle()
        return [Range(first, last) for first, last in zip(self._firsts, self._lasts, strict=True)]

    def repeated(self) -> list[Range]:
        self.settle()
        return self._repeated

    @property
    def highest(self) -> int:
        """0 if there is none."""
        self.settle()
        return self._lasts[-1] if self._lasts else 0

    @property
    def intervals(self) -> int:
        """What it takes to hold the set, numbers not merged yet included."""
        return len(self._firsts) + len(self._fresh) + len(self._repeated)

    def _merged(self) -> Iterator[tuple[int, int]]:
        """Intervals and fresh numbers, ordered by their first number."""
        fresh = sorted(self._fresh)
        following = 0
        for first, last in zip(self._firsts, self._lasts, strict=True):
            while following < len(fresh) and fresh[following] < first:
                yield fresh[following], fresh[following]
                following += 1
            yield first, last
        for number in fresh[following:]:
            yield number, number


def joined(ranges: Iterable[Range]) -> list[Range]:
    """The same numbers in order, each once."""
    result: list[Range] = []
    for first, last in sorted(ranges):
        if result and first <= result[-1].last + 1:
            result[-1] = Range(result[-1].first, max(last, result[-1].last))
        elif first <= last:
            result.append(Range(first, last))
    return result


def without(ranges: Iterable[Range], taken: Iterable[Range]) -> Iterator[Range]:
    """What of `ranges` is not in `taken`; both joined."""
    others = iter(taken)
    other = next(others, None)
    for first, last in ranges:
        while other is not None and other.last < first:
            other = next(others, None)
        while other is not None and other.first <= last:
            if first < other.first:
                yield Range(first, other.first - 1)
            first = other.last + 1
            if other.last > last:
                break
            other = next(others, None)
        if first <= last:
            yield Range(first, last)


def within(ranges: Iterable[Range], bounds: Iterable[Range]) -> list[Range]:
    """What of `ranges` is in `bounds`, too; both joined."""
    kept = list(ranges)
    return list(without(kept, without(kept, bounds)))
