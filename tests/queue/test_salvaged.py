"""Numbers of saved records, through any number of damaged databases."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.queue import Lost, Salvaged, SavedLane
from gateway.queue.salvaged import carried


def numbers(pieces: Sequence[Salvaged]) -> dict[int, int]:
    """{new number: old one}."""
    return {
        piece.first + index: piece.old_first + index for piece in pieces for index in range(piece.records)
    }


@st.composite
def saved(draw: st.DrawFn, queue: str) -> list[Salvaged]:
    """From 1 on; of the old numbers some are missing."""
    pieces: list[Salvaged] = []
    old = new = 1
    for missing, records in draw(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 5)), max_size=8)):
        pieces.append(Salvaged(queue, old + missing, records, new))
        old, new = old + missing + records, new + records
    return pieces


@given(saved("first"), saved("second"))
def test_what_was_saved_twice_is_known_by_its_first_numbers(
    first: list[Salvaged], second: list[Salvaged]
) -> None:
    found = list(carried(second, first))
    before = numbers(first)
    assert numbers(found) == {new: before[old] for new, old in numbers(second).items() if old in before}
    assert {piece.queue_id for piece in found} <= {"first"}


@pytest.mark.parametrize(
    ("first", "last", "lost", "pieces"),
    [
        (1, 10, [], [(1, 10, 1)]),
        (11, 40, [(5, 10), (21, 30)], [(11, 10, 1), (31, 10, 11)]),
        (11, 40, [(21, 21), (23, 23), (41, 60)], [(11, 10, 1), (22, 1, 11), (24, 17, 12)]),
        (None, None, [(1, 60)], []),
    ],
)
def test_a_story_tells_once_more_what_was_saved(
    first: int | None,
    last: int | None,
    lost: list[tuple[int, int]],
    pieces: list[tuple[int, int, int]],
) -> None:
    records = sum(count for _, count, _ in pieces)
    ranges = tuple(Lost(*one, None, 0) for one in lost)
    told = SavedLane(records, first, last, 0, ranges, 0, last or 60, None)
    assert told.pieces("q") == [Salvaged("q", *one) for one in pieces]
    assert replace(told, records=records + 1).pieces("q") is None
