"""How much and how soon: the size of a transaction, the time between two, the bytes a second."""

from gateway.limits import RECORD_OVERHEAD_BYTES

BYTES_FIRST = 64 << 10
"""The most in the first transaction after a reconnect: nobody knows yet what the link can do."""

BYTES_MIN = 16 << 10
BYTES_LEAST = 1 << 10
"""Where not even BYTES_MIN was carried in time."""

BYTES_MAX = 4 << 20
SLOW_S = 1.0
"""An open transaction holds back everybody who reads the same partitions: what its bytes take should stay below this.
The rest, round trips and a broker or a board that is busy, is the same for a small one: there would only be more of them."""

PROBE_EVERY = 16
"""So many slow ones of the least size, and one of twice that shows which part of the time is for the bytes."""

RATE_WINDOW_S = 10.0


class Pace:
    """Times are monotonic seconds, bytes are payload except where sent bytes are meant. A transaction may take `timeout_s`;
    half of it is granted, at most, for what it takes however little it carries."""

    def __init__(self, linger_s: float, max_rate: int | None, timeout_s: float) -> None:
        self._linger_s = linger_s
        self._timeout_s = timeout_s
        self._max_rate = max_rate
        self._began = float("-inf")
        self._credit_until = 0.0
        self._recent: list[tuple[float, int]] = []
        self.bytes = BYTES_FIRST
        self.reconnected()

    def reconnected(self) -> None:
        self.bytes = min(self.bytes, BYTES_FIRST)
        self._fixed_s = 0.0
        self._measured: tuple[int, float] | None = None
        self._slow = 0

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
        self._measure(size, took)
        carrying = took - self._fixed_s
        full = size >= self.bytes // 2
        if self.bytes < BYTES_MIN:
            if full and took < self._timeout_s / 3:
                self.bytes *= 2
        elif carrying > SLOW_S:
            self.bytes = max(BYTES_MIN, min(self.bytes, int(size / carrying * SLOW_S)))
            self._slow += 1
            if self.bytes == BYTES_MIN and self._slow % PROBE_EVERY == 0:
                self.bytes = 2 * BYTES_MIN
        elif full and carrying < SLOW_S / 2:
            self.bytes = min(BYTES_MAX, self.bytes * 2)
        if self._max_rate is not None:
            self.bytes = min(self.bytes, max(BYTES_MIN, self._max_rate))
            self._credit_until = max(self._credit_until, self._began) + sent_bytes / self._max_rate
        self._recent.append((now, records))
        self._forget(now)

    def _measure(self, size: int, took: float) -> None:
        """Two transactions, one at least twice as large, tell apart what is fixed and what is for the bytes."""
        before, self._measured = self._measured, (size, took)
        if before is not None and 2 * min(size, before[0]) <= max(size, before[0]):
            (small, less), (large, more) = sorted((before, (size, took)))
            per_byte = max(0.0, (more - less) / (large - small)) if large > small else 0.0
            self._fixed_s = min(max(0.0, less - per_byte * small), self._timeout_s / 2)
        self._fixed_s = min(self._fixed_s, took)

    def records_per_s(self, now: float) -> float:
        self._forget(now)
        return sum(records for _, records in self._recent) / RATE_WINDOW_S

    def _forget(self, now: float) -> None:
        self._recent = [(when, records) for when, records in self._recent if when > now - RATE_WINDOW_S]
