"""The driver on a real queue that can be killed and started again, and a raw connection to it."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from drivers.http import Config
from drivers.http.driver import HttpDriver
from gateway.clock import SystemClock
from gateway.driver import Context
from gateway.metrics import Metrics
from gateway.queue import Queue, QueueSettings
from gateway.routing import Router
from gateway.runtime.emit import QueueEmit
from gateway.runtime.tap import Tap
from gateway.settings import Address
from gateway.testing.kafka import free_ports

WITHIN_S = 10.0


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: Any


class ShiftedClock(SystemClock):
    """Runs, and may be put forward."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead_s


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self) -> Answer:
        async with asyncio.timeout(WITHIN_S):
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {
                name.lower(): value.strip()
                for name, _, value in (line.partition(":") for line in head[1:] if line)
            }
            body = await self._reader.readexactly(int(headers.get("content-length", "0")))
        is_json = "json" in headers.get("content-type", "")
        return Answer(int(head[0].split()[1]), headers, json.loads(body) if is_json else body)

    async def closed(self) -> bool:
        async with asyncio.timeout(WITHIN_S):
            try:
                return await self._reader.read() == b""
            except ConnectionError:
                return True


class Gateway:
    """One driver on one queue. `kill_and_restart` is a power cut: only what is on the disk is there afterwards."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self._folder = folder
        self.port = free_ports(1)[0]
        chosen: dict[str, Any] = {"listen": Address("127.0.0.1", self.port), "anonymous": True}
        self._config = Config(**(chosen | settings))
        self._lives = 0
        self.clock = ShiftedClock()
        self._clients: list[Client] = []

    async def start(self, *, vfs: str | None = None, **queue: Any) -> None:
        clock = self.clock
        self.folder = self._folder / str(self._lives)
        quick: dict[str, Any] = {"min_free_bytes": 0, "commit_interval": 0.001}
        self.queue = await Queue.open(
            self.folder / "queue.db", QueueSettings(**(quick | queue)), clock, vfs=vfs
        )
        self.emit = QueueEmit("web", self.queue, Router([], "all"), Tap(), Metrics(), clock)
        self._driver = asyncio.create_task(HttpDriver(self._config, Context("web", clock)).run(self.emit))
        (await self.client()).writer.close()

    async def client(self) -> Client:
        async with asyncio.timeout(WITHIN_S):
            while True:
                try:
                    client = Client(*await asyncio.open_connection("127.0.0.1", self.port))
                except OSError:
                    if self._driver.done():
                        self._driver.result()
                    await asyncio.sleep(0.01)
                else:
                    self._clients.append(client)
                    return client

    async def stop(self) -> None:
        for client in self._clients:
            client.writer.transport.abort()
        self._clients.clear()
        self._driver.cancel()
        await asyncio.wait([self._driver])
        await self.queue.close()

    async def kill_and_restart(self) -> None:
        self._lives += 1
        shutil.copytree(self.folder, self._folder / str(self._lives))
        await self.stop()
        await self.start()

    async def bodies(self) -> list[bytes]:
        segments = await self.queue.peek("main", 0, 1_000_000, 1 << 30)
        return [entry.value for segment in segments for entry in segment.entries]

    async def headers(self) -> list[dict[str, str]]:
        segments = await self.queue.peek("main", 0, 1_000_000, 1 << 30)
        return [
            {name: value.decode() for name, value in entry.shape.headers}
            for segment in segments
            for entry in segment.entries
        ]


@asynccontextmanager
async def gateway(folder: Path, **settings: Any) -> AsyncIterator[Gateway]:
    one = Gateway(folder, **settings)
    await one.start()
    try:
        yield one
    finally:
        await one.stop()


def post(body: bytes, channel: str = "press/4", **headers: str) -> bytes:
    """Header names are given with _ for -."""
    lines = [f"POST /ingest/{channel} HTTP/1.1", "Host: gateway", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body
