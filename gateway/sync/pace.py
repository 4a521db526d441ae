"""How much and how soon: the size of a transaction, the time between two, the bytes a second."""

from gateway.limits import RECORD_OVERHEAD_BYTES

BYTES_FIRST = 64 << 10
"""The most in the first transaction after a reconnect: nobody knows yet what the link can do."""

BYTES_MIN = 16 << 10
BYTES_LEAST = 1 << 10
"""Where even BYTES_MIN was not carried in time."""

BYTES_MAX = 4 << 20
SLOW_S = 1.0
"""An open transaction holds back everybody who reads the same partitions: aim below this."""

RATE_WINDOW_S = 10.0


class Pace:
    """Times are monotonic seconds, bytes are payload except where sent bytes are meant. A transaction that takes longer
    than `timeout_s` fails."""

    def __init__(self, linger_s: float, max_rate: int | None, timeout_s: float) -> None:
        self._linger_s = linger_s
        self._timeout_s = timeout_s
        self._max_rate = max_rate
        self._began = float("-inf")
        self._credit_until = 0.0
        self._recent: list[tuple[float, int]] = []
        self.bytes = BYTES_FIRST

    def reconnected(self) -> None:
        self.bytes = min(self.bytes, BYTES_FIRST)

    def failed(self) -> None:
        """What the link did not carry in time must not be tried again as it was: it would fail for ever."""
        self.bytes = max(BYTES_LEAST, self.bytes // 2)

    @property
    def records(self) -> int:
        return self.bytes // RECORD_OVERHEAD_BYTES

    def delay(self, now: float, waiting_bytes: int) -> float:
        """Seconds until the next transaction may begin."""
        linger = 0.0 if waiting_bytes >= self.bytes else self._began + self._linger_s - now
        return max(0.0, linger, self._credit_until - now)

    def began(self, now: float) -> None:
        self._began = now

    def ended(self, now: float, payload_bytes: int, records: int, sent_bytes: int) -> None:
        took = now - self._began
        size = max(payload_bytes, records * RECORD_OVERHEAD_BYTES)
        quick_s = SLOW_S / 2 if self.bytes >= BYTES_MIN else self._timeout_s / 3
        if took > SLOW_S and self.bytes >= BYTES_MIN:
            self.bytes = max(BYTES_MIN, min(self.bytes, int(size / took * SLOW_S)))
        elif took < quick_s and size >= self.bytes // 2:
            self.bytes = min(BYTES_MAX, self.bytes * 2)
        if self._max_rate is not None:
            self.bytes = min(self.bytes, max(BYTES_MIN, self._max_rate))
            self._credit_until = max(self._credit_until, self._began) + sent_bytes / self._max_rate
        self._recent.append((now, records))
        self._forget(now)

    def records_per_s(self, now: float) -> float:
        self._forget(now)
        return sum(records for _, records in self._recent) / RATE_WINDOW_S

    def _forget(self, now: float) -> None:
        self._recent = [(when, records) for when, records in self._recent if when > now - RATE_WINDOW_S]
