"""Changes a message as broken and hostile senders do."""

import random
from collections.abc import Callable, Sequence

BYTES_MAX = 1 << 16
CHANGES_MAX = 6
INTERESTING = (0, 1, 0x7F, 0x80, 0xFE, 0xFF)

Mutation = Callable[[bytearray, "Mutator"], None]


class Mutator:
    """`tokens` are words of the protocol; `corpus` is what other messages are spliced from, and may grow."""

    def __init__(self, chance: random.Random, tokens: Sequence[bytes], corpus: Sequence[bytes]) -> None:
        self.chance = chance
        self.tokens = tokens
        self.corpus = corpus

    def next(self) -> bytes:
        """Mostly a few changes; sometimes none, and sometimes bytes that never were a message."""
        if self.chance.random() < 0.02:
            return self.chance.randbytes(self.chance.randrange(100))
        return self.changed(self.chance.choice(self.corpus))

    def changed(self, message: bytes) -> bytes:
        data = bytearray(message)
        for _ in range(self.chance.randrange(CHANGES_MAX + 1)):
            self.chance.choice(MUTATIONS)(data, self)
        return bytes(data[:BYTES_MAX])

    def place(self, data: bytearray) -> int:
        """Heads are short, and where most is decided."""
        if self.chance.random() < 0.3:
            return self.chance.randrange(min(len(data), 16) + 1)
        return self.chance.randrange(len(data) + 1)

    def piece(self, data: Sequence[int]) -> slice:
        start = self.chance.randrange(len(data) + 1)
        return slice(start, start + 1 + int(self.chance.expovariate(0.1)))


def _flip(data: bytearray, by: Mutator) -> None:
    at = by.place(data)
    if at < len(data):
        data[at] ^= 1 << by.chance.randrange(8)


def _set(data: bytearray, by: Mutator) -> None:
    at = by.place(data)
    if at < len(data):
        data[at] = by.chance.choice((*INTERESTING, by.chance.randrange(256)))


def _count(data: bytearray, by: Mutator) -> None:
    """A length that is a little off, or of one to four bytes and far off."""
    at = by.place(data)
    if by.chance.random() < 0.5:
        if at < len(data):
            data[at] = (data[at] + by.chance.choice((-2, -1, 1, 2))) & 0xFF
        return
    width = by.chance.choice((1, 2, 4))
    value = by.chance.choice((0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, len(data)))
    data[at : at + width] = (value & (1 << 8 * width) - 1).to_bytes(
        width, by.chance.choice(("big", "little"))
    )


def _cut(data: bytearray, by: Mutator) -> None:
    del data[by.place(data) :]


def _drop(data: bytearray, by: Mutator) -> None:
    del data[by.piece(data)]


def _insert(data: bytearray, by: Mutator) -> None:
    at = by.place(data)
    data[at:at] = by.chance.randbytes(1 + int(by.chance.expovariate(0.3)))


def _word(data: bytearray, by: Mutator) -> None:
    at = by.place(data)
    word = by.chance.choice(by.tokens)
    data[at : at + by.chance.choice((0, len(word)))] = word


def _repeat(data: bytearray, by: Mutator) -> None:
    """Mostly a few times; sometimes as often as fits."""
    piece = by.piece(data)
    copy = data[piece]
    if copy:
        times = (
            BYTES_MAX // 64 // len(copy) if by.chance.random() < 0.03 else by.chance.choice((1, 1, 2, 3, 17))
        )
        data[piece.start : piece.start] = copy * times


def _splice(data: bytearray, by: Mutator) -> None:
    other = by.chance.choice(by.corpus)
    at = by.place(data)
    data[at:] = other[by.chance.randrange(len(other) + 1) :]


def _follow(data: bytearray, by: Mutator) -> None:
    data += by.chance.choice(by.corpus)


MUTATIONS: Sequence[Mutation] = (
    _flip,
    _flip,
    _set,
    _count,
    _count,
    _cut,
    _drop,
    _insert,
    _word,
    _word,
    _repeat,
    _splice,
    _follow,
)
