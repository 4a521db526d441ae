"""Modbus units that do what they are told to do wrong: on a pseudo-terminal at a simulated line rate, or over TCP.

Written from the specification alone, and shares nothing with the driver that is tested against it.
"""

import asyncio
import os
import pty
import select
import struct
import threading
import time
import tty
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, TypeVar

Value = TypeVar("Value", int, bool)

CHUNK_BYTES = 16
"""What a serial chip hands over at a time."""


class Refusal(Exception):
    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class ModbusUnit:
    """Its tables hold only the addresses that it has; `registers_max` is what it gives in one answer."""

    def __init__(
        self,
        holding: Mapping[int, int] | None = None,
        inputs: Mapping[int, int] | None = None,
        coils: Mapping[int, bool] | None = None,
        discrete: Mapping[int, bool] | None = None,
        registers_max: int = 125,
    ) -> None:
        self.holding = dict(holding or {})
        self.inputs = dict(inputs or {})
        self.coils = dict(coils or {})
        self.discrete = dict(discrete or {})
        self.registers_max = registers_max

    def answer(self, pdu: bytes) -> bytes:
        try:
            return self._answer(pdu)
        except Refusal as refusal:
            return bytes((pdu[0] | 0x80, refusal.code))

    def _answer(self, pdu: bytes) -> bytes:
        function, at, number = struct.unpack_from(">BHH", pdu)
        match function:
            case 1 | 2:
                bits = _found(self.coils if function == 1 else self.discrete, at, number)
                data = bytes(
                    sum(bit << place for place, bit in enumerate(bits[first : first + 8]))
                    for first in range(0, number, 8)
                )
                return bytes((function, len(data))) + data
            case 3 | 4:
                return self._registers(function, self.holding if function == 3 else self.inputs, at, number)
            case 5:
                _found(self.coils, at, 1)
                self.coils[at] = number == 0xFF00
            case 6:
                _found(self.holding, at, 1)
                self.holding[at] = number
            case 15:
                _found(self.coils, at, number)
                for place in range(number):
                    self.coils[at + place] = bool(pdu[6 + place // 8] >> place % 8 & 1)
                return pdu[:5]
            case 16:
                self._write(at, number, pdu[6:])
                return pdu[:5]
            case 22:
                ands, ors = struct.unpack_from(">HH", pdu, 3)
                _found(self.holding, at, 1)
                self.holding[at] = self.holding[at] & ands | ors & ~ands & 0xFFFF
            case 23:
                write_at, count = struct.unpack_from(">HH", pdu, 5)
                self._write(write_at, count, pdu[10:])
                return self._registers(function, self.holding, at, number)
            case _:
                raise Refusal(1)
        return pdu

    def _registers(self, function: int, table: Mapping[int, int], at: int, count: int) -> bytes:
        if count > self.registers_max:
            raise Refusal(3)
        return bytes((function, 2 * count)) + struct.pack(f">{count}H", *_found(table, at, count))

    def _write(self, at: int, count: int, data: bytes) -> None:
        _found(self.holding, at, count)
        for place, value in enumerate(struct.unpack_from(f">{count}H", data)):
            self.holding[at + place] = value


def _found(table: Mapping[int, Value], at: int, count: int) -> list[Value]:
    if any(at + place not in table for place in range(count)):
        raise Refusal(2)
    return [table[at + place] for place in range(count)]


class Asked(NamedTuple):
    """A request, when it was whole (monotonic seconds), and the frame that is the right answer; b"" without a unit."""

    at: float
    unit: int
    pdu: bytes
    answer: bytes


class Part(NamedTuple):
    """Bytes of an answer, and how long the slave waits before it sends them."""

    delay_s: float
    data: bytes


Behaviour = Callable[[Asked], Iterable[Part]]


def frame(unit: int, pdu: bytes) -> bytes:
    """An RTU frame."""
    crc = 0xFFFF
    for byte in bytes((unit,)) + pdu:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ 0xA001 * (crc & 1)
    return bytes((unit,)) + pdu + struct.pack("<H", crc)


class SerialSlave:
    """All units of a line, at the other end of `path`, a link to a pseudo-terminal; in a thread until `close`.

    Requests are answered one after the other, as on a line. `behave` says how; by itself `answer_s` later and right.
    """

    def __init__(
        self, units: dict[int, ModbusUnit], path: Path, *, character_s: float = 0.0, answer_s: float = 0.0
    ) -> None:
        self.units = units
        self.path = path
        self.asked: list[Asked] = []
        self.echo = False
        self.behave: Behaviour = lambda asked: (Part(answer_s, asked.answer),) if asked.answer else ()
        self._character_s = character_s
        self._carried = 0.0
        self._master, self._end = pty.openpty()
        tty.setraw(self._end)
        path.unlink(missing_ok=True)
        path.symlink_to(os.ttyname(self._end))
        self._stop = os.eventfd(0)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Unplugged."""
        os.eventfd_write(self._stop, 1)
        self._thread.join()
        for fd in (self._end, self._master, self._stop):
            os.close(fd)

    def say(self, data: bytes) -> None:
        """Bytes that nobody asked for."""
        os.write(self._master, data)

    def _serve(self) -> None:
        received = b""
        while True:
            ready, _, _ = select.select((self._master, self._stop), (), ())
            if self._stop in ready:
                return
            received += os.read(self._master, 4096)
            size = _request_bytes(received)
            if size is None or len(received) < size:
                continue
            request, received = received[:size], b""
            self._carried = time.monotonic()
            self._line(len(request))
            if self.echo:
                os.write(self._master, request)
            if frame(request[0], request[1:-2]) == request:
                self._respond(request[0], request[1:-2])

    def _respond(self, unit: int, pdu: bytes) -> None:
        known = self.units.get(unit)
        answer = b"" if known is None else frame(unit, known.answer(pdu))
        asked = Asked(time.monotonic(), unit, pdu, answer)
        self.asked.append(asked)
        for part in self.behave(asked):
            if part.delay_s:
                time.sleep(part.delay_s)
                self._carried += part.delay_s
            for first in range(0, len(part.data), CHUNK_BYTES):
                chunk = part.data[first : first + CHUNK_BYTES]
                self._line(len(chunk))
                os.write(self._master, chunk)

    def _line(self, characters: int) -> None:
        """Wait until the line has carried so many more. A sleep that was too long shortens the next."""
        if self._character_s:
            self._carried += characters * self._character_s
            time.sleep(max(0.0, self._carried - time.monotonic()))


def _request_bytes(received: bytes) -> int | None:
    """Length of the RTU request that begins here; None if that can't be told yet."""
    if len(received) < 2:
        return None
    match received[1]:
        case 15 | 16:
            return 9 + received[6] if len(received) > 6 else None
        case 22:
            return 10
        case 23:
            return 13 + received[10] if len(received) > 10 else None
        case _:
            return 8


class TcpAsked(NamedTuple):
    transaction: int
    unit: int
    pdu: bytes
    answer: bytes


def tcp_frame(transaction: int, unit: int, pdu: bytes) -> bytes:
    return struct.pack(">HHHB", transaction, 0, len(pdu) + 1, unit) + pdu


class TcpSlave:
    """Units behind one address. `behave` gives the parts of an answer; by itself one, at once and right."""

    def __init__(self, units: dict[int, ModbusUnit]) -> None:
        self.units = units
        self.asked: list[TcpAsked] = []
        self.port = 0
        self.connections = 0
        self.behave: Callable[[TcpAsked], Sequence[Part]] = lambda asked: (
            (Part(0.0, asked.answer),) if asked.answer else ()
        )
        self._server: asyncio.Server | None = None
        self._serving: dict[asyncio.StreamWriter, asyncio.Task[None]] = {}

    async def listen(self) -> None:
        """On `port`; a free one for 0."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    def cut(self) -> None:
        """Close all connections."""
        for writer in self._serving:
            writer.transport.abort()

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            self.cut()
            await asyncio.gather(*self._serving.values())

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        if task is not None:
            self._serving[writer] = task
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                transaction, _, length, unit = struct.unpack(">HHHB", await reader.readexactly(7))
                pdu = await reader.readexactly(length - 1)
                known = self.units.get(unit)
                answer = b"" if known is None else tcp_frame(transaction, unit, known.answer(pdu))
                asked = TcpAsked(transaction, unit, pdu, answer)
                self.asked.append(asked)
                for part in self.behave(asked):
                    await asyncio.sleep(part.delay_s)
                    writer.write(part.data)
        self._serving.pop(writer)
        writer.close()
