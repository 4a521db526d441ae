"""Full-jitter exponential back-off, seeded so that a fleet that lost its link together doesn't return together."""

import random


class Backoff:
    """Delays in seconds, uniform in (0, min(cap, base * 2**n)], never below `floor_s`."""

    def __init__(self, seed: str, base_s: float, cap_s: float, floor_s: float = 0.0) -> None:
        self._random = random.Random(seed)
        self._base_s = base_s
        self._cap_s = cap_s
        self._floor_s = floor_s
        self._attempt = 0

    def next_delay(self) -> float:
        ceiling = min(self._cap_s, self._base_s * 2.0 ** min(self._attempt, 30))
        self._attempt += 1
        return max(self._floor_s, ceiling * (1.0 - self._random.random()))

    def reset(self) -> None:
        self._attempt = 0
