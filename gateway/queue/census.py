"""Counting what really lies on the disk, while the gateway goes on writing, delivering and trimming."""

from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from gateway.codec import Entry
from gateway.queue.ranges import Range, include, overlap
from gateway.queue.segments import Gap, Stored

Read = Callable[[int], Awaitable[tuple[Sequence[tuple[Stored, Sequence[Entry]]], Sequence[Gap]]]]
"""Segments with numbers > its argument, decoded; at least one if there is any."""


class Count(NamedTuple):
    """Of the numbers up to `through`, `records` are pending."""

    through: int
    records: int


class Census:
    """Numbers that were read from the disk and decoded, as ranges; adjacent ones are one."""

    def __init__(self, through: int) -> None:
        self._found: list[Range] = []
        self._through = through

    @classmethod
    async def of(cls, read: Read, after: int, written: Callable[[], int]) -> "Census":
        """All behind `after` that was `written` when it began."""
        census, enough = cls(after), written()
        while census._through < enough:
            before = written()
            rows, _ = await read(after)
            for row, entries in rows:
                census.add(max(row.first, after + 1), row.first + len(entries) - 1)
                after = row.last
            census._through = after if rows else before
        return census

    def add(self, first: int, last: int) -> None:
        include(self._found, first, last)

    def count(self, position: int, holes: Sequence[Range]) -> Count:
        """What of it is pending now, when all up to `position` is done and `holes` were deleted since."""
        through = max(self._through, position)
        here = [(max(first, position + 1), min(last, through)) for first, last in self._found]
        deleted = sum(overlap(holes, first - 1, last) for first, last in here)
        return Count(through, sum(max(0, last - first + 1) for first, last in here) - deleted)
