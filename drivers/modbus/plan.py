"""The fewest, largest reads for the values of a unit, and what its exception answers teach about them.

A hole between two values is read along where that takes less time than a request of its own. When a unit refuses a
block of several values, the block is cut in two, at its largest hole, and both parts are read; so it goes on until the
parts are read or a value is refused alone. A cut is kept as proven once its two sides were read and the whole was refused:
cuts that are not proven are tried out one by one, so that in the end only those remain that the unit needs.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from drivers.modbus.protocol import BIT_TABLES, READ_BITS_MAX, Request, Table, read
from drivers.modbus.register import Decode


class Point(NamedTuple):
    """A value to read: `size` registers or bits from `at` on, always in one block."""

    name: str
    table: Table
    at: int
    size: int
    decode: Decode

    @property
    def end(self) -> int:
        return self.at + self.size


class Block(NamedTuple):
    """One request: its points, in the order of their addresses."""

    table: Table
    at: int
    size: int
    points: tuple[Point, ...]
    request: Request

    @property
    def end(self) -> int:
        return self.at + self.size


class Cut(NamedTuple):
    """No block reaches from below `at` to `at`."""

    table: Table
    at: int


class Limits(NamedTuple):
    """What a unit takes in one request, and the largest hole worth reading, in registers."""

    registers_max: int
    hole_max: int


def block(points: Sequence[Point]) -> Block:
    """Of one table, sorted by address."""
    table, at = points[0].table, points[0].at
    size = max(point.end for point in points) - at
    return Block(table, at, size, tuple(points), read(table, at, size))


def blocks(points: Iterable[Point], limits: Limits, cuts: Iterable[Cut]) -> list[Block]:
    """In the order of tables and addresses; overlapping points share a block unless that is too large."""
    found: list[Block] = []
    group: list[Point] = []
    end = 0
    known = frozenset(cuts)
    for point in sorted(points, key=lambda point: (point.table, point.at, point.size)):
        in_bits = point.table in BIT_TABLES
        size_max = READ_BITS_MAX if in_bits else limits.registers_max
        hole_max = limits.hole_max * (16 if in_bits else 1)
        joins = (
            bool(group)
            and group[0].table == point.table
            and point.at - end <= hole_max
            and max(end, point.end) - group[0].at <= size_max
            and Cut(point.table, point.at) not in known
        )
        if group and not joins:
            found.append(block(group))
            group = []
        end = max(end, point.end) if group else point.end
        group.append(point)
    if group:
        found.append(block(group))
    return found


def halves(whole: Block) -> tuple[Block, Block] | None:
    """At the largest hole, of several the one nearest to the middle; None if its points can't be parted."""
    middle = whole.at + whole.size / 2
    best: tuple[int, float] | None = None
    place = 0
    end = whole.points[0].end
    for number, point in enumerate(whole.points[1:], 1):
        hole = point.at - end
        rank = (hole, -abs(point.at - middle))
        if hole >= 0 and (best is None or rank > best):
            best, place = rank, number
        end = max(end, point.end)
    if best is None:
        return None
    return block(whole.points[:place]), block(whole.points[place:])


class Plan:
    """The blocks of one poll class of a unit, and the cuts that were learned. `proven` are those learned before."""

    def __init__(self, points: Sequence[Point], limits: Limits, proven: Iterable[Cut]) -> None:
        self._points = points
        self._limits = limits
        self._proven = set(proven)
        self._unproven: list[Cut] = []
        self._trial: Cut | None = None
        self.blocks = blocks(points, limits, self._proven)

    def cut(self, refused: Block) -> tuple[tuple[Block, Block] | None, Cut | None]:
        """The parts to read instead of a refused block, and the cut if it is proven by that.

        No parts if it is a single value that is refused.
        """
        trial = self._trial
        if trial is not None and trial.table == refused.table and refused.at < trial.at < refused.end:
            self._trial = None
            self._proven.add(trial)
            before = [point for point in refused.points if point.at < trial.at]
            after = [point for point in refused.points if point.at >= trial.at]
            self._plan()
            return (block(before), block(after)), trial
        parts = halves(refused)
        if parts is not None:
            self._unproven.append(Cut(refused.table, parts[1].at))
            self._plan()
        return parts, None

    def went_through(self) -> None:
        """Every block was answered: a cut left out for trial is not needed, and the next is tried."""
        if self._trial is not None or self._unproven:
            self._trial = self._unproven.pop(0) if self._unproven else None
            self._plan()

    def _plan(self) -> None:
        self.blocks = blocks(self._points, self._limits, (*self._proven, *self._unproven))
