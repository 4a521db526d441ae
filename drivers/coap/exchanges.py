"""Which messages were answered, and how: the same message again gets the same answer and stores nothing (RFC 7252, 4.5).

A mark's key is: address (16 bytes) | port (2) | zone (4) | message id (2); its value: fingerprint of the message (8) |
answer without its header. Its lifetime counts the gateway's running time, and it is stored along with the records.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

LIFETIME_S = 247
"""EXCHANGE_LIFETIME (RFC 7252, 4.8.2): no copy of a message arrives later than that."""

SPAN_S = 45
"""MAX_TRANSMIT_SPAN: a device sends no message again later than that."""

PASSING_MAX = 1024
"""Answers that stored nothing. They may be forgotten: judging such a message anew does no harm."""

FINGERPRINT_BYTES = 8


class Exchange(NamedTuple):
    """`answer` is empty while there is none."""

    fingerprint: bytes
    began: float
    answer: bytes


class Exchanges:
    """Every table is in the order of arrival. `stored` are those whose answer says that a record is on disk."""

    def __init__(
        self, exchanges_max: int, monotonic: Callable[[], float], recalled: Mapping[bytes, bytes]
    ) -> None:
        self._max = exchanges_max
        self._monotonic = monotonic
        now = monotonic()
        self._open: dict[bytes, Exchange] = {}
        self._passing: dict[bytes, Exchange] = {}
        # How old they are is not known, but their order is: the last was stored just before the restart.
        latest = list(recalled.items())[-exchanges_max:]
        self._stored = {
            key: Exchange(
                value[:FINGERPRINT_BYTES], now - SPAN_S * (1 - index / len(latest)), value[FINGERPRINT_BYTES:]
            )
            for index, (key, value) in enumerate(latest)
        }

    def find(self, key: bytes, fingerprint: bytes) -> Exchange | None:
        """None for a message that was not seen; a device that began anew may use a message id again."""
        exchange = self._open.get(key) or self._stored.get(key) or self._passing.get(key)
        if exchange is None or exchange.fingerprint != fingerprint:
            return None
        return exchange if self._monotonic() < exchange.began + LIFETIME_S else None

    def begin(self, key: bytes, fingerprint: bytes) -> bool:
        """False if there is no room for another one: the oldest answer may still be asked for."""
        now = self._monotonic()
        while self._stored:
            oldest, exchange = next(iter(self._stored.items()))
            full = len(self._stored) + len(self._open) >= self._max
            if now < exchange.began + (SPAN_S if full else LIFETIME_S):
                break
            del self._stored[oldest]
        if len(self._stored) + len(self._open) >= self._max:
            return False
        self._stored.pop(key, None)
        self._passing.pop(key, None)
        self._open[key] = Exchange(fingerprint, now, b"")
        return True

    def interim(self, key: bytes, answer: bytes) -> None:
        """An empty acknowledgement: the answer proper is another message."""
        if exchange := self._open.get(key):
            self._open[key] = exchange._replace(answer=answer)

    def end(self, key: bytes, answer: bytes, stored: bool) -> None:
        exchange = self._open.pop(key, None)
        if exchange is None:
            return
        table = self._stored if stored else self._passing
        table.pop(key, None)
        table[key] = exchange._replace(answer=answer)
        if len(self._passing) > PASSING_MAX:
            del self._passing[next(iter(self._passing))]
