"""A TCP link that can be broken in every way, with eyes for Kafka's frames.

Requests go UP, answers come DOWN. A request carries its api key; an answer is matched with its request by the
correlation id. Everything happens in the event loop of the caller.
"""

import asyncio
import contextlib
import socket
import ssl
import struct
import time
from enum import Enum, IntEnum
from types import TracebackType
from typing import NamedTuple, Self

LINGER_RESET = struct.pack("ii", 1, 0)
ANSWER_S = 2.0
"""How long a held request that was delivered for a client long gone may take to be answered."""


class Direction(Enum):
    UP = "up"
    DOWN = "down"


UP = Direction.UP
DOWN = Direction.DOWN


class Api(IntEnum):
    PRODUCE = 0
    FETCH = 1
    LIST_OFFSETS = 2
    METADATA = 3
    FIND_COORDINATOR = 10
    SASL_HANDSHAKE = 17
    API_VERSIONS = 18
    INIT_PRODUCER_ID = 22
    ADD_PARTITIONS_TO_TXN = 24
    END_TXN = 26


class Frame(NamedTuple):
    """One request or answer as it reached the proxy. `size` counts the length field; `api_key` is -1 where unknown."""

    time: float
    connection: int
    direction: Direction
    api_key: int
    correlation_id: int
    size: int


class Trap:
    """Waits for one frame. `reached` is set when the frame is there, and the frame stays until `release`."""

    def __init__(self, api_key: int, direction: Direction, skip: int, cut_after: int | None) -> None:
        self.reached = asyncio.Event()
        self.frame: Frame | None = None
        self._api_key = api_key
        self._direction = direction
        self._skip = skip
        self._released = asyncio.Event()
        self.cut_after = cut_after

    def catches(self, frame: Frame) -> bool:
        if self.frame or (frame.api_key, frame.direction) != (self._api_key, self._direction):
            return False
        self._skip -= 1
        if self._skip >= 0:
            return False
        self.frame = frame
        self.reached.set()
        return True

    def release(self) -> None:
        """Let it pass; to its destination even if the sender has gone meanwhile."""
        self._released.set()

    async def wait_for_release(self) -> None:
        await self._released.wait()


class Proxy:
    """`taken_apart=False` for what is no plain Kafka (TLS): no frames, no traps, the rest works. With `tls` clients get
    TLS although upstream has none; set another one for the next time it listens.
    """

    def __init__(
        self, upstream: str, port: int = 0, *, taken_apart: bool = True, tls: ssl.SSLContext | None = None
    ) -> None:
        self.lead_to(upstream)
        self._port = port
        self.taken_apart = taken_apart
        self.tls = tls
        self.frames: list[Frame] = []
        self.traps: list[Trap] = []
        self.delay_s = {UP: 0.0, DOWN: 0.0}
        self.bytes_per_s: dict[Direction, int | None] = {UP: None, DOWN: None}
        self.bytes_left: dict[Direction, int | None] = {UP: None, DOWN: None}
        self.swallows = False
        self._news = asyncio.Condition()
        self._server: asyncio.Server | None = None
        self._connections: dict[_Connection, asyncio.Task[None]] = {}
        self._count = 0

    async def __aenter__(self) -> Self:
        await self._listen()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.cut()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._port}"

    def lead_to(self, upstream: str) -> None:
        """New connections go there."""
        host, _, port = upstream.rpartition(":")
        self._upstream = (host, int(port))

    async def cut(self) -> None:
        """Reset every connection and refuse new ones until `restore`."""
        if self._server:
            self._server.close()
            self._server = None
        await self.reset()

    async def reset(self) -> None:
        """Reset every connection; new ones are welcome."""
        tasks = list(self._connections.values())
        for connection in list(self._connections):
            connection.reset()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def black_hole(self) -> None:
        """Take what comes and deliver nothing. Connections of that time stay silent after `restore`, too."""
        self.swallows = True

    async def restore(self) -> None:
        """Take back cut, black_hole, shape and cut_after; traps stay set."""
        self.swallows = False
        self.delay_s = {UP: 0.0, DOWN: 0.0}
        self.bytes_per_s = {UP: None, DOWN: None}
        self.bytes_left = {UP: None, DOWN: None}
        if not self._server:
            await self._listen()

    def shape(self, direction: Direction, *, delay_s: float = 0.0, bytes_per_s: int | None = None) -> None:
        self.delay_s[direction] = delay_s
        self.bytes_per_s[direction] = bytes_per_s

    def cut_after(self, direction: Direction, count: int) -> None:
        """Deliver `count` more bytes, over all connections, then reset the one that would carry the next."""
        self.bytes_left[direction] = count

    def hold(self, api_key: int, direction: Direction, *, skip: int = 0) -> Trap:
        """Keep the next such frame, and what follows it on its connection, until it is released."""
        return self._trap(api_key, direction, skip, None)

    def cut_in(self, api_key: int, direction: Direction, after: int, *, skip: int = 0) -> Trap:
        """Deliver the first `after` bytes of the next such frame (its length field included), then reset."""
        return self._trap(api_key, direction, skip, after)

    async def seen(
        self, api_key: int, direction: Direction, *, since: int = 0, timeout_s: float = 30.0
    ) -> Frame:
        """The first such frame at or after `frames[since]`; waits for it. Raises TimeoutError."""
        async with asyncio.timeout(timeout_s), self._news:
            while True:
                while since < len(self.frames):
                    frame = self.frames[since]
                    if (frame.api_key, frame.direction) == (api_key, direction):
                        return frame
                    since += 1
                await self._news.wait()

    async def note(self, frame: Frame) -> None:
        async with self._news:
            self.frames.append(frame)
            self._news.notify_all()

    def _trap(self, api_key: int, direction: Direction, skip: int, after: int | None) -> Trap:
        trap = Trap(api_key, direction, skip, after)
        self.traps.append(trap)
        return trap

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port, ssl=self.tls)
        self._port = self._server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._count += 1
        try:
            up_reader, up_writer = await asyncio.open_connection(*self._upstream)
        except OSError:
            _abort(writer)
            return
        connection = _Connection(self, self._count, (reader, writer), (up_reader, up_writer))
        task = asyncio.create_task(connection.run())
        self._connections[connection] = task
        task.add_done_callback(lambda _: self._connections.pop(connection))
        with contextlib.suppress(asyncio.CancelledError):
            await task


Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Item = tuple[float, Frame, bytes] | None


class _Connection:
    def __init__(self, proxy: Proxy, number: int, client: Stream, broker: Stream) -> None:
        self._proxy = proxy
        self._number = number
        self._client = client
        self._broker = broker
        self._asked: dict[int, int] = {}
        self._all_answered = asyncio.Event()
        self._held_a_request = False
        self._lost = False

    async def run(self) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                for direction, (reader, _), (_, writer) in (
                    (UP, self._client, self._broker),
                    (DOWN, self._broker, self._client),
                ):
                    queue: asyncio.Queue[Item] = asyncio.Queue(256)
                    tasks.create_task(self._read(direction, reader, queue))
                    tasks.create_task(self._write(direction, queue, writer))
        finally:
            self._client[1].close()
            self._broker[1].close()

    def reset(self) -> None:
        _abort(self._client[1])
        _abort(self._broker[1])

    async def _read(
        self, direction: Direction, reader: asyncio.StreamReader, queue: asyncio.Queue[Item]
    ) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                if self._proxy.taken_apart:
                    length = await reader.readexactly(4)
                    data = length + await reader.readexactly(int.from_bytes(length, "big"))
                else:
                    data = await reader.read(65536)
                    if not data:
                        break
                frame = self._frame(direction, data)
                await self._proxy.note(frame)
                await queue.put((frame.time + self._proxy.delay_s[direction], frame, data))
        await queue.put(None)

    def _frame(self, direction: Direction, data: bytes) -> Frame:
        api_key = correlation_id = -1
        if self._proxy.taken_apart and direction is UP:
            api_key, _, correlation_id = struct.unpack_from(">hhi", data, 4)
            self._asked[correlation_id] = api_key
            self._all_answered.clear()
        elif self._proxy.taken_apart:
            (correlation_id,) = struct.unpack_from(">i", data, 4)
            api_key = self._asked.pop(correlation_id, -1)
            if not self._asked:
                self._all_answered.set()
        return Frame(time.monotonic(), self._number, direction, api_key, correlation_id, len(data))

    async def _write(
        self, direction: Direction, queue: asyncio.Queue[Item], writer: asyncio.StreamWriter
    ) -> None:
        while item := await queue.get():
            due, frame, data = item
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            for trap in self._proxy.traps:
                if trap.catches(frame):
                    if trap.cut_after is not None:
                        await self._deliver(direction, data[: trap.cut_after], writer)
                        self.reset()
                        return
                    self._held_a_request |= direction is UP
                    await trap.wait_for_release()
            if self._proxy.swallows or self._lost:
                self._lost = True
                continue
            if not await self._deliver(direction, data, writer):
                self.reset()
                return
        if direction is UP and self._held_a_request:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._all_answered.wait(), ANSWER_S)
        if not self._lost:
            writer.close()

    async def _deliver(self, direction: Direction, data: bytes, writer: asyncio.StreamWriter) -> bool:
        """False once `cut_after` is used up. A receiver that has gone is no error: its sender will learn of it."""
        left = self._proxy.bytes_left[direction]
        if left is not None:
            self._proxy.bytes_left[direction] = max(0, left - len(data))
        part = data if left is None else data[:left]
        rate = self._proxy.bytes_per_s[direction]
        step = len(part) if rate is None else max(1, rate // 20)
        with contextlib.suppress(OSError):
            for start in range(0, len(part), max(1, step)):
                piece = part[start : start + step]
                writer.write(piece)
                await writer.drain()
                if rate:
                    await asyncio.sleep(len(piece) / rate)
        return len(part) == len(data)


def _abort(writer: asyncio.StreamWriter) -> None:
    """Close with a reset, as a link that broke does, instead of an orderly end."""
    connection = writer.get_extra_info("socket")
    if connection is not None:
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_RESET)
    writer.transport.abort()
