"""Numbers of saved records, through any number of damaged databases."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from gateway.queue import Salvaged
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
