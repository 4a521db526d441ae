"""What subscribers don't get for want of memory: counted, and the first of a kind is logged."""

import logging
from collections.abc import Callable

SLOW = "messages dropped because subscribers are slower than publishers"
RETAINED = "retained messages dropped for newer ones"
WAITING = "messages dropped that waited for absent subscribers"
SESSIONS = "sessions of absent subscribers forgotten for those of others"

_log = logging.getLogger(__name__)


class Losses:
    def __init__(self, count: Callable[[str], None]) -> None:
        self._count = count
        self._told: set[str] = set()

    def add(self, what: str) -> None:
        self._count(what)
        if what not in self._told:
            self._told.add(what)
            _log.warning("%s; the number is in the status from now on", what)
