"""How a transaction's size follows what the link does."""

import pytest

from gateway.sync.pace import BYTES_FIRST, BYTES_LEAST, BYTES_MAX, BYTES_MIN, Pace

TIMEOUT_S = 18.0


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
        send(pace, body_bytes, 8.0)
    assert pace.bytes == BYTES_MIN


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


@pytest.mark.parametrize(("took_s", "grows_to"), [(1.0, BYTES_MIN), (5.0, BYTES_MIN), (7.0, BYTES_LEAST)])
def test_the_smallest_pieces_grow_while_twice_as_much_arrives_in_time_too(
    took_s: float, grows_to: int
) -> None:
    pace = Pace(0.0, None, TIMEOUT_S)
    for _ in range(8):
        pace.failed()
    for _ in range(8):
        send(pace, 100, took_s)
    assert pace.bytes == grows_to
