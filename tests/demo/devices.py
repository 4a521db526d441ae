"""Devices on real sockets: MQTT 3.1.1 publishers with QoS 1 and 2, and HTTP posters. Knows nothing of the gateway's code.

Each device keeps a journal, one JSON object a line for each message that was acknowledged to it, and sends again what
was not, as a careful device does: over MQTT with the same packet id and DUP after it connected again, over HTTP with
the same Idempotency-Key. On SIGTERM devices make no new messages, wait until all they sent is acknowledged, and end.

    devices.py --journals DIRECTORY --mqtt HOST:PORT --qos1 20 --qos2 10 --http HOST:PORT --posters 10 --rate 20
"""

import argparse
import asyncio
import contextlib
import json
import math
import random
import signal
import struct
import sys
from collections.abc import Sequence
from pathlib import Path

RETRY_S = 0.2
ANSWER_S = 5.0
CONNECT, CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP = 1, 2, 3, 4, 5, 6, 7


class Message:
    def __init__(self, device: str, n: int, padding: int = 0) -> None:
        self.id = f"{device}/{n}"
        self.n = n
        self.sends = 0
        self.accepted = False
        reading = {"temperature": round(20 + 3 * math.sin(n / 50), 2), "rpm": 1480 + n * 7 % 40}
        self.body = json.dumps({"id": self.id, "device": device, "n": n, **reading}).encode()
        if padding:
            self.body = self.body[:-1] + b', "padding": "%s"}' % random.randbytes(padding).hex().encode()


class Device:
    """Makes messages at a steady rate, with `padding` random bytes each; `told` counts those that were acknowledged."""

    def __init__(self, driver: str, name: str, journals: Path, rate: float) -> None:
        self.driver = driver
        self.name = name
        self.interval_s = 1 / rate
        self.made = 0
        self.told = 0
        self.padding = 0
        self._complaint = ""
        self._journal = (journals / f"{driver}-{name}.jsonl").open("a", buffering=1)

    def close(self) -> None:
        self._journal.close()

    def make(self) -> Message:
        self.made += 1
        return Message(self.name, self.made, self.padding)

    def complain(self, about: str) -> None:
        """A refusal is worth a line, the same again is not."""
        if about != self._complaint:
            self._complaint = about
            print(f"{self.name}: {about}", file=sys.stderr)

    def write_down(self, message: Message) -> None:
        """The device was told that its message is safe."""
        message.accepted = True
        self.told += 1
        told = {"driver": self.driver, "device": self.name, "id": message.id, "n": message.n}
        self._journal.write(json.dumps({**told, "sends": message.sends}) + "\n")


class Publisher(Device):
    """One MQTT client with a session that stays. A QoS 2 message is accepted with PUBREC, a QoS 1 message with PUBACK."""

    def __init__(
        self, driver: str, name: str, journals: Path, rate: float, qos: int, address: tuple[str, int]
    ) -> None:
        super().__init__(driver, name, journals, rate)
        self._qos = qos
        self._address = address
        self._waiting: dict[int, Message] = {}
        self._window = 20
        self._news = asyncio.Event()

    async def run(self, no_more: asyncio.Event) -> None:
        making = asyncio.create_task(self._make(no_more))
        while self._waiting or not making.done():
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, TimeoutError):
                await self._converse(making)
            await asyncio.sleep(RETRY_S)

    async def _make(self, no_more: asyncio.Event) -> None:
        while not no_more.is_set():
            if len(self._waiting) < self._window:
                packet_id = self.made % 65_535 + 1
                self._waiting[packet_id] = self.make()
                self._news.set()
            await asyncio.sleep(self.interval_s)
        self._news.set()

    async def _converse(self, making: asyncio.Task[None]) -> None:
        """One connection, to its end."""
        reader, writer = await asyncio.wait_for(asyncio.open_connection(*self._address), ANSWER_S)
        try:
            writer.write(self._connect())
            kind, body = await asyncio.wait_for(read_packet(reader), ANSWER_S)
            if kind >> 4 != CONNACK or body[1] != 0:
                self.complain(f"refused with {bytes((kind,)).hex()} {body.hex()}")
                return
            listening = asyncio.create_task(self._listen(reader, writer))
            try:
                await self._send(writer, making, listening)
            finally:
                listening.cancel()
                await asyncio.gather(listening, return_exceptions=True)
        finally:
            writer.close()

    async def _send(
        self, writer: asyncio.StreamWriter, making: asyncio.Task[None], listening: asyncio.Task[None]
    ) -> None:
        """What waits from before goes first, in its order; then what is new."""
        sent: set[int] = set()
        while not listening.done() and (self._waiting or not making.done()):
            self._news.clear()
            sent &= self._waiting.keys()
            for packet_id in [packet_id for packet_id in self._waiting if packet_id not in sent]:
                sent.add(packet_id)
                self._write(writer, packet_id, self._waiting[packet_id])
            await writer.drain()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), 1)

    def _write(self, writer: asyncio.StreamWriter, packet_id: int, message: Message) -> None:
        if writer.transport.is_closing():
            return  # asyncio would say so for each packet
        if message.accepted:
            writer.write(packet(PUBREL << 4 | 2, struct.pack(">H", packet_id)))
            return
        again = 8 if message.sends else 0
        message.sends += 1
        topic = text(f"demo/{self.name}/telemetry")
        writer.write(
            packet(PUBLISH << 4 | again | self._qos << 1, topic + struct.pack(">H", packet_id) + message.body)
        )

    async def _listen(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                kind, body = await read_packet(reader)
                (packet_id,) = struct.unpack_from(">H", body)
                message = self._waiting.get(packet_id)
                if kind >> 4 == PUBREC:
                    if message and not message.accepted:
                        self.write_down(message)
                    writer.write(packet(PUBREL << 4 | 2, struct.pack(">H", packet_id)))
                elif message and kind >> 4 == PUBACK:
                    self.write_down(message)
                    del self._waiting[packet_id]
                elif message and kind >> 4 == PUBCOMP:
                    del self._waiting[packet_id]
                self._news.set()
        self._news.set()

    def _connect(self) -> bytes:
        """Clean session off, user name and password, no keep-alive."""
        header = text("MQTT") + bytes((4, 0b1100_0000)) + struct.pack(">H", 0)
        return packet(CONNECT << 4, header + text(self.name) + text("demo") + text("demo-password"))


def text(value: str) -> bytes:
    return struct.pack(">H", len(value.encode())) + value.encode()


def packet(first: int, body: bytes) -> bytes:
    length = bytearray()
    rest = len(body)
    while True:
        rest, digit = divmod(rest, 128)
        length.append(digit | (0x80 if rest else 0))
        if not rest:
            return bytes((first,)) + bytes(length) + body


async def read_packet(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    (first,) = await reader.readexactly(1)
    length = shift = 0
    while True:
        (digit,) = await reader.readexactly(1)
        length |= (digit & 0x7F) << shift
        shift += 7
        if digit < 0x80:
            return first, await reader.readexactly(length)


class Poster(Device):
    """Posts one message at a time and repeats it, under the same key, until it is told 2xx."""

    def __init__(self, driver: str, name: str, journals: Path, rate: float, address: tuple[str, int]) -> None:
        super().__init__(driver, name, journals, rate)
        self._address = address
        self._connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def run(self, no_more: asyncio.Event) -> None:
        while not no_more.is_set():
            message = self.make()
            while not message.accepted:
                if not await self._post(message):
                    await asyncio.sleep(RETRY_S)
            await asyncio.sleep(self.interval_s)
        if self._connection:
            self._connection[1].close()

    async def _post(self, message: Message) -> bool:
        message.sends += 1
        try:
            async with asyncio.timeout(ANSWER_S):
                status = await self._ask(message)
        except (OSError, asyncio.IncompleteReadError, TimeoutError, ValueError):
            status = 0
        if not 200 <= status < 300:
            if status:
                self.complain(f"refused with {status}")
            if self._connection:
                self._connection[1].close()
                self._connection = None
            return False
        self.write_down(message)
        return True

    async def _ask(self, message: Message) -> int:
        if self._connection is None:
            self._connection = await asyncio.open_connection(*self._address)
        reader, writer = self._connection
        head = (
            f"POST /ingest/demo/{self.name}/reports HTTP/1.1\r\nHost: {self._address[0]}\r\n"
            f"Authorization: Bearer demo-token\r\nX-Device: {self.name}\r\nIdempotency-Key: {message.id}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(message.body)}\r\n\r\n"
        )
        writer.write(head.encode() + message.body)
        await writer.drain()
        answer = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower().split("\r\n")
        fields = dict(line.split(": ", 1) for line in answer[1:] if line)
        await reader.readexactly(int(fields.get("content-length", "0")))
        return int(answer[0].split()[1])


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Devices that deliver until SIGTERM, then until all is acknowledged."
    )
    parser.add_argument("--journals", required=True, type=Path)
    parser.add_argument("--mqtt", required=True)
    parser.add_argument("--http", required=True)
    parser.add_argument("--qos1", type=int, default=20, help="publishers with QoS 1")
    parser.add_argument("--qos2", type=int, default=10, help="publishers with QoS 2")
    parser.add_argument("--posters", type=int, default=10)
    parser.add_argument("--rate", type=float, default=20, help="messages a second of each device")
    return parser.parse_args(arguments)


def address(value: str) -> tuple[str, int]:
    host, _, port = value.rpartition(":")
    return host, int(port)


async def main(options: argparse.Namespace) -> None:
    options.journals.mkdir(parents=True, exist_ok=True)
    no_more = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, no_more.set)
    mqtt, http = address(options.mqtt), address(options.http)
    devices: list[Publisher | Poster] = [
        *(
            Publisher("floor", f"press-{number}", options.journals, options.rate, 1, mqtt)
            for number in range(1, options.qos1 + 1)
        ),
        *(
            Publisher("floor", f"robot-{number}", options.journals, options.rate, 2, mqtt)
            for number in range(1, options.qos2 + 1)
        ),
        *(
            Poster("web", f"scale-{number}", options.journals, options.rate, http)
            for number in range(1, options.posters + 1)
        ),
    ]
    async with asyncio.TaskGroup() as tasks:
        for device in devices:
            tasks.create_task(device.run(no_more))


if __name__ == "__main__":
    asyncio.run(main(parse(sys.argv[1:])))
