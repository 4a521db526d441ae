"""Messages that wait for absent subscribers."""

import asyncio
from typing import Any
from weakref import WeakSet

from drivers.mqtt.losses import WAITING, Losses

MESSAGES_MAX = 1000
BYTES_MAX = 1 << 20
"""Of one session. All of it is written at once when its client comes back: less than an unread subscriber may have."""

ALL_BYTES_MAX = 8 << 20
OVERHEAD_BYTES = 256


class Backlogs:
    """Of all sessions; beyond their room the one that takes most loses its oldest messages."""

    def __init__(self, losses: Losses) -> None:
        self.bytes = 0
        self.losses = losses
        self.each: WeakSet[Backlog] = WeakSet()

    def fit(self) -> None:
        while self.bytes > ALL_BYTES_MAX:
            max(self.each, key=lambda one: one.bytes).drop()


class Backlog(asyncio.Queue[Any]):
    """Of one session; amqtt puts and gets."""

    def __init__(self, others: Backlogs) -> None:
        super().__init__()
        self.bytes = 0
        self._others = others
        others.each.add(self)

    def drop(self) -> None:
        self._get()
        self._others.losses.add(WAITING)

    def _put(self, item: Any) -> None:
        super()._put(item)
        self._change(_size(item))
        while self.qsize() > MESSAGES_MAX or self.bytes > BYTES_MAX:
            self.drop()
        self._others.fit()

    def _get(self) -> Any:
        item = super()._get()
        self._change(-_size(item))
        return item

    def _change(self, count: int) -> None:
        self.bytes += count
        self._others.bytes += count


def _size(message: Any) -> int:
    return len(message.data) + len(message.topic) + OVERHEAD_BYTES
