"""Modbus TCP: its transaction ids tell a late answer from the one that is waited for."""

import asyncio
import os
import re
import socket
from typing import cast

from drivers.modbus.line import Channel, Line, Lost, NoAnswer, Received
from drivers.modbus.protocol import Request, tcp_answer, tcp_frame
from gateway.errors import DeviceError
from gateway.settings import Address

CONNECT_S = 5.0
TRANSACTIONS = 65_536


class Connection(asyncio.Protocol):
    """A Channel over TCP."""

    def __init__(self, received: Received, lost: Lost) -> None:
        self._transport: asyncio.Transport | None = None
        self._received = received
        self._lost = lost

    @classmethod
    async def open(cls, address: Address, received: Received, lost: Lost) -> "Connection":
        """Raises DeviceError."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_S):
                _, connection = await loop.create_connection(lambda: cls(received, lost), *address)
        except OSError as error:
            raise DeviceError(f"can't connect to {address}: {_words(error)}") from error
        return connection

    def write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def data_received(self, data: bytes) -> None:
        if self._transport is not None:
            self._received(data)

    def connection_lost(self, error: Exception | None) -> None:
        if self._transport is not None:
            self._transport = None
            self._lost(NoAnswer("connection closed"))


def _words(error: OSError) -> str:
    """Of a connection that failed. asyncio makes one error without a number of those of several addresses."""
    if isinstance(error, TimeoutError) and error.errno is None:
        return f"no answer in {CONNECT_S:g} s"
    if isinstance(error, socket.gaierror):
        return f"no such host: {error.strerror}"
    number = re.search(r"\[Errno ([0-9]+)\]", str(error))
    return os.strerror(int(number[1])).lower() if number else str(error)


class TcpLine(Line):
    _transaction = 0
    _unit = 0
    _other: int | None = None

    def _send(self, channel: Channel, unit: int, request: Request) -> float:
        self._transaction = (self._transaction + 1) % TRANSACTIONS
        self._unit, self._other = unit, None
        channel.write(tcp_frame(self._transaction, unit, request.pdu))
        return 0.0

    def _take(self, received: bytes) -> None:
        self._received += received
        try:
            while (frame := tcp_answer(self._received)) is not None:
                del self._received[: frame.size]
                if self._answer is None or frame.transaction != self._transaction:
                    self._count("late answers", 1)
                elif frame.unit != self._unit:
                    self._count("answers of a wrong unit", 1)
                    self._other = frame.unit
                else:
                    self._found(frame.pdu)
        except ValueError:
            self._count("frames that are not Modbus", 1)
            self.close()
            self._lose(NoAnswer("not a Modbus answer"))

    def _other_unit(self) -> int | None:
        return self._other

    def _restart(self) -> None:
        self.close()
