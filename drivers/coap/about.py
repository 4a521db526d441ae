"""What devices may read about the gateway: whether it takes records, and what there is to talk to."""

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress

from aiocoap import Message
from aiocoap.numbers import ContentFormat
from aiocoap.numbers.constants import Reliable
from aiocoap.pipe import Pipe

from drivers.coap import protocol
from drivers.coap.protocol import Problem

STATUS = ("tidegate", "status")
CORE = (".well-known", "core")
OBSERVERS_MAX = 16
MAX_AGE_S = 60
SETTLE_S = 0.5
"""A queue that is almost full takes and refuses in turns: observers are told no more often."""


LINKS = '</tidegate/status>;rt="tidegate.status";ct=50;obs'
"""RFC 6690. Channels are not listed: devices choose them."""


class Status:
    """Changes when the gateway begins or ceases to take records; observers are told then (RFC 7641)."""

    def __init__(self) -> None:
        self._takes = True
        self._telling = False
        self._accepted = 0
        self._refused = 0
        self._number = 0
        self._observers: dict[Pipe, Callable[[Message], Message]] = {}

    def accepted(self, count: int) -> None:
        self._accepted += count
        self._set(True)

    def refused(self) -> None:
        self._refused += 1

    def takes_nothing(self) -> None:
        """For now, from nobody: not what is wrong with one message."""
        self._set(False)

    def answer(self) -> Message:
        content = {"takes": self._takes, "accepted": self._accepted, "refused": self._refused}
        return Message(
            code=protocol.CONTENT,
            payload=json.dumps(content).encode(),
            content_format=ContentFormat.JSON,
            max_age=MAX_AGE_S,
        )

    def observe(self, pipe: Pipe, seal: Callable[[Message], Message]) -> Message | None:
        """The first answer to an observer, whose pipe stays open; None if there are too many."""
        if len(self._observers) >= OBSERVERS_MAX:
            return None
        self._observers[pipe] = seal
        pipe.on_interest_end(lambda: self._observers.pop(pipe, None))
        return self._numbered()

    def _set(self, takes: bool) -> None:
        if takes == self._takes:
            return
        self._takes = takes
        if self._observers and not self._telling:
            self._telling = True
            asyncio.get_running_loop().call_later(SETTLE_S, self._tell)

    def _tell(self) -> None:
        self._telling = False
        self._number = (self._number + 1) % (1 << 24)
        for pipe, seal in list(self._observers.items()):
            with suppress(Problem):
                pipe.add_response(seal(self._numbered()))

    def _numbered(self) -> Message:
        """Confirmable, so that an observer who is gone is found out."""
        answer = self.answer()
        answer.opt.observe = self._number
        answer.transport_tuning = Reliable()
        return answer


def links() -> Message:
    return Message(
        code=protocol.CONTENT,
        payload=LINKS.encode(),
        content_format=ContentFormat.LINKFORMAT,
        max_age=MAX_AGE_S,
    )
