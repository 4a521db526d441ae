"""The last retained message of each topic, for those who subscribe later."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from drivers.mqtt.access import covers
from drivers.mqtt.losses import RETAINED, Losses

if TYPE_CHECKING:
    from drivers.mqtt.subscribers import Message

BYTES_MAX = 8 << 20


class Retained:
    """The oldest make room for newer ones. amqtt has none of them: it would send each to whoever connects, by the
    subscriptions of all clients, and let nobody on in between."""

    def __init__(self, count_max: int, losses: Losses) -> None:
        self._messages: dict[str, Message] = {}
        self._bytes = 0
        self._count_max = count_max
        self._losses = losses

    def keep(self, message: "Message") -> None:
        """One without a payload clears its topic."""
        if message.topic in self._messages:
            self._drop(message.topic)
        if not message.payload:
            return
        self._messages[message.topic] = message
        self._bytes += message.bytes
        while len(self._messages) > self._count_max or self._bytes > BYTES_MAX:
            self._drop(next(iter(self._messages)))
            self._losses.add(RETAINED)

    def get(self, topic: str) -> "Message | None":
        return self._messages.get(topic)

    def topics(self, topic_filter: str) -> Sequence[str]:
        """Those with a message that the filter matches."""
        if "+" not in topic_filter and "#" not in topic_filter:
            return [topic_filter] if topic_filter in self._messages else []
        return [topic for topic in self._messages if covers(topic_filter, topic)]

    def _drop(self, topic: str) -> None:
        self._bytes -= self._messages.pop(topic).bytes
