"""How a transaction's size follows what the link does."""

import pytest

from gateway.limits import RECORD_OVERHEAD_BYTES
from gateway.sync.pace import BYTES_FIRST, BYTES_MAX, BYTES_MIN, Pace


def send(pace: Pace, body_bytes: int, took_s: float) -> int:
    """One transaction as large as it may be; returns its records."""
    records = min(pace.records, pace.bytes // body_bytes)
    pace.began(0.0)
    pace.ended(took_s, records * body_bytes, records, records * body_bytes)
    return records


@pytest.mark.parametrize("body_bytes", [4, 25, 120, 1000])
def test_transactions_grow_on_a_fast_link_however_small_the_records(body_bytes: int) -> None:
    pace = Pace(0.0, None, 10.0)
    first = send(pace, body_bytes, 0.1)
    for _ in range(10):
        send(pace, body_bytes, 0.1)
    assert pace.bytes == BYTES_MAX
    assert send(pace, body_bytes, 0.1) > 50 * first


@pytest.mark.parametrize("body_bytes", [4, 120, 1000])
def test_they_shrink_on_a_slow_one_to_what_a_second_carries(body_bytes: int) -> None:
    pace = Pace(0.0, None, 10.0)
    send(pace, body_bytes, 2.0)
    assert BYTES_FIRST // 2 - body_bytes <= pace.bytes <= BYTES_FIRST // 2
    for _ in range(10):
        send(pace, body_bytes, pace.bytes / 4096)
    assert pace.bytes == BYTES_MIN


@pytest.mark.parametrize("fixed_s", [0.1, 2.5, 7.5])
@pytest.mark.parametrize("body_bytes", [25, 1000])
def test_where_every_transaction_takes_long_they_carry_more(fixed_s: float, body_bytes: int) -> None:
    """A link by satellite, a busy broker: transactions as small as they may be would never get rid of what waits."""
    pace = Pace(0.0, None, 10.0)
    for _ in range(5):
        send(pace, body_bytes, 0.05)
    link_bytes_per_s, waits = 1_000_000, 2_000
    for _ in range(48):
        records = min(pace.records, pace.bytes // body_bytes, waits)
        took_s = fixed_s + records * (body_bytes + RECORD_OVERHEAD_BYTES) / link_bytes_per_s
        pace.began(0.0)
        pace.ended(took_s, records * body_bytes, records, records * body_bytes)
        waits += round(75 * took_s) - records
    assert waits < 75 * (fixed_s + 2)


@pytest.mark.parametrize("link_bytes_per_s", [2_000, 8_000, 50_000])
def test_a_slow_link_without_delay_keeps_them_small(link_bytes_per_s: int) -> None:
    pace = Pace(0.0, None, 10.0)
    for _ in range(100):
        send(pace, 1000, 0.05 + pace.bytes / link_bytes_per_s)
    assert pace.bytes <= max(2 * BYTES_MIN, link_bytes_per_s)
