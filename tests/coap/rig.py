"""The driver on a real queue that can be killed and started again, and raw datagrams to it."""

import asyncio
import shutil
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from drivers.coap import Config
from drivers.coap.driver import CoapDriver
from gateway.clock import SystemClock
from gateway.driver import Context
from gateway.metrics import Metrics
from gateway.queue import Queue, QueueSettings
from gateway.routing import Router
from gateway.runtime.emit import QueueEmit
from gateway.runtime.tap import Tap
from gateway.settings import Address
from gateway.testing.conformance import free_address

WITHIN_S = 10.0

CON, NON, ACK, RST = range(4)
GET, POST, PUT, DELETE = range(1, 5)
OBSERVE, URI_PATH, CONTENT_FORMAT, MAX_AGE, URI_QUERY, BLOCK1, SIZE1, NO_RESPONSE, REQUEST_TAG = (
    6,
    11,
    12,
    14,
    15,
    27,
    60,
    258,
    292,
)


class Message(NamedTuple):
    """One datagram (RFC 7252, 3), coded here and not by the library under test."""

    kind: int
    code: int
    mid: int
    token: bytes = b""
    options: tuple[tuple[int, bytes], ...] = ()
    payload: bytes = b""

    def encode(self) -> bytes:
        head = bytes((0x40 | self.kind << 4 | len(self.token), self.code)) + self.mid.to_bytes(2, "big")
        options = b""
        last = 0
        for number, value in sorted(self.options, key=lambda option: option[0]):
            delta, more = _extended(number - last)
            length, longer = _extended(len(value))
            options += bytes((delta << 4 | length,)) + more + longer + value
            last = number
        return head + self.token + options + (b"\xff" + self.payload if self.payload else b"")

    @classmethod
    def decode(cls, data: bytes) -> "Message":
        length = data[0] & 0xF
        options, payload = [], b""
        at, number = 4 + length, 0
        while at < len(data):
            if data[at] == 0xFF:
                payload = data[at + 1 :]
                break
            delta, size = data[at] >> 4, data[at] & 0xF
            at += 1
            values = []
            for nibble in (delta, size):
                width = {13: 1, 14: 2}.get(nibble, 0)
                values.append(
                    nibble + int.from_bytes(data[at : at + width], "big") + {14: 255}.get(nibble, 0)
                )
                at += width
            number += values[0]
            options.append((number, data[at : at + values[1]]))
            at += values[1]
        return cls(
            data[0] >> 4 & 3,
            data[1],
            int.from_bytes(data[2:4], "big"),
            data[4 : 4 + length],
            tuple(options),
            payload,
        )

    def option(self, number: int) -> bytes | None:
        return dict(self.options).get(number)

    @property
    def status(self) -> str:
        return f"{self.code >> 5}.{self.code & 31:02}"


def _extended(value: int) -> tuple[int, bytes]:
    if value < 13:
        return value, b""
    if value < 269:
        return 13, bytes((value - 13,))
    return 14, (value - 269).to_bytes(2, "big")


def post(
    mid: int,
    payload: bytes = b"1",
    path: str = "press/4",
    *options: tuple[int, bytes],
    kind: int = CON,
    token: bytes | None = None,
) -> Message:
    segments = [(URI_PATH, segment.encode()) for segment in path.split("/")]
    chosen = mid.to_bytes(2, "big") if token is None else token
    return Message(kind, POST, mid, chosen, (*segments, *options), payload)


def block(number: int, more: bool, exponent: int) -> tuple[int, bytes]:
    """A Block1 option (RFC 7959, 2.2); blocks have 2 ** (exponent + 4) bytes."""
    value = number << 4 | more << 3 | exponent
    return BLOCK1, value.to_bytes((value.bit_length() + 7) // 8, "big")


class Device:
    """A UDP socket of its own."""

    def __init__(self, address: Address, family: int = socket.AF_INET, source: str | None = None) -> None:
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        if source is not None:
            self._socket.bind((source, 0))
        self._socket.connect(address)

    async def send(self, *messages: Message | bytes) -> None:
        for message in messages:
            data = message if isinstance(message, bytes) else message.encode()
            await asyncio.get_running_loop().sock_sendall(self._socket, data)

    async def receive(self, within_s: float = WITHIN_S) -> Message:
        async with asyncio.timeout(within_s):
            return Message.decode(await asyncio.get_running_loop().sock_recv(self._socket, 4096))

    async def ask(self, message: Message) -> Message:
        """The answer, also where it comes in a message of its own."""
        await self.send(message)
        while True:
            answer = await self.receive()
            if answer.token == message.token and answer.code:
                return answer

    def close(self) -> None:
        self._socket.close()


class Gateway:
    """One driver on one queue. `kill_and_restart` is a power cut: only what is on the disk is there afterwards."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self._folder = folder
        self.address = settings.get("listen", free_address())
        self.family = socket.AF_INET6 if ":" in self.address.host else socket.AF_INET
        chosen: dict[str, Any] = {"listen": self.address, "anonymous": True}
        self._config = Config(**(chosen | settings))
        self._lives = 0
        self._devices: list[Device] = []
        self._bugs: list[dict[str, Any]] = []

    async def start(self, **queue: Any) -> None:
        clock = SystemClock()
        asyncio.get_running_loop().set_exception_handler(lambda loop, bug: self._bugs.append(bug))
        self.folder = self._folder / str(self._lives)
        quick: dict[str, Any] = {"min_free_bytes": 0, "commit_interval": 0.001, "unacked_interval": 0.05}
        self.queue = await Queue.open(self.folder / "queue.db", QueueSettings(**(quick | queue)), clock)
        self.emit = QueueEmit("field", self.queue, Router([], "all"), Tap(), Metrics(), clock)
        self._driver = asyncio.create_task(CoapDriver(self._config, Context("field", clock)).run(self.emit))
        if self._config.listen:
            await self._serves()

    async def _serves(self) -> None:
        """A ping is answered (RFC 7252, 4.3)."""
        device = self.device(self.family)
        async with asyncio.timeout(WITHIN_S):
            while True:
                with suppress(OSError, TimeoutError):
                    await device.send(Message(CON, 0, 0))
                    await device.receive(0.1)
                    return
                if self._driver.done():
                    self._driver.result()
                await asyncio.sleep(0.01)

    def device(self, family: int = socket.AF_INET, source: str | None = None) -> Device:
        device = Device(self.address, family, source)
        self._devices.append(device)
        return device

    async def stop(self) -> None:
        self._driver.cancel()
        await asyncio.wait([self._driver])
        if not self._driver.cancelled():
            self._driver.result()
        await self.queue.close()
        for bug in self._bugs:
            raise bug.get("exception") or AssertionError(bug["message"])

    async def kill_and_restart(self, **queue: Any) -> None:
        """Devices keep their sockets."""
        self._lives += 1
        shutil.copytree(self.folder, self._folder / str(self._lives))
        await self.stop()
        await self.start(**queue)

    def close(self) -> None:
        for device in self._devices:
            device.close()

    def events(self) -> dict[str, float]:
        return {event: counter.value for event, counter in self.emit.events.items()}

    async def stored(self, count: int) -> list[bytes]:
        """The bodies, once there are so many."""
        async with asyncio.timeout(WITHIN_S):
            await self.queue.wait_for("main", count - 1)
        return await self.bodies()

    async def bodies(self) -> list[bytes]:
        return [entry.value for entry in await self._entries()]

    async def headers(self) -> list[dict[str, str]]:
        return [
            {name: value.decode() for name, value in entry.shape.headers} for entry in await self._entries()
        ]

    async def _entries(self) -> list[Any]:
        segments = await self.queue.peek("main", 0, 1_000_000, 1 << 30)
        return [entry for segment in segments for entry in segment.entries]


@asynccontextmanager
async def gateway(folder: Path, **settings: Any) -> AsyncIterator[Gateway]:
    one = Gateway(folder, **settings)
    await one.start()
    try:
        yield one
    finally:
        one.close()
        await one.stop()


def blocks(body: bytes, first_mid: int, exponent: int, path: str = "press/4") -> Iterator[Message]:
    """A body as block-wise messages, one after the other."""
    size = 1 << exponent + 4
    for number in range((len(body) + size - 1) // size):
        payload = body[number * size : (number + 1) * size]
        more = (number + 1) * size < len(body)
        yield post(first_mid + number, payload, path, block(number, more, exponent))
