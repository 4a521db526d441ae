"""The last retained message of each topic, for those who subscribe later."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from drivers.mqtt.access import covers

if TYPE_CHECKING:
    from drivers.mqtt.subscribers import Message


class Retained:
    """amqtt has none of them: it would send each to whoever connects, by the subscriptions of all clients, and let nobody
    on in between."""

    def __init__(self, count_max: int) -> None:
        self._messages: dict[str, Message] = {}
        self._count_max = count_max

    def keep(self, message: "Message") -> None:
        """One without a payload clears its topic."""
        self._messages.pop(message.topic, None)
        if message.payload:
            self._messages[message.topic] = message
            if len(self._messages) > self._count_max:
                del self._messages[next(iter(self._messages))]

    def get(self, topic: str) -> "Message | None":
        return self._messages.get(topic)

    def topics(self, topic_filter: str) -> Sequence[str]:
        """Those with a message that the filter matches."""
        if "+" not in topic_filter and "#" not in topic_filter:
            return [topic_filter] if topic_filter in self._messages else []
        return [topic for topic in self._messages if covers(topic_filter, topic)]
