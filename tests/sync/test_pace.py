"""How a transaction's size follows what the link does."""

import pytest

from gateway.sync.pace import BYTES_FIRST, BYTES_MAX, BYTES_MIN, Pace


def send(pace: Pace, body_bytes: int, took_s: float) -> int:
    """One transaction as large as it may be; returns its records."""
    records = min(pace.records, pace.bytes // body_bytes)
    pace.began(0.0)
    pace.ended(took_s, records * body_bytes, records, records * body_bytes)
    return records


@pytest.mark.parametrize("body_bytes", [4, 25, 120, 1000])
def test_transactions_grow_on_a_fast_link_however_small_the_records(body_bytes: int) -> None:
    pace = Pace(0.0, None)
    first = send(pace, body_bytes, 0.1)
    for _ in range(10):
        send(pace, body_bytes, 0.1)
    assert pace.bytes == BYTES_MAX
    assert send(pace, body_bytes, 0.1) > 50 * first


@pytest.mark.parametrize("body_bytes", [4, 120, 1000])
def test_they_shrink_on_a_slow_one_to_what_a_second_carries(body_bytes: int) -> None:
    pace = Pace(0.0, None)
    send(pace, body_bytes, 2.0)
    assert BYTES_FIRST // 2 - body_bytes <= pace.bytes <= BYTES_FIRST // 2
    for _ in range(10):
        send(pace, body_bytes, 8.0)
    assert pace.bytes == BYTES_MIN
