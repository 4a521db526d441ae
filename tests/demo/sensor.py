"""Sensors that speak CoAP (RFC 7252). Knows nothing of the gateway's code.

A sensor posts one confirmable message at a time and sends it again, with the same message id and token, until it is
answered; 2.04 means that it is safe, and is written down as tests/demo/devices.py writes its journals. Now and then an
answer is lost on the way, so that even a gateway that never fails gets messages again. On SIGTERM sensors make no
new messages, wait until the last one is answered, and end.

    sensor.py --journals DIRECTORY --coap HOST:PORT --sensors 4 --rate 5
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import math
import random
import signal
import struct
import sys
from collections.abc import Sequence
from pathlib import Path

ACK_TIMEOUT_S = 0.2
"""A tenth of RFC 7252's: the demo has no time. What follows from it is as in 4.2."""

ACK_RANDOM_FACTOR = 1.5
MAX_RETRANSMIT = 6
ANSWER_S = 10.0
"""For an answer that follows an empty acknowledgement."""

RETRY_S = 0.5
LOST_EVERY = 10
CON, NON, ACK, RST = 0, 1, 2, 3
EMPTY, POST, CHANGED = 0x00, 0x02, 0x44
URI_PATH, CONTENT_FORMAT, URI_QUERY = 11, 12, 15
JSON_FORMAT = 50


class Exchange:
    """A message under way. `heard`: it came; `answer`: the code of the answer proper."""

    def __init__(self, message_id: int) -> None:
        self.message_id = message_id
        self.token = random.randbytes(4)
        self.heard: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def came(self, code: int | None = None) -> None:
        if not self.heard.done():
            self.heard.set_result(None)
        if code is not None and not self.answer.done():
            self.answer.set_result(code)


class Sensor(asyncio.DatagramProtocol):
    def __init__(self, driver: str, name: str, journals: Path, rate: float) -> None:
        self.name = name
        self._driver = driver
        self._interval_s = 1 / rate
        self._journal = (journals / f"{driver}-{name}.jsonl").open("a", buffering=1)
        self._message_id = random.randrange(1 << 16)
        self._exchange: Exchange | None = None
        self._to_lose = 0
        self._complaint = ""
        self._transport: asyncio.DatagramTransport

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self._transport = transport

    def error_received(self, error: Exception) -> None:
        """Nobody listens there now; a radio would not know either."""

    def datagram_received(self, data: bytes, address: object) -> None:
        first, code, message_id = struct.unpack_from(">BBH", data)
        kind, token = first >> 4 & 3, data[4 : 4 + (first & 15)]
        exchange = self._exchange
        if self._to_lose and code != EMPTY:
            self._to_lose -= 1
        elif kind in (ACK, RST) and exchange and message_id == exchange.message_id:
            if kind == RST:
                exchange.came(EMPTY)
            elif code == EMPTY:
                exchange.came()
            elif token == exchange.token:
                exchange.came(code)
        elif kind in (CON, NON):
            expected = exchange is not None and token == exchange.token and code != EMPTY
            if kind == CON:
                reply = ACK if expected else RST
                self._transport.sendto(struct.pack(">BBH", 1 << 6 | reply << 4, EMPTY, message_id))
            if expected and exchange:
                exchange.came(code)

    async def run(self, no_more: asyncio.Event) -> None:
        for n in itertools.count(1):
            if no_more.is_set():
                break
            await self._deliver(n)
            await asyncio.sleep(self._interval_s)
        self._transport.close()

    async def _deliver(self, n: int) -> None:
        """A refusal stored nothing: then the message goes out anew. One without an answer may be stored: then it doesn't."""
        identity = {"device": self.name, "id": f"{self.name}/{n}", "n": n}
        body = json.dumps({**identity, "temperature": round(20 + 3 * math.sin(n / 50), 2)}).encode()
        for sends in itertools.count(1):
            code = await self._send(body, n % LOST_EVERY == 0)
            if code == CHANGED:
                self._journal.write(json.dumps({"driver": self._driver, **identity, "sends": sends}) + "\n")
                return
            if code is None:
                self._complain(f"no answer to message {n}")
                return
            self._complain(f"refused with {code >> 5}.{code & 31:02}")
            await asyncio.sleep(RETRY_S)

    async def _send(self, body: bytes, lose: bool) -> int | None:
        """The answer's code, None if none came."""
        self._message_id = (self._message_id + 1) % (1 << 16)
        exchange = self._exchange = Exchange(self._message_id)
        self._to_lose = int(lose)
        head = struct.pack(">BBH", 1 << 6 | CON << 4 | len(exchange.token), POST, exchange.message_id)
        options = [
            *((URI_PATH, segment.encode()) for segment in ("demo", self.name, "reports")),
            (CONTENT_FORMAT, bytes((JSON_FORMAT,))),
            (URI_QUERY, f"d={self.name}".encode()),
        ]
        message = head + exchange.token + encoded(options) + b"\xff" + body
        wait_s = ACK_TIMEOUT_S * random.uniform(1, ACK_RANDOM_FACTOR)
        for _ in range(1 + MAX_RETRANSMIT):
            self._transport.sendto(message)
            await asyncio.wait([exchange.heard], timeout=wait_s)
            if exchange.heard.done():
                with contextlib.suppress(TimeoutError):
                    return await asyncio.wait_for(exchange.answer, ANSWER_S)
                break
            wait_s *= 2
        return None

    def _complain(self, about: str) -> None:
        if about != self._complaint:
            self._complaint = about
            print(f"{self.name}: {about}", file=sys.stderr)


def encoded(options: Sequence[tuple[int, bytes]]) -> bytes:
    """RFC 7252, 3.1, for what is needed here: a step below 13, a value of less than 269 bytes."""
    found = bytearray()
    before = 0
    for number, value in options:
        size = len(value)
        found.append((number - before) << 4 | min(size, 13))
        if size >= 13:
            found.append(size - 13)
        found += value
        before = number
    return bytes(found)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="CoAP sensors that deliver until SIGTERM.")
    parser.add_argument("--journals", required=True, type=Path)
    parser.add_argument("--coap", required=True, metavar="HOST:PORT")
    parser.add_argument("--sensors", type=int, default=4)
    parser.add_argument("--rate", type=float, default=5, help="messages a second of each sensor")
    return parser.parse_args(arguments)


async def main(options: argparse.Namespace) -> None:
    options.journals.mkdir(parents=True, exist_ok=True)
    loop, no_more = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, no_more.set)
    host, _, port = options.coap.rpartition(":")
    async with asyncio.TaskGroup() as tasks:
        for number in range(1, options.sensors + 1):
            sensor = Sensor("sensors", f"sensor-{number}", options.journals, options.rate)
            await loop.create_datagram_endpoint(
                lambda sensor=sensor: sensor,  # type: ignore[misc]
                remote_addr=(host, int(port)),
            )
            tasks.create_task(sensor.run(no_more))


if __name__ == "__main__":
    asyncio.run(main(parse(sys.argv[1:])))
