"""Counting what really lies on the disk, while the gateway goes on writing, delivering and trimming."""

from collections.abc import Sequence
from typing import NamedTuple

Range = tuple[int, int]
"""First and last number, both included."""


class Count(NamedTuple):
    """Of the numbers up to `through`, `records` are pending."""

    through: int
    records: int


class Census:
    """Numbers that were read from the disk and decoded, as ranges; adjacent ones are one."""

    def __init__(self) -> None:
        self._found: list[Range] = []

    def add(self, first: int, last: int) -> None:
        if self._found and self._found[-1][1] + 1 == first:
            first = self._found.pop()[0]
        self._found.append((first, last))

    def count(self, position: int, through: int, holes: Sequence[Range]) -> Count:
        """What of it is pending now, when all up to `position` is done and `holes` were deleted since."""
        through = max(through, position)
        here = [(max(first, position + 1), min(last, through)) for first, last in self._found]
        deleted = sum(
            max(0, min(last, hole[1]) - max(first, hole[0]) + 1) for first, last in here for hole in holes
        )
        return Count(through, sum(max(0, last - first + 1) for first, last in here) - deleted)
