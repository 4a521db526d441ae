"""What is fuzzed, and what must hold."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType


@dataclass(frozen=True)
class Target:
    """`run` takes an input whole and in pieces and returns whether it was accepted. What it raises is a fault that was found.

    `work_per_byte` bounds the bytecodes of `modules` that an input may cost, beside a thousand times as many for any.
    """

    name: str
    modules: Sequence[ModuleType]
    seeds: Sequence[bytes]
    tokens: Sequence[bytes]
    run: Callable[[bytes, random.Random], bool]
    work_per_byte: int


def pieces(data: bytes, chance: random.Random) -> list[bytes]:
    """As a socket may bring them: whole, byte by byte, or cut anywhere."""
    how = chance.randrange(4)
    if how == 0 and len(data) < 300:
        return [data[at : at + 1] for at in range(len(data))]
    cuts = sorted(chance.randrange(len(data) + 1) for _ in range(how))
    found = [data[start:end] for start, end in zip((0, *cuts), (*cuts, len(data)), strict=True)]
    return [piece for piece in found if piece]
