"""One HTTP/1.1 connection: requests one after the other, each answered before the next is read."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus

import h11

from drivers.http.ingest import Ingest
from drivers.http.protocol import HEAD_BYTES_MAX, Answer, Head, Problem, inflate, request_head

READ_BYTES = 64 << 10
BODY_RATE_MIN = 1024
LINGER_S = 1.0
LINGER_BYTES_MAX = 1 << 20

LENGTHS = frozenset((b"content-length", b"transfer-encoding"))
"""With both, whoever passed the request on may have read another one (RFC 9112, 6.1)."""

_REASONS = {status.value: status.phrase.encode() for status in HTTPStatus}


class Budget:
    """Bytes of all bodies that are being received or stored."""

    def __init__(self, bytes_max: int) -> None:
        self._left = bytes_max

    def take(self, count: int) -> None:
        """Raises Problem."""
        if count > self._left:
            raise Problem(503, "too many requests at a time", headers=((b"retry-after", b"1"),))
        self._left -= count

    def give_back(self, count: int) -> None:
        self._left += count


class Limits:
    """What every connection of a driver keeps to."""

    def __init__(self, body_bytes_max: int, buffer_bytes_max: int, request_s: float, idle_s: float) -> None:
        self.body_bytes_max = body_bytes_max
        self.budget = Budget(buffer_bytes_max)
        self.request_s = request_s
        self.idle_s = idle_s


class Connection:
    """`busy` from a whole request to its answer."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, ingest: Ingest, limits: Limits
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._ingest = ingest
        self._limits = limits
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES_MAX)
        self._now = asyncio.get_running_loop().time
        self._wait_s = limits.request_s
        self._finishing = False
        self.busy = False

    def finish(self) -> None:
        """Close after the next answer."""
        self._finishing = True

    async def serve(self) -> None:
        """Until the device or a limit ends it."""
        try:
            while await self._exchange():
                self._wait_s = self._limits.idle_s
            await self._linger()
            self._writer.close()
            async with asyncio.timeout(LINGER_S):
                await self._writer.wait_closed()
        except OSError:
            pass  # the device is gone or too slow; nothing that it does not know was promised
        finally:
            self._writer.transport.abort()

    async def _exchange(self) -> bool:
        """One request and its answer; False when no other can follow."""
        method = b""
        try:
            head = await self._head()
            if head is None:
                return False
            method = head.method
            answer = await self._answer(head)
        except Problem as problem:
            answer = problem.answer()
        except h11.RemoteProtocolError as error:
            answer = Problem(error.error_status_hint, f"not HTTP: {error}").answer()
        await self._send(answer, method)
        self.busy = False
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        self._http.start_next_cycle()
        return True

    async def _head(self) -> Head | None:
        """None if no request came in time."""
        if not self._http.trailing_data[0]:
            try:
                async with asyncio.timeout(self._wait_s):
                    data = await self._reader.read(READ_BYTES)
            except TimeoutError:
                return None
            if not data:
                return None
            self._http.receive_data(data)
        event = await self._event(self._now() + self._limits.request_s)
        if isinstance(event, h11.Request):
            if {name for name, _ in event.headers} >= LENGTHS:
                self.finish()
                raise Problem(
                    400, "Content-Length and Transfer-Encoding: nobody knows where the request ends"
                )
            return request_head(event.method, event.target, list(event.headers))
        return None

    async def _answer(self, head: Head) -> Answer:
        """Raises Problem."""
        permit = self._ingest.admit(head)
        if isinstance(permit, Answer):
            return permit
        taken = 0

        def take(count: int) -> None:
            nonlocal taken
            self._limits.budget.take(count)
            taken += count

        try:
            body = await self._body(head.headers, take)
            self.busy = True
            if permit.zipped:
                body = inflate(body, self._limits.body_bytes_max)
                take(len(body))
            return await self._ingest.store(permit, body)
        finally:
            self._limits.budget.give_back(taken)

    async def _body(self, headers: dict[bytes, bytes], take: Callable[[int], None]) -> bytes:
        """Raises Problem when it is too large or too slow."""
        bytes_max = self._limits.body_bytes_max
        length = headers.get(b"content-length")
        if length is not None:
            if int(length) > bytes_max:
                raise Problem(413, f"the body has more than {bytes_max} bytes")
            take(int(length))
        elif b"transfer-encoding" not in headers:
            raise Problem(411, "a body is needed, with its length")
        if self._http.they_are_waiting_for_100_continue:
            self._write(h11.InformationalResponse(status_code=100, headers=[]))
        begin = self._now() + self._limits.request_s
        body = bytearray()
        while isinstance(event := await self._event(begin + len(body) / BODY_RATE_MIN), h11.Data):
            body += event.data
            if length is None:
                take(len(event.data))
            if len(body) > bytes_max:
                raise Problem(413, f"the body has more than {bytes_max} bytes")
        return bytes(body)

    async def _event(self, deadline: float) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """Raises Problem at the deadline."""
        while (event := self._http.next_event()) is h11.NEED_DATA:
            try:
                async with asyncio.timeout_at(deadline):
                    data = await self._reader.read(READ_BYTES)
            except TimeoutError as error:
                raise Problem(408, "the request came too slowly") from error
            self._http.receive_data(data)
        return event

    async def _send(self, answer: Answer, method: bytes) -> None:
        self._skip_body()
        headers = [
            (b"date", _date(int(time.time()))),
            (b"content-length", b"%d" % len(answer.body)),
            *answer.headers,
        ]
        if self._finishing or self._http.their_state is not h11.DONE:
            headers.append((b"connection", b"close"))
        self._write(h11.Response(status_code=answer.status, headers=headers, reason=_REASONS[answer.status]))
        if method != b"HEAD":
            self._write(h11.Data(data=answer.body))
        self._write(h11.EndOfMessage())
        async with asyncio.timeout(self._limits.request_s):
            await self._writer.drain()

    def _write(self, event: h11.Event) -> None:
        if data := self._http.send(event):
            self._writer.write(data)

    def _skip_body(self) -> None:
        """What came of a body that nobody wants, so that a short one doesn't cost the connection."""
        with suppress(h11.RemoteProtocolError):
            while self._http.their_state is h11.SEND_BODY:
                if self._http.next_event() is h11.NEED_DATA:
                    return

    async def _linger(self) -> None:
        """Let a device that still sends read its answer: closing at once would reset the connection under it."""
        if self._http.their_state in (h11.DONE, h11.MUST_CLOSE, h11.CLOSED):
            return
        if self._writer.can_write_eof():
            self._writer.write_eof()
        async with asyncio.timeout(LINGER_S):
            for _ in range(LINGER_BYTES_MAX // READ_BYTES):
                if not await self._reader.read(READ_BYTES):
                    return


@lru_cache(maxsize=1)
def _date(now_s: int) -> bytes:
    return formatdate(now_s, usegmt=True).encode()
