"""Which topics can be written now. One that can't is parked: its records wait, and those of the others go on."""

import logging
from collections.abc import Iterable, Mapping

from gateway.clock import Clock
from gateway.sync.sink import Sink, Topic, TopicUnusable

PARKED_S = 10.0
"""A topic that could not be written is tried again so often."""

_log = logging.getLogger(__name__)


class Topics:
    def __init__(self, sink: Sink, clock: Clock) -> None:
        self.known: dict[str, Topic] = {}
        self.parked: dict[str, str] = {}
        self._retry_at: dict[str, float] = {}
        self._sink = sink
        self._clock = clock

    def reconnected(self) -> None:
        self.known.clear()

    async def ask(self, names: Iterable[str]) -> None:
        """After this every name is in `known` or in `parked` (with the reason). Raises SinkUnavailable."""
        for name in names:
            if self._clock.monotonic() < self._retry_at.get(name, 0.0):
                continue
            try:
                self.known[name] = await self._sink.topic(name)
            except TopicUnusable as error:
                self.park(name, str(error))
                continue
            self._retry_at.pop(name, None)
            if self.parked.pop(name, None) is not None:
                _log.info("topic %s can be written again", name)

    def park(self, name: str, reason: str) -> None:
        if name not in self.parked:
            _log.error("records for topic %s wait, the others go on: %s", name, reason)
        self.parked[name] = reason
        self.known.pop(name, None)
        self._retry_at[name] = self._clock.monotonic() + PARKED_S

    def usable(self, names: Mapping[str, int]) -> set[str]:
        return {name for name in names if name not in self.parked}
