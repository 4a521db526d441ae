"""What the MQTT tests share: a driver on a real queue that can be killed and started again, and raw packets."""

import asyncio
import shutil
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

from drivers.mqtt import Config
from drivers.mqtt import protocol as mqtt
from drivers.mqtt.driver import MqttDriver
from drivers.mqtt.protocol import V311, Packet
from gateway.clock import SystemClock
from gateway.driver import Context
from gateway.metrics import Metrics
from gateway.queue import Queue, QueueSettings
from gateway.routing import Router
from gateway.runtime.emit import QueueEmit
from gateway.runtime.tap import Tap
from gateway.settings import Address
from gateway.testing.emit import FakeEmit
from gateway.testing.kafka import free_ports

WITHIN_S = 10.0


def connect(
    client: str, *, clean: bool = True, version: int = V311, keep_alive: int = 60, **more: Any
) -> bytes:
    """`more`: properties, will (topic, payload, retain), user, password."""
    flags = 2 if clean else 0
    properties = mqtt.encode_properties(more.get("properties", {})) if version == mqtt.V5 else b""
    tail = mqtt.text(client)
    if "will" in more:
        topic, payload, retain = more["will"]
        flags |= 0x04 | 0x08 | (0x20 if retain else 0)
        tail += (b"\0" if version == mqtt.V5 else b"") + mqtt.text(topic) + mqtt.text(payload)
    if "user" in more:
        flags |= 0xC0
        tail += mqtt.text(more["user"]) + mqtt.text(more["password"])
    head = mqtt.text("MQTT") + bytes((version, flags)) + keep_alive.to_bytes(2, "big")
    return mqtt.packet(0x10, head + properties + tail)


def publish(
    topic: str,
    body: bytes,
    qos: int = 1,
    number: int = 1,
    *,
    dup: bool = False,
    retain: bool = False,
    v5: bool = False,
) -> bytes:
    head = mqtt.text(topic) + (number.to_bytes(2, "big") if qos else b"") + (b"\0" if v5 else b"")
    return mqtt.packet(0x30 | qos << 1 | (8 if dup else 0) | (1 if retain else 0), head + body)


def subscribe(number: int, *topics: str, qos: int = 0) -> bytes:
    filters = b"".join(mqtt.text(topic) + bytes((qos,)) for topic in topics)
    return mqtt.packet(0x82, number.to_bytes(2, "big") + filters)


def ack(kind: Packet, number: int = 1) -> bytes:
    return mqtt.encode_ack(kind, number)


CONNACK = b"\x20\x02\0\0"
CONNACK_PRESENT = b"\x20\x02\x01\0"


_opened: list["Client"] = []


class Client:
    """A raw socket that sends and expects bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, port: int, *packets: bytes, address: str = "127.0.0.1") -> Self:
        """`address` is the client's own."""
        client = cls(*await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0)))
        _opened.append(client)
        await client.send(*packets)
        return client

    async def send(self, *packets: bytes) -> None:
        self._writer.write(b"".join(packets))
        await self._writer.drain()

    async def expect(self, *packets: bytes) -> None:
        wanted = b"".join(packets)
        async with asyncio.timeout(WITHIN_S):
            found = await self._reader.readexactly(len(wanted))
        assert found == wanted, f"{found.hex(' ')} instead of {wanted.hex(' ')}"

    async def packet(self) -> bytes:
        async with asyncio.timeout(WITHIN_S):
            head = await self._reader.readexactly(2)
            return head + await self._reader.readexactly(head[1])

    async def rest(self) -> bytes:
        """All that comes until the other side closes."""
        async with asyncio.timeout(WITHIN_S):
            try:
                return await self._reader.read()
            except ConnectionError:
                return b""

    def cut(self) -> None:
        self._writer.transport.abort()


async def listening(port: int, driver: "asyncio.Task[None]") -> None:
    async with asyncio.timeout(WITHIN_S):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                if driver.done():
                    driver.result()
                await asyncio.sleep(0.01)
                continue
            writer.close()
            return


class Gateway:
    """One driver on one queue. `kill` is a power cut: only what is on the disk is there afterwards."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self._folder = folder
        self.settings = settings
        self.port = free_ports(1)[0]
        self._lives = 0
        self._disk = threading.Event()

    async def start(self, **queue: Any) -> None:
        clock = SystemClock()
        self.folder = self._folder / str(self._lives)
        quick: dict[str, Any] = {"min_free_bytes": 0, "commit_interval": 0.001} | queue
        self.queue = await Queue.open(self.folder / "queue.db", QueueSettings(**quick), clock)
        chosen: dict[str, Any] = {"listen": Address("127.0.0.1", self.port), "anonymous": True}
        config = Config(**(chosen | self.settings))
        self.emit = QueueEmit("floor", self.queue, Router([], "all"), Tap(), Metrics(), clock)
        self._driver = asyncio.create_task(MqttDriver(config, Context("floor", clock)).run(self.emit))
        await listening(self.port, self._driver)

    def disk_stands_still(self) -> None:
        """What is emitted from now on is not stored before `disk_goes_on`, or lost with a kill."""
        self._disk.clear()
        self._standing = asyncio.ensure_future(self.queue._call(self._disk.wait))  # noqa: SLF001

    def disk_goes_on(self) -> None:
        self._disk.set()

    async def stop(self) -> None:
        self.disk_goes_on()
        self._driver.cancel()
        await asyncio.wait([self._driver])
        await self.queue.close()

    async def kill_and_restart(self) -> None:
        """The disk as it is now; what the process still had in hand is lost."""
        self._lives += 1
        shutil.copytree(self.folder, self._folder / str(self._lives))
        await self.stop()
        await self.start()

    async def bodies(self) -> list[bytes]:
        """Payloads on the disk, in order."""
        segments = await self.queue.peek("main", 0, 1_000_000, 1 << 30)
        return [entry.value for segment in segments for entry in segment.entries]

    async def headers(self) -> list[dict[str, bytes]]:
        segments = await self.queue.peek("main", 0, 1_000_000, 1 << 30)
        return [dict(entry.shape.headers) for segment in segments for entry in segment.entries]

    async def stored(self, count: int) -> list[bytes]:
        async with asyncio.timeout(WITHIN_S):
            await self.queue.wait_for("main", count - 1)
        return await self.bodies()


@asynccontextmanager
async def gateway(folder: Path, **settings: Any) -> AsyncIterator[Gateway]:
    one = Gateway(folder, **settings)
    await one.start()
    try:
        yield one
    finally:
        for client in _opened:
            client.cut()
        _opened.clear()
        await one.stop()


@asynccontextmanager
async def front_door(emit: FakeEmit, **settings: Any) -> AsyncIterator[int]:
    """Its port; the disk is the test's to hold and to fail."""
    port = free_ports(1)[0]
    config = Config(listen=Address("127.0.0.1", port), anonymous=True, **settings)
    driver = asyncio.create_task(MqttDriver(config, Context("floor", SystemClock())).run(emit))
    try:
        await listening(port, driver)
        yield port
    finally:
        for client in _opened:
            client.cut()
        _opened.clear()
        driver.cancel()
        await asyncio.wait([driver])
