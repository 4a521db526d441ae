"""A line with one request under way at a time: opened when it is first needed, and after it was lost."""

import asyncio
from collections.abc import Awaitable, Callable
from math import inf
from typing import NamedTuple, Protocol

from drivers.modbus.protocol import ExceptionAnswer, Request, data

SILENT_MAX = 3
"""So many requests in a row without an answer, and a connection is made anew: its other end may be gone."""

Count = Callable[[str, int], None]


OPEN_ATTEMPTS = 2
"""The first finds out that the channel was lost, if it was."""

SILENCE_S_MAX = 10.0
"""A line that babbles for so long fails the request that waits for its silence."""


class Timing(NamedTuple):
    """`rest_s` passes between an answer and the next request; `character_s` is 0 where no line rate counts."""

    answer_timeout_s: float
    rest_s: float = 0.0
    character_s: float = 0.0


class NoAnswer(Exception):
    """A request was not answered in time, or not whole; the text says how."""


class OtherUnit(NoAnswer):
    """Nothing came but an answer in another unit's name."""


class Channel(Protocol):
    """Bytes both ways: gateway.port.Port or a TCP connection."""

    def write(self, data: bytes) -> None: ...

    def close(self) -> None: ...


Received = Callable[[bytes], None]
Lost = Callable[[Exception], None]
Open = Callable[[Received, Lost], Awaitable[Channel]]
"""Opens a channel with what to do with bytes that come and when it is lost. Raises DeviceError."""


class Line:
    """`count` tells what an operator may look for."""

    def __init__(self, open_channel: Open, timing: Timing, count: Count) -> None:
        self._open = open_channel
        self._timing = timing
        self._count = count
        self._channel: Channel | None = None
        self._answer: asyncio.Future[bytes] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._received = bytearray()
        self._silent = 0
        self._rest_s = timing.rest_s
        self._last = -inf

    async def exchange(self, unit: int, request: Request) -> bytes:
        """The data of the answer, behind the head of its PDU.

        Raises NoAnswer, ExceptionAnswer; DeviceError if the line can't be opened or, if it is a port, was lost.
        """
        channel = await self._ready()
        loop = asyncio.get_running_loop()
        self._answer = loop.create_future()
        try:
            time_s = self._send(channel, unit, request)
            self._timer = loop.call_later(time_s + self._timing.answer_timeout_s, self._give_up)
            pdu = await self._answer
            found = _data(request, pdu)
        except NoAnswer:
            self._failed(unit, request)
            raise
        except (ExceptionAnswer, asyncio.CancelledError):
            self._silent = 0
            raise
        finally:
            self._answer = None
            self._last = max(self._last, loop.time())
            if self._timer is not None:
                self._timer.cancel()
        self._silent = 0
        return found

    async def _ready(self) -> Channel:
        """An open channel, at rest. Raises DeviceError, NoAnswer."""
        for _ in range(OPEN_ATTEMPTS):
            if self._channel is None:
                self._received.clear()
                self._channel = await self._open(self._take, self._lose)
                self._opened()
            await self._rest()
            if self._channel is not None:
                return self._channel
        raise NoAnswer("connection closed")

    def may_come(self, unit: int) -> frozenset[bytes]:
        """Heads of answers that a unit was asked for, did not give and may still give."""
        return frozenset()

    def close(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def _opened(self) -> None:
        """The channel is new."""

    async def _rest(self) -> None:
        """Wait until a request may be sent. Raises NoAnswer."""
        loop = asyncio.get_running_loop()
        until = loop.time() + SILENCE_S_MAX
        while (left := self._last + self._rest_s - loop.time()) > 0:
            if loop.time() > until:
                raise NoAnswer("the line is never silent")
            await asyncio.sleep(left)
        self._rest_s = self._timing.rest_s

    def _send(self, channel: Channel, unit: int, request: Request) -> float:
        """The seconds that request and answer take on the line."""
        raise NotImplementedError

    def _take(self, received: bytes) -> None:
        raise NotImplementedError

    def _failed(self, unit: int, request: Request) -> None:
        self._silent += 1
        if self._silent >= SILENT_MAX:
            self._silent = 0
            self._restart()

    def _restart(self) -> None:
        """The line is silent."""

    def _found(self, pdu: bytes) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(pdu)

    def _give_up(self) -> None:
        if self._answer is not None and not self._answer.done():
            other = self._other_unit()
            text = "no whole answer" if self._received else "no answer"
            self._answer.set_exception(
                NoAnswer(text) if other is None else OtherUnit(f"no answer, but one of unit {other}")
            )

    def _other_unit(self) -> int | None:
        """In whose name the request was answered instead."""
        raise NotImplementedError

    def _lose(self, why: Exception) -> None:
        self._channel = None
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(why)


def _data(request: Request, pdu: bytes) -> bytes:
    try:
        return data(request, pdu)
    except ValueError as error:
        raise NoAnswer(str(error)) from error
