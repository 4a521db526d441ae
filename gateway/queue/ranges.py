"""Sets of numbers, as ranges in order."""

from collections.abc import Sequence

Range = tuple[int, int]
"""First and last number, both included."""


def include(ranges: list[Range], first: int, last: int) -> None:
    """Adjacent ones become one: a queue that is full for weeks drops its oldest records with every commit."""
    if ranges and ranges[-1][1] + 1 == first:
        ranges[-1] = (ranges[-1][0], last)
    else:
        ranges.append((first, last))
        ranges.sort()


def overlap(ranges: Sequence[Range], after: int, through: int) -> int:
    """How many of `ranges` are > after and <= through."""
    return sum(max(0, min(last, through) - max(first, after + 1) + 1) for first, last in ranges)
