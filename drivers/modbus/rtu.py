"""Modbus RTU, on a serial port or over TCP to a serial server.

An answer doesn't say which request it is for, only its unit, function and length. So that a late answer is never taken
for another request's: the head (function and length) of every request that was not answered is kept, and the unit is not
asked for an answer with the same head until another one was answered. As units answer in order, the late one
can't come any more then. A refusal says only its function: it is taken for the answer to the oldest request that it may be
for. A unit that has only one kind of answer to give is left alone instead, for LATE_TIMEOUTS times the answer timeout.

The rest between frames is the line's, 3.5 characters, and after a request without an answer as long as
the longest answer time seen. That no more than 1.5 characters pass inside a frame is not checked: adapters hand over
bytes in chunks, and length and checksum of an answer are known.
"""

import asyncio

from drivers.modbus.line import Channel, Count, Line, NoAnswer, Open, Timing
from drivers.modbus.protocol import (
    ExceptionAnswer,
    Request,
    rtu_answer,
    rtu_answer_bytes,
    rtu_frame,
)

BROKEN_REST_S = 0.02
"""So long after bytes that are no answer another one may follow them: what an adapter may hold back."""

LATE_TIMEOUTS = 10
LATE_HEADS_MAX = 16
"""Of one unit; more than its polls have."""

RECEIVED_BYTES_MAX = 1024
DECAY = 0.99
"""The longest answer time is forgotten slowly."""


class RtuLine(Line):
    def __init__(self, open_channel: Open, timing: Timing, count: Count, *, reopen: bool) -> None:
        super().__init__(open_channel, timing, count)
        self._reopen = reopen
        self._late: dict[int, dict[bytes, float]] = {}
        self._unit = 0
        self._request: Request | None = None
        self._frame = b""
        self._echo_done = False
        self._echoes = False
        self._sent = 0.0
        self._answer_s = 0.0

    def may_come(self, unit: int) -> frozenset[bytes]:
        now = asyncio.get_running_loop().time()
        late = self._late.get(unit, {})
        for head in [head for head, until in late.items() if until <= now]:
            del late[head]
        return frozenset(late)

    async def exchange(self, unit: int, request: Request) -> bytes:
        if request.head in self.may_come(unit):
            raise NoAnswer("an earlier answer may still come")
        try:
            found = await super().exchange(unit, request)
        except ExceptionAnswer:
            self._late.pop(unit, None)
            raise
        self._late.pop(unit, None)
        return found

    def _opened(self) -> None:
        """Whoever had the line before may have left a request without its answer."""
        self._last = asyncio.get_running_loop().time()
        self._rest_s = max(self._timing.rest_s, self._timing.answer_timeout_s)

    def _send(self, channel: Channel, unit: int, request: Request) -> float:
        self._unit, self._request, self._frame = unit, request, rtu_frame(unit, request.pdu)
        self._echo_done = request.repeats and not self._echoes
        self._received.clear()
        channel.write(self._frame)
        character_s = self._timing.character_s
        self._sent = self._last = asyncio.get_running_loop().time() + len(self._frame) * character_s
        return (len(self._frame) + rtu_answer_bytes(request)) * character_s

    def _take(self, received: bytes) -> None:
        self._last = max(self._last, asyncio.get_running_loop().time())
        self._received += received
        del self._received[RECEIVED_BYTES_MAX:]
        request = self._request
        if self._answer is None or self._answer.done() or request is None:
            if not self._drop_late():
                self._count("bytes that came unasked", len(received))
            return
        if self._is_echo():
            return
        while self._drop_late():
            pass
        answer = rtu_answer(self._received, self._unit, request)
        if answer is not None:
            self._on_time(answer[0], len(self._received) - answer[1])
            return
        if len(self._received) >= rtu_answer_bytes(request) and self._timer is not None:
            self._timer.cancel()
            self._timer = asyncio.get_running_loop().call_later(
                max(BROKEN_REST_S, self._timing.rest_s), self._give_up
            )

    def _is_echo(self) -> bool:
        """Whether all that came so far may be our own request, as adapters that hear themselves give it back."""
        if self._echo_done:
            return False
        if self._frame.startswith(self._received) and len(self._received) < len(self._frame):
            return True
        self._echo_done = True
        if self._received.startswith(self._frame):
            self._echoes = True
            del self._received[: len(self._frame)]
            return not self._received
        return False

    def _drop_late(self) -> bool:
        """Cut off what came late, of whatever unit, so that the answer behind it is seen.

        It and those asked for before it can't come any more. A refusal counts for the oldest that it may be for.
        """
        for unit, late in self._late.items():
            for number, head in enumerate(late, 1):
                found = rtu_answer(self._received, unit, Request(head, head))
                if found is not None:
                    del self._received[: found[1]]
                    self._late[unit] = dict(list(late.items())[number:])
                    self._count("late answers", 1)
                    return True
        return False

    def _on_time(self, pdu: bytes, left_over: int) -> None:
        if left_over:
            self._count("bytes that came unasked", left_over)
        took_s = self._last - self._sent - (len(pdu) + 3) * self._timing.character_s
        self._answer_s = max(took_s, self._answer_s * DECAY)
        self._found(pdu)

    def _failed(self, unit: int, request: Request) -> None:
        super()._failed(unit, request)
        late = self._late.setdefault(unit, {})
        late[request.head] = asyncio.get_running_loop().time() + LATE_TIMEOUTS * self._timing.answer_timeout_s
        while len(late) > LATE_HEADS_MAX:
            del late[next(iter(late))]
        self._rest_s = max(self._timing.rest_s, min(self._answer_s, self._timing.answer_timeout_s))

    def _other_unit(self) -> int | None:
        if self._request is None or not self._received:
            return None
        unit = self._received[0]
        return None if rtu_answer(self._received, unit, self._request) is None else unit

    def _restart(self) -> None:
        if self._reopen:
            self.close()
