"""An MQTT 3.1.1 publisher that costs little: frames are made before the clock starts. One JSON object as its result.

publish.py PORT --count 100000 --window 20 --connections 4 --qos 1 [--rate 1000]
"""

import argparse
import asyncio
import json
import os
import random
import struct
import time

from tests.bench.payload import messages

LATENCIES_MAX = 20_000


def frame(kind: int, body: bytes) -> bytes:
    length, size = b"", len(body)
    while True:
        size, low = divmod(size, 128)
        length += bytes([low | 128 if size else low])
        if not size:
            return bytes([kind]) + length + body


def connect(name: bytes) -> bytes:
    return frame(0x10, b"\0\4MQTT\4\2" + struct.pack(">HH", 600, len(name)) + name)


def publishes(count: int, seed: int, qos: int) -> list[bytes]:
    """Packet ids 1, 2 ... 65535, 1 ...; QoS 0 has none."""
    frames = []
    for number, (topic, payload) in enumerate(messages(count, seed)):
        packet_id = struct.pack(">H", number % 65_535 + 1) if qos else b""
        head = struct.pack(">H", len(topic)) + topic
        frames.append(frame(0x30 | qos << 1, head + packet_id + payload))
    return frames


class Publisher:
    """`window` unacknowledged messages at most; latencies in seconds, a random sample of them."""

    def __init__(self, frames: list[bytes], window: int, interval_s: float) -> None:
        self.latencies: list[float] = []
        self._frames = frames
        self._window = window
        self._interval_s = interval_s
        self._dice = random.Random(1)

    async def connect(self, port: int, name: bytes) -> None:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", port)
        self._writer.write(connect(name))
        if (await self._reader.readexactly(4))[3]:
            raise SystemExit("the gateway refused the connection")

    async def run(self) -> None:
        """With QoS 0 (an endless window) nobody answers; a PINGREQ tells when all is read."""
        frames, total = self._frames, len(self._frames)
        sent = acknowledged = 0
        times: list[float] = []
        rest = 0
        while acknowledged < total:
            room = min(total, acknowledged + self._window) - sent
            if room > 0:
                now = time.perf_counter()
                self._writer.write(b"".join(frames[sent : sent + room]))
                times += [now] * room
                sent += room
            data = await self._reader.read(1 << 16)
            if not data:
                raise SystemExit(f"the gateway closed the connection after {acknowledged} acknowledgements")
            answers, rest = divmod(rest + len(data), 4)
            now = time.perf_counter()
            self._note([now - then for then in times[acknowledged : acknowledged + answers]])
            acknowledged += answers
            if self._interval_s:
                await asyncio.sleep(self._interval_s)

    async def run_unacknowledged(self) -> None:
        step = 200 if not self._interval_s else 1
        for start in range(0, len(self._frames), step):
            self._writer.write(b"".join(self._frames[start : start + step]))
            await self._writer.drain()
            if self._interval_s:
                await asyncio.sleep(self._interval_s)
        self._writer.write(b"\xc0\0")
        await self._reader.readexactly(2)

    def close(self) -> None:
        self._writer.write(b"\xe0\0")
        self._writer.close()

    def _note(self, latencies: list[float]) -> None:
        if len(self.latencies) > LATENCIES_MAX:
            latencies = self._dice.sample(latencies, 1) if latencies else []
        self.latencies += latencies


async def publish(
    port: int, count: int, window: int, connections: int, qos: int, rate: float
) -> dict[str, float]:
    share = count // connections
    interval_s = connections / rate if rate else 0.0
    publishers = [
        Publisher(publishes(share, seed, qos), window, interval_s) for seed in range(1, connections + 1)
    ]
    for number, one in enumerate(publishers):
        await one.connect(port, b"bench-%d-%d" % (os.getpid(), number))
    began_at, began, cpu = time.time(), time.perf_counter(), time.process_time()
    await asyncio.gather(*(one.run() if qos else one.run_unacknowledged() for one in publishers))
    seconds = time.perf_counter() - began
    latencies = sorted(latency for one in publishers for latency in one.latencies) or [0.0]
    for one in publishers:
        one.close()
    return {
        "messages": share * connections,
        "payload_bytes": sum(
            len(payload) for seed in range(1, connections + 1) for _, payload in messages(share, seed)
        ),
        "began_at": began_at,
        "seconds": seconds,
        "cpu_s": time.process_time() - cpu,
        "p50_ms": latencies[len(latencies) // 2] * 1000,
        "p99_ms": latencies[len(latencies) * 99 // 100] * 1000,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--window", type=int, default=20)
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--qos", type=int, choices=(0, 1), default=1)
    parser.add_argument("--rate", type=float, default=0.0, help="messages a second over all connections")
    given = parser.parse_args()
    result = asyncio.run(
        publish(given.port, given.count, given.window, given.connections, given.qos, given.rate)
    )
    print(json.dumps(result))


if __name__ == "__main__":
    main()
