"""Devices that nobody tells whether a reading is safe: units on a Modbus RTU line and a scale that talks by itself, each
behind a pty, and a device that speaks Modbus TCP. Knows nothing of the gateway's code.

Every reading carries a count that grows by one and a check that depends on it, in 32-bit pairs of registers, so that a
reading put together from two, or an old one, can be told. What is served is written down before it leaves the device, one
JSON object a line in DIRECTORY/<driver>.served; `time` is time.monotonic(), which all processes of a machine share:
    {"device": "meter-1", "time": 81.5, "values": {"count": 17, ...}}

    field.py --journals DIRECTORY --ports DIRECTORY --modbus-tcp HOST:PORT --rate 10

The ports are PORTS/meters and PORTS/scale; "ready" on standard output says that they are there. A line on standard input
lets the scale begin; after a second one nothing is served any more, and "silent" says so. The ports stay until
standard input ends, so that what was served can still be read.
"""

import argparse
import asyncio
import contextlib
import fcntl
import json
import math
import os
import struct
import sys
import termios
import time
import tty
from collections.abc import Mapping, Sequence
from functools import reduce
from operator import xor
from pathlib import Path

HOLDING, INPUT = 3, 4
REGISTERS = 6
REGISTERS_MAX = 125
ILLEGAL_FUNCTION, ILLEGAL_ADDRESS, ILLEGAL_VALUE, NO_SUCH_TARGET = 1, 2, 3, 11
REQUEST_BYTES = 8
COUNT_FIRST = 65_530
"""The count's lower register overflows soon: half of one reading and half of the next make a number that is far off."""

DAMAGED_EVERY = 20
FREE_INTERVAL_S = 0.1


def check(count: int, number: int) -> int:
    return (count * 2_654_435_761 + number) % (1 << 32)


class Served:
    def __init__(self, journals: Path, driver: str) -> None:
        self._journal = (journals / f"{driver}.served").open("a", buffering=1)

    def write_down(self, device: str, values: Mapping[str, int | float | str]) -> None:
        line = {"device": device, "time": time.monotonic(), "values": values}
        self._journal.write(json.dumps(line) + "\n")


class Meter:
    """Count, check and power at six registers of one table. A read of a part of them is a reading that no one gets."""

    def __init__(
        self, served: Served, device: str, unit: int, function: int, at: int, low_word_first: bool = False
    ) -> None:
        self._served = served
        self._device = device
        self._unit = unit
        self._function = function
        self._at = at
        self._low_word_first = low_word_first
        self._count = COUNT_FIRST

    def answer(self, request: bytes) -> bytes:
        """PDU to PDU."""
        if request[0] not in (HOLDING, INPUT):
            return refusal(request, ILLEGAL_FUNCTION)
        if len(request) != 5:
            return refusal(request, ILLEGAL_VALUE)
        function, start, size = struct.unpack(">BHH", request)
        if not 1 <= size <= REGISTERS_MAX:
            return refusal(request, ILLEGAL_VALUE)
        first = start - self._at
        if function != self._function or first < 0 or first + size > REGISTERS:
            return refusal(request, ILLEGAL_ADDRESS)
        self._count += 1
        power = 1000 + round(300 * math.sin(self._count / 40))
        values = {"count": self._count, "check": check(self._count, self._unit), "power": power}
        if size == REGISTERS:
            self._served.write_down(self._device, values)
        registers = b"".join(self._pair(value) for value in values.values())
        return bytes((function, 2 * size)) + registers[2 * first :][: 2 * size]

    def _pair(self, value: int) -> bytes:
        high, low = divmod(value, 1 << 16)
        return struct.pack(">HH", *((low, high) if self._low_word_first else (high, low)))


def refusal(request: bytes, code: int) -> bytes:
    return bytes((request[0] | 0x80, code))


class Port:
    """A serial port: a pty, with a link to its end for the gateway."""

    def __init__(self, link: Path) -> None:
        # While this process holds the gateway's end, too, reading goes on when the gateway is gone.
        self.fd, self._other = os.openpty()
        tty.setraw(self._other)
        os.set_blocking(self.fd, False)
        link.unlink(missing_ok=True)
        link.symlink_to(os.ttyname(self._other))

    def write(self, data: bytes) -> None:
        """What nobody reads is lost when there is no more room, as on a wire."""
        with contextlib.suppress(BlockingIOError):
            os.write(self.fd, data)

    async def stay_free(self) -> None:
        """A real port is free again when the program is killed that had it for itself; a held pty is not."""
        while True:
            fcntl.ioctl(self._other, termios.TIOCNXCL)
            await asyncio.sleep(FREE_INTERVAL_S)


class RtuLine:
    """Units on one line: a request with a right checksum is answered by the unit that it names, if there is one."""

    def __init__(self, port: Port, units: Mapping[int, Meter]) -> None:
        self.silent = False
        self._port = port
        self._units = units
        self._received = bytearray()
        asyncio.get_running_loop().add_reader(port.fd, self._read)

    def _read(self) -> None:
        self._received += os.read(self._port.fd, 4096)
        while len(self._received) >= REQUEST_BYTES:
            frame = bytes(self._received[:REQUEST_BYTES])
            if crc(frame[:-2]) != frame[-2:]:
                del self._received[0]
                continue
            del self._received[:REQUEST_BYTES]
            unit = self._units.get(frame[0])
            if unit is not None and not self.silent:
                answer = frame[:1] + unit.answer(frame[1:-2])
                self._port.write(answer + crc(answer))


def crc(data: bytes) -> bytes:
    """Modbus over Serial Line V1.02, 6.2.2."""
    value = 0xFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0xA001 if value & 1 else 0)
    return struct.pack("<H", value)


class TcpSlave:
    """Each frame has a head: transaction, protocol 0, number of bytes that follow, unit."""

    def __init__(self, units: Mapping[int, Meter]) -> None:
        self.silent = False
        self._units = units

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                transaction, protocol, size, unit = struct.unpack(">HHHB", await reader.readexactly(7))
                if protocol != 0 or not 2 <= size <= 254:
                    break
                request = await reader.readexactly(size - 1)
                if self.silent:
                    continue
                meter = self._units.get(unit)
                answer = meter.answer(request) if meter else refusal(request, NO_SUCH_TARGET)
                writer.write(struct.pack(">HHHB", transaction, 0, len(answer) + 1, unit) + answer)
                await writer.drain()
        writer.close()


class Scale:
    """Says "\\x02ST,65531,1846233,+  12.50,kg\\x03" and the xor of all behind STX. Some frames are damaged on their way."""

    def __init__(self, port: Port, served: Served, device: str, rate: float) -> None:
        self.silent = False
        self._port = port
        self._served = served
        self._device = device
        self._interval_s = 1 / rate
        self._count = COUNT_FIRST

    async def talk(self) -> None:
        due = time.monotonic()
        while not self.silent:
            self._say()
            due = max(due + self._interval_s, time.monotonic())
            await asyncio.sleep(due - time.monotonic())

    def _say(self) -> None:
        self._count += 1
        weight = round(12.5 + 4 * math.sin(self._count / 30), 2)
        proof = check(self._count, 0)
        body = f"ST,{self._count},{proof},+{weight:7.2f},kg\x03".encode()
        frame = bytearray(b"\x02" + body + bytes((reduce(xor, body),)))
        if self._count % DAMAGED_EVERY == 0:
            frame[6] ^= 1
        else:
            values: dict[str, int | float | str] = {
                "state": "ST",
                "count": self._count,
                "check": proof,
                "weight": weight,
            }
            self._served.write_down(self._device, values)
        self._port.write(bytes(frame))


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Devices that serve readings and are never told more.")
    parser.add_argument("--journals", required=True, type=Path)
    parser.add_argument("--ports", required=True, type=Path, help="directory for the links to the ptys")
    parser.add_argument("--modbus-tcp", required=True, metavar="HOST:PORT")
    parser.add_argument("--rate", type=float, default=10, help="frames a second of the scale")
    return parser.parse_args(arguments)


async def main(options: argparse.Namespace) -> None:
    options.journals.mkdir(parents=True, exist_ok=True)
    options.ports.mkdir(parents=True, exist_ok=True)
    meters, dryer = Served(options.journals, "meters"), Served(options.journals, "dryer")
    line_port, scale_port = Port(options.ports / "meters"), Port(options.ports / "scale")
    line = RtuLine(
        line_port,
        {
            1: Meter(meters, "meter-1", 1, HOLDING, 0),
            2: Meter(meters, "meter-2", 2, INPUT, 100, low_word_first=True),
            3: Meter(meters, "meter-3", 3, HOLDING, 40),
        },
    )
    slave = TcpSlave({1: Meter(dryer, "dryer", 1, INPUT, 0)})
    scale = Scale(scale_port, Served(options.journals, "scale"), "scale", options.rate)
    host, _, port = options.modbus_tcp.rpartition(":")
    server = await asyncio.start_server(slave.serve, host, int(port))
    loop, news = asyncio.get_running_loop(), asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(news), sys.stdin)
    async with server, asyncio.TaskGroup() as group:
        tasks = [group.create_task(port.stay_free()) for port in (line_port, scale_port)]
        print("ready", flush=True)
        if await news.readline():
            tasks.append(group.create_task(scale.talk()))
        if await news.readline():
            line.silent = slave.silent = scale.silent = True
            print("silent", flush=True)
        await news.read()
        for task in tasks:
            task.cancel()


if __name__ == "__main__":
    asyncio.run(main(parse(sys.argv[1:])))
