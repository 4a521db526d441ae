"""A unit as it is read: its poll classes, what is learned about it, and how it fares."""

import asyncio
import logging
from collections import deque
from collections.abc import Iterable
from itertools import chain
from math import inf
from operator import itemgetter
from typing import NamedTuple

from drivers.modbus.line import Count, Line, NoAnswer
from drivers.modbus.plan import Block, Plan, Point
from drivers.modbus.protocol import (
    ADDRESSES,
    BIT_TABLES,
    DEVICE_FAILURE,
    ILLEGAL_ADDRESS,
    ILLEGAL_VALUE,
    READ_BITS_MAX,
    READ_REGISTERS_MAX,
    UNREACHED,
    ExceptionAnswer,
    Request,
    read,
)
from drivers.modbus.unit import Unit
from gateway.penalty import Penalty
from gateway.record import Value

TOO_MUCH = frozenset((ILLEGAL_ADDRESS, ILLEGAL_VALUE, DEVICE_FAILURE))
"""Refusals that may be about a part of what was asked for."""

SILENCES_NEW, SILENCES_KNOWN = 2, 5
"""So often in a row a block is met with silence before it counts as refused: one that was never answered, and one that was.

A lossy line gives nobody an answer now and then; a unit that hasn't a register never answers for it.
"""

MUTE_S, MUTE_S_MAX = 4.0, 60.0
"""A value to which a unit says nothing, though it answers others, is left alone for so long, each time twice as long."""

NOT_ASKED = "not asked, because there was no answer before"
NAMES_MAX = 3
"""Of values that are left alone, as many are named in `status`."""

_log = logging.getLogger(__name__)


class Mute(NamedTuple):
    """Of a block that can't be cut: one value, or several that share registers."""

    names: frozenset[str]
    for_s: float
    until: float


class PollClass:
    """The values of a unit that are read together, every `interval` seconds."""

    def __init__(self, unit: "Polled", interval: float, points: list[Point], plan: Plan) -> None:
        self.unit = unit
        self.interval = interval
        self.due = -inf
        self._points = points
        self._plan = plan
        self._known: set[Request] = set()
        self._silent: Request | None = None
        self._silences = 0
        self._answers = 0
        self._mutes: dict[Request, Mute] = {}

    @property
    def learned(self) -> list[str]:
        """What is to be remembered for the plan."""
        return self._plan.learned

    @property
    def blocks(self) -> list[Block]:
        return self._plan.blocks

    @property
    def muted(self) -> list[str]:
        """Values that are not asked for at present."""
        now = asyncio.get_running_loop().time()
        return [name for mute in self._mutes.values() if now < mute.until for name in sorted(mute.names)]

    def doubts(self, block: Block) -> bool:
        """Whether the unit may have no answer for it, whatever it has for others."""
        return block.request == self._silent or self._is_mute(block)

    def heard(self, request: Request) -> None:
        """The unit answered this, with values or a refusal."""
        self._known.add(request)
        if self._silent == request:
            self._silent = None
        if request in self._mutes:
            self._unmute(request)

    def nothing(self, reason: str) -> dict[str, str]:
        """The quality of a poll that read nothing."""
        return {point.name: reason for point in self._points}

    async def read(self, line: Line, count: Count) -> tuple[dict[str, Value], dict[str, str], str | None]:
        """Values, quality, and why the unit did not answer, if it didn't. Raises DeviceError."""
        values: dict[str, Value] = {}
        quality: dict[str, str] = {}
        blocks = deque(self._plan.blocks)
        while blocks:
            block = blocks.popleft()
            if self._is_mute(block):
                quality.update((point.name, NOT_ASKED) for point in block.points)
                continue
            try:
                data = await self.unit.exchange(line, block.request)
            except ExceptionAnswer as error:
                count("exception answers", 1)
                if error.code in UNREACHED:
                    return values, self._rest(block, blocks, str(error), quality), str(error)
                too_large = error.code == ILLEGAL_VALUE
                parts = self._plan.cut(block, for_size=too_large) if error.code in TOO_MUCH else None
                if parts is None:
                    quality.update((point.name, f"refused: {error}") for point in block.points)
                else:
                    blocks.extendleft(reversed(parts))
            except NoAnswer as error:
                count("requests without an answer", 1)
                quality = self._rest(block, blocks, str(error), quality)
                self._was_silent(block)
                return values, quality, str(error)
            else:
                self._plan.took(block)
                self._found_again(block)
                found, missing = block.values(data)
                values.update(found)
                quality.update(missing)
        self._plan.went_through()
        return values, quality, None

    def _was_silent(self, block: Block) -> None:
        """Some units don't refuse what they haven't, they say nothing, and that while they answer for something else."""
        if self._silent != block.request:
            self._silent, self._silences = block.request, 0
        elif self._answers == self.unit.answers:
            return
        self._answers = self.unit.answers
        self._silences += 1
        if self._silences < (SILENCES_KNOWN if block.request in self._known else SILENCES_NEW):
            return
        self._silent = None
        if self._plan.cut(block, for_size=False) is None:
            self._mute(block)

    def _mute(self, block: Block) -> None:
        before = self._mutes.get(block.request)
        for_s = MUTE_S if before is None else min(2 * before.for_s, MUTE_S_MAX)
        names = frozenset(point.name for point in block.points)
        self._mutes[block.request] = Mute(names, for_s, asyncio.get_running_loop().time() + for_s)
        if before is None:
            _log.warning(
                "%s: no answer for %s, but for others; not asked for %g s, then less and less often, down to once in %g s",
                self.unit.channel,
                ", ".join(sorted(names)),
                MUTE_S,
                MUTE_S_MAX,
            )

    def _found_again(self, block: Block) -> None:
        """What is left alone on its own may be read along with others."""
        for request, mute in list(self._mutes.items()):
            if mute.names <= {point.name for point in block.points}:
                self._unmute(request)

    def _unmute(self, request: Request) -> None:
        names = self._mutes.pop(request).names
        _log.info("%s: %s answered again", self.unit.channel, ", ".join(sorted(names)))

    def _is_mute(self, block: Block) -> bool:
        mute = self._mutes.get(block.request)
        return mute is not None and asyncio.get_running_loop().time() < mute.until

    def _rest(
        self, block: Block, blocks: Iterable[Block], reason: str, quality: dict[str, str]
    ) -> dict[str, str]:
        for one in (block, *blocks):
            quality.update((point.name, NOT_ASKED if self._is_mute(one) else reason) for point in one.points)
        return quality


class Polled:
    """`known` is what `learned` of its classes held before."""

    def __init__(self, unit: Unit, hole_max: int, known: Iterable[str]) -> None:
        self.unit = unit
        self.channel = f"modbus/{unit.device}"
        self.answers = 0
        self._turn = 0
        limits, lines = unit.limits(hole_max), tuple(known)
        self.classes = [
            PollClass(self, interval, points, Plan(points, limits, lines))
            for interval, points in unit.classes().items()
        ]
        self.penalty = Penalty(min(each.interval for each in self.classes))

    @property
    def muted(self) -> str | None:
        """What an operator should know of values that are not asked for."""
        names = [name for each in self.classes for name in each.muted]
        return (
            f"{', '.join(names[:NAMES_MAX])}{' ...' if len(names) > NAMES_MAX else ''}: {NOT_ASKED}"
            if names
            else None
        )

    async def exchange(self, line: Line, request: Request) -> bytes:
        """As the line's, and what was answered is remembered."""
        try:
            data = await line.exchange(self.unit.address, request)
        except ExceptionAnswer as error:
            if error.code not in UNREACHED:
                self._heard(request)
            raise
        self._heard(request)
        return data

    def _heard(self, request: Request) -> None:
        self.answers += 1
        for each in self.classes:
            each.heard(request)

    async def probe(self, line: Line) -> str | None:
        """Why the unit still doesn't answer; None if it does. Raises DeviceError."""
        request = self._probe(line)
        if request is None:
            return "an earlier answer may still come"
        try:
            await self.exchange(line, request)
        except NoAnswer as error:
            self._turn += 1
            return str(error)
        except ExceptionAnswer as error:
            return str(error) if error.code in UNREACHED else None
        return None

    def _probe(self, line: Line) -> Request | None:
        """A short read whose answer can't be taken for one that may still come; another one after each failure, and what is
        in doubt last.
        """
        barred = line.may_come(self.unit.address)
        doubted = [(each.doubts(block), block) for each in self.classes for block in each.blocks]
        points = [(doubt, point) for doubt, block in doubted for point in block.points]
        turn = self._turn % len(points)
        points = sorted(points[turn:] + points[:turn], key=itemgetter(0))
        requests = chain(
            (read(point.table, point.at, point.size) for _, point in points),
            (read(block.table, block.at, size) for _, block in doubted for size in _any_part(block)),
            (read(block.table, block.at, size) for _, block in doubted for size in _a_little_more(block)),
        )
        return next((request for request in requests if request.head not in barred), None)


def _any_part(block: Block) -> Iterable[int]:
    return range(1, block.size)


def _a_little_more(block: Block) -> Iterable[int]:
    """Bits come eight to a byte, and only another number of bytes makes another answer."""
    size_max = READ_BITS_MAX if block.table in BIT_TABLES else READ_REGISTERS_MAX
    step = 8 if block.table in BIT_TABLES else 1
    sizes = (block.size + step, block.size + 2 * step)
    return [size for size in sizes if size <= size_max and block.at + size <= ADDRESSES]
