"""The fewest, largest reads for the values of a unit, and what its exception answers teach about them.

A hole between two values is read along where that takes less time than a request of its own. When a unit refuses a
block of several values, the block is cut in two, at its largest hole, and both parts are read; so it goes on until the
parts are read or a value is refused alone. A cut is proven once its two sides were read and the whole was refused: cuts
that are not proven are left out for trial one by one, so that in the end only those remain that the unit needs. A refusal
that speaks of the quantity (exception 3) is taken for a limit of the unit, which is then searched.
"""

from collections.abc import Iterable, Sequence
from struct import Struct
from typing import NamedTuple

from drivers.modbus.protocol import BIT_TABLES, READ_BITS_MAX, READ_FUNCTIONS, Request, Table, read
from drivers.modbus.register import Decode, NoValue, Plain
from gateway.record import Value


class Point(NamedTuple):
    """A value to read: `size` registers or bits from `at` on, always in one block."""

    name: str
    table: Table
    at: int
    size: int
    decode: Decode
    plain: Plain | None = None

    @property
    def end(self) -> int:
        return self.at + self.size


class Block(NamedTuple):
    """One request: its points, in the order of their addresses. The plain ones, (name, divisor), are what `unpack` gives;
    `decodes` are names, decoders and offsets of the others."""

    table: Table
    at: int
    size: int
    points: tuple[Point, ...]
    unpack: Struct
    plain: tuple[tuple[str, int], ...]
    decodes: tuple[tuple[str, Decode, int], ...]
    request: Request

    @property
    def end(self) -> int:
        return self.at + self.size

    def values(self, data: bytes) -> tuple[dict[str, Value], dict[str, str]]:
        """Values and quality."""
        numbers = zip(self.plain, self.unpack.unpack_from(data), strict=True)
        values: dict[str, Value] = {
            name: number if divisor == 1 else number / divisor for (name, divisor), number in numbers
        }
        quality: dict[str, str] = {}
        for name, decode, offset in self.decodes:
            try:
                values[name] = decode(data, offset)
            except NoValue as error:
                quality[name] = str(error)
        return values, quality


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
    unit = 1 if table in BIT_TABLES else 2
    code, end = ">", at
    plain: list[tuple[str, int]] = []
    decodes: list[tuple[str, Decode, int]] = []
    for point in points:
        if point.plain is not None and point.at >= end:
            code += f"{2 * (point.at - end)}x{point.plain.code}"
            plain.append((point.name, point.plain.divisor))
            end = point.end
        else:
            decodes.append((point.name, point.decode, unit * (point.at - at)))
    request = read(table, at, size)
    return Block(table, at, size, tuple(points), Struct(code), tuple(plain), tuple(decodes), request)


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
    """The blocks of one poll class of a unit, and what its refusals taught.

    `known` is what `learned` held before, of any of the unit's plans: lines like "cut holding 50" and "limit 40".
    """

    def __init__(self, points: Sequence[Point], limits: Limits, known: Iterable[str]) -> None:
        self._points = points
        self._hole_max = limits.hole_max
        self._proven: set[Cut] = set()
        self._unproven: list[Cut] = []
        self._trial: Cut | None = None
        self._limit_sought = False
        self._read_max = 0
        self._refused_min = limits.registers_max + 1
        self.learned: list[str] = []
        for line in known:
            self._recall(line)
        self._registers_max = self._refused_min - 1
        self._plan()

    def _recall(self, line: str) -> None:
        match line.split():
            case ["limit", size]:
                self._refused_min = min(self._refused_min, int(size) + 1)
            case ["cut", table, at]:
                self._proven.update(Cut(known, int(at)) for known in READ_FUNCTIONS if known == table)

    def took(self, read: Block) -> None:
        """The unit answered this block."""
        if read.size > self._read_max and read.table not in BIT_TABLES:
            self._read_max = read.size

    def cut(self, refused: Block, *, for_size: bool) -> tuple[Block, Block] | None:
        """The parts to read instead of a refused block; None if it is a single value. `for_size`: the unit says so."""
        trial = self._trial
        if trial is not None and trial.table == refused.table and refused.at < trial.at < refused.end:
            self._trial = None
            self._proven.add(trial)
            self.learned.append(f"cut {trial.table} {trial.at}")
            before = [point for point in refused.points if point.at < trial.at]
            after = [point for point in refused.points if point.at >= trial.at]
            self._plan()
            return block(before), block(after)
        parts = halves(refused)
        if parts is None:
            return None
        if for_size and refused.size > self._read_max and refused.table not in BIT_TABLES:
            self._refused_min = min(self._refused_min, refused.size)
            self._registers_max = min(self._registers_max, self._refused_min - 1)
            self._limit_sought = True
        else:
            self._unproven.append(Cut(refused.table, parts[1].at))
        self._plan()
        return parts

    def went_through(self) -> None:
        """Every block was answered: a cut left out for trial is not needed, and the next one is tried.

        Between the largest block that was read and the smallest that was refused, the unit's limit is searched.
        """
        if self._trial is not None or self._unproven:
            self._trial = self._unproven.pop(0) if self._unproven else None
            self._plan()
        elif self._limit_sought:
            self._registers_max = (self._read_max + self._refused_min) // 2
            self._plan()
            largest = max((one.size for one in self.blocks if one.table not in BIT_TABLES), default=0)
            if largest <= self._read_max:
                self._registers_max = self._read_max
                self._limit_sought = False
                self.learned.append(f"limit {self._read_max}")

    def _plan(self) -> None:
        limits = Limits(self._registers_max, self._hole_max)
        self.blocks = blocks(self._points, limits, (*self._proven, *self._unproven))
