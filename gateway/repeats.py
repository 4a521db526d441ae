"""What happens again and again is told at once, and then once a minute at most with how often it was: a log is on the card too."""

from collections.abc import Hashable
from math import inf

INTERVAL_S = 60.0
KINDS_MAX = 100
"""Further kinds share one interval."""


def since(count: int, what: str) -> str:
    """For the end of a line that tells it again; nothing the first time."""
    return f" ({count} {what} since this was told last)" if count > 1 else ""


class Repeats:
    def __init__(self) -> None:
        self._kinds: dict[Hashable, tuple[float, int]] = {}

    def due(self, kind: Hashable, now: float) -> int:
        """How often `kind` was there since it was told last, this time included; 0 if it is too early to tell it again."""
        if kind not in self._kinds and len(self._kinds) >= KINDS_MAX:
            kind = None
        told, untold = self._kinds.get(kind, (-inf, 0))
        due = now - told >= INTERVAL_S
        self._kinds[kind] = (now, 0) if due else (told, untold + 1)
        return untold + 1 if due else 0
