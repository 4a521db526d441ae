"""How a transaction's size follows what the link does."""

import pytest

from gateway.limits import RECORD_OVERHEAD_BYTES
from gateway.sync.pace import BYTES_FIRST, BYTES_LEAST, BYTES_MAX, BYTES_MIN, Pace

TIMEOUT_S = 20.0


def send(pace: Pace, body_bytes: int, took_s: float) -> int:
    """One transaction as large as it may be; returns its records."""
    records = min(pace.records, pace.bytes // body_bytes)
    pace.began(0.0)
    pace.ended(took_s, records * body_bytes, records, records * body_bytes)
    return records


@pytest.mark.parametrize("body_bytes", [4, 25, 120, 1000])
def test_transactions_grow_on_a_fast_link_however_small_the_records(body_bytes: int) -> None:
    pace = Pace(0.0, None, TIMEOUT_S)
    first = send(pace, body_bytes, 0.1)
    for _ in range(10):
        send(pace, body_bytes, 0.1)
    assert pace.bytes == BYTES_MAX
    assert send(pace, body_bytes, 0.1) > 50 * first


@pytest.mark.parametrize("body_bytes", [4, 120, 1000])
def test_they_shrink_on_a_slow_one_to_what_a_second_carries(body_bytes: int) -> None:
    pace = Pace(0.0, None, TIMEOUT_S)
    send(pace, body_bytes, 2.0)
    assert BYTES_FIRST // 2 - body_bytes <= pace.bytes <= BYTES_FIRST // 2
    for _ in range(10):
        send(pace, body_bytes, pace.bytes / 4096)
    assert pace.bytes == BYTES_MIN


@pytest.mark.parametrize("fixed_s", [0.1, 2.5, 7.5])
@pytest.mark.parametrize("body_bytes", [25, 1000])
def test_where_every_transaction_takes_long_they_carry_more(fixed_s: float, body_bytes: int) -> None:
    """A link by satellite, a busy broker: transactions as small as they may be would never get rid of what waits."""
    pace = Pace(0.0, None, TIMEOUT_S)
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
    pace = Pace(0.0, None, TIMEOUT_S)
    for _ in range(100):
        send(pace, 1000, 0.05 + pace.bytes / link_bytes_per_s)
    assert pace.bytes <= max(2 * BYTES_MIN, link_bytes_per_s)


def test_what_failed_is_tried_in_smaller_pieces_after_the_reconnect() -> None:
    pace = Pace(0.0, None, TIMEOUT_S)
    for _ in range(10):
        send(pace, 1000, 0.1)
    sizes = []
    for _ in range(8):
        pace.failed()
        pace.reconnected()
        sizes.append(pace.bytes >> 10)
    assert sizes == [64, 32, 16, 8, 4, 2, 1, 1]


@pytest.mark.parametrize(("took_s", "grows_to"), [(1.0, BYTES_MIN), (6.0, BYTES_MIN), (7.0, BYTES_LEAST)])
def test_the_smallest_pieces_grow_while_twice_as_much_arrives_in_time_too(
    took_s: float, grows_to: int
) -> None:
    pace = Pace(0.0, None, TIMEOUT_S)
    for _ in range(8):
        pace.failed()
    for _ in range(4):
        send(pace, 100, took_s)
    assert pace.bytes == grows_to
