"""What a CoAP request costs: confirmable POSTs to a driver on a real queue, in this process; their sender has its own.

coap.py --count 5000 --window 20
"""

import argparse
import asyncio
import json
import socket
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from tests.bench.payload import messages
from tests.coap.rig import CON, POST, URI_PATH, Gateway, Message

AGAIN_S = 2.0
WARM_COUNT = 200


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
    await gateway.start(commit_interval=0.02)
    with ProcessPoolExecutor(1, get_context("spawn")) as sender:
        sending = asyncio.get_running_loop().run_in_executor
        await sending(sender, send, gateway.address.port, WARM_COUNT, window)
        cpu = time.process_time()
        seconds = await sending(sender, send, gateway.address.port, count, window)
        cpu = time.process_time() - cpu
    gateway.close()
    await gateway.stop()
    return {"cpu_us": cpu / count * 1e6, "rate": count / seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--window", type=int, required=True)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(asyncio.run(measure(given.count, given.window, Path(folder)))))


if __name__ == "__main__":
    main()
