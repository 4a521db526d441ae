"""One HTTP/1.1 request and its answer on a connection, with a limit on every size and every wait."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import h11

HEAD_BYTES_MAX = 16 << 10
READ_BYTES = 16 << 10
REQUEST_TIMEOUT_S = 20.0
WRITE_TIMEOUT_S = 20.0
"""A client that takes nothing for so long is given up."""

WRITE_BUFFER_BYTES = 256 << 10

JSON = "application/json"


class Problem(Exception):
    """What the client did or asked can't be done; `status` is HTTP's."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Exchange:
    """A request, and the means to answer it: `reply` once, or `start` and then `write` as often as needed."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES_MAX)
        self.method = ""
        self.path = ""
        self.query: Mapping[str, str] = {}

    @property
    def started(self) -> bool:
        return self._http.our_state not in (h11.IDLE, h11.SEND_RESPONSE)

    async def read_head(self) -> bool:
        """False if the client closed instead. Raises Problem, TimeoutError."""
        async with asyncio.timeout(REQUEST_TIMEOUT_S):
            event = await self._event()
        if not isinstance(event, h11.Request):
            return False
        try:
            target = urlsplit(event.target.decode("latin-1"))
        except ValueError as error:
            raise Problem(400, f"not a target: {error}") from error
        self.method = event.method.decode()
        self.path = target.path
        self.query = dict(parse_qsl(target.query))
        return True

    async def body(self, bytes_max: int) -> bytes:
        """Raises Problem, TimeoutError."""
        parts = []
        size = 0
        if self._http.they_are_waiting_for_100_continue:
            await self._send(h11.InformationalResponse(status_code=100, headers=[]))
        async with asyncio.timeout(REQUEST_TIMEOUT_S):
            while isinstance(event := await self._event(), h11.Data):
                size += len(event.data)
                if size > bytes_max:
                    raise Problem(413, f"the body has more than {bytes_max} bytes")
                parts.append(bytes(event.data))
        return b"".join(parts)

    async def reply(self, body: bytes, content_type: str = JSON, status: int = 200) -> None:
        await self._respond(status, [("content-type", content_type), ("content-length", str(len(body)))])
        if self.method != "HEAD":
            await self._send(h11.Data(data=body))
        await self.finish()

    async def reply_json(self, data: Any, status: int = 200) -> None:
        await self.reply(json.dumps(data).encode() + b"\n", status=status)

    async def start(self, content_type: str) -> None:
        await self._respond(200, [("content-type", content_type), ("transfer-encoding", "chunked")])

    async def write(self, data: bytes) -> None:
        """Returns once the client keeps up. Raises OSError (TimeoutError among them)."""
        await self._send(h11.Data(data=data))

    async def finish(self) -> None:
        await self._send(h11.EndOfMessage())

    async def hung_up(self) -> None:
        """Until the client has closed the connection."""
        with suppress(OSError):
            while await self._reader.read(READ_BYTES):
                pass

    async def _event(self) -> Any:
        while True:
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError as error:
                raise Problem(error.error_status_hint, f"not HTTP: {error}") from error
            if event is not h11.NEED_DATA:
                return event
            self._http.receive_data(await self._reader.read(READ_BYTES))

    async def _respond(self, status: int, headers: list[tuple[str, str]]) -> None:
        headers = [*headers, ("connection", "close")]
        await self._send(
            h11.Response(status_code=status, headers=headers, reason=HTTPStatus(status).phrase.encode())
        )

    async def _send(self, event: Any) -> None:
        data = self._http.send(event)
        if data:
            self._writer.write(data)
            async with asyncio.timeout(WRITE_TIMEOUT_S):
                await self._writer.drain()


Handler = Callable[[Exchange], Awaitable[None]]


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, handler: Handler) -> None:
    """Until the answer is sent, the client is gone or a time is over. Raises what the handler raises but Problem."""
    writer.transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
    exchange = Exchange(reader, writer)
    try:
        try:
            if await exchange.read_head():
                await handler(exchange)
        except Problem as problem:
            if not exchange.started:
                await exchange.reply_json({"error": str(problem)}, problem.status)
        writer.close()
        async with asyncio.timeout(WRITE_TIMEOUT_S):
            await writer.wait_closed()
    except OSError:
        pass  # the client is gone or too slow: TimeoutError is one of these
    finally:
        writer.transport.abort()
