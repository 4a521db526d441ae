"""What a CoAP request costs: confirmable POSTs to a driver on a real queue, in this process; their sender has its own.

coap.py --count 5000 --window 20

With --bare a datagram is answered once a thread has written and synced a page: what no gateway in Python does without.
"""

import argparse
import asyncio
import json
import os
import socket
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from tests.bench.payload import messages
from tests.coap.rig import CON, POST, URI_PATH, Gateway, Message

AGAIN_S = 2.0
WARM_COUNT = 200
INTERVAL_S = 0.02
PAGE = bytes(4096)
LOG_BYTES = 4 << 20


def send(port: int, count: int, window: int) -> float:
    """Until each is answered; what is not goes out again. Seconds that it took."""
    began = time.perf_counter()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as device:
        device.connect(("127.0.0.1", port))
        device.settimeout(AGAIN_S)
        coming = enumerate(messages(count, 1))
        waiting: dict[int, bytes] = {}
        answered = 0
        while answered < count:
            while len(waiting) < window and (one := next(coming, None)):
                number, (channel, payload) = one
                mid = number & 0xFFFF
                path = tuple((URI_PATH, segment) for segment in channel.split(b"/"))
                waiting[mid] = Message(CON, POST, mid, mid.to_bytes(2, "big"), path, payload).encode()
                device.send(waiting[mid])
            try:
                answer = Message.decode(device.recv(2048))
            except TimeoutError:
                for datagram in waiting.values():
                    device.send(datagram)
            else:
                answered += answer.status == "2.04" and waiting.pop(answer.mid, None) is not None
    return time.perf_counter() - began


async def measure(count: int, window: int, folder: Path) -> dict[str, float]:
    gateway = Gateway(folder, exchanges_max=65_536)
    await gateway.start(commit_interval=INTERVAL_S)
    found = await cost(send, gateway.address.port, count, window)
    gateway.close()
    await gateway.stop()
    return found


async def measure_bare(count: int, window: int, folder: Path) -> dict[str, float]:
    with ThreadPoolExecutor(1) as thread, (folder / "log").open("wb") as log:
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: Bare(thread, log.fileno()), ("127.0.0.1", 0)
        )
        port: int = transport.get_extra_info("sockname")[1]
        found = await cost(send_bare, port, count, window)
        transport.close()
    return found


class Bare(asyncio.DatagramProtocol):
    def __init__(self, thread: ThreadPoolExecutor, log: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread = thread
        self._log = log
        self._at = 0
        self._transport: asyncio.DatagramTransport

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self._transport = transport

    def datagram_received(self, data: bytes, address: Any) -> None:
        self._loop.call_later(INTERVAL_S, self._store, data, address)

    def _store(self, data: bytes, address: Any) -> None:
        stored = self._loop.run_in_executor(self._thread, self._sync)
        stored.add_done_callback(lambda _: self._transport.sendto(data, address))

    def _sync(self) -> None:
        self._at = (self._at + len(PAGE)) % LOG_BYTES
        os.pwrite(self._log, PAGE, self._at)
        os.fdatasync(self._log)


def send_bare(port: int, count: int, window: int) -> float:
    """As `send`, one at a time."""
    assert window == 1
    began = time.perf_counter()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as device:
        device.connect(("127.0.0.1", port))
        device.settimeout(AGAIN_S)
        for _ in range(count):
            device.send(PAGE[:64])
            device.recv(2048)
    return time.perf_counter() - began


async def cost(
    send: Callable[[int, int, int], float], port: int, count: int, window: int
) -> dict[str, float]:
    with ProcessPoolExecutor(1, get_context("spawn")) as sender:
        sending = asyncio.get_running_loop().run_in_executor
        await sending(sender, send, port, WARM_COUNT, window)
        cpu = time.process_time()
        seconds = await sending(sender, send, port, count, window)
        cpu = time.process_time() - cpu
    return {"cpu_us": cpu / count * 1e6, "rate": count / seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--window", type=int, required=True)
    parser.add_argument("--bare", action="store_true")
    given = parser.parse_args()
    measured = measure_bare if given.bare else measure
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(asyncio.run(measured(given.count, given.window, Path(folder)))))


if __name__ == "__main__":
    main()
