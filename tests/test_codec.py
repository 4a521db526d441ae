"""Segments survive the way through bytes, and damaged bytes are told apart from good ones."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.codec import DecodeError, Entry, Shape, decode, encode

shapes = st.builds(
    Shape,
    st.text(max_size=20),
    st.none() | st.binary(max_size=20),
    st.lists(st.tuples(st.text(max_size=8), st.binary(max_size=8)), max_size=3).map(tuple),
)
entries = st.lists(
    st.builds(Entry, shapes, st.integers(-(2**40), 2**50), st.binary(max_size=200)), max_size=30
)


@given(entries)
def test_round_trip(given_entries: list[Entry]) -> None:
    assert decode(encode(given_entries)) == given_entries


@given(st.data())
def test_any_flipped_bit_is_seen(data: st.DataObject) -> None:
    body = bytearray(encode([Entry(Shape("t", b"k", ()), 1_700_000_000_000, b"value")]))
    bit = data.draw(st.integers(0, len(body) * 8 - 1))
    body[bit // 8] ^= 1 << bit % 8
    with pytest.raises(DecodeError):
        decode(bytes(body))


@given(st.binary(max_size=64))
def test_noise_is_not_a_segment(noise: bytes) -> None:
    with pytest.raises(DecodeError):
        decode(noise)
