"""Every driver in drivers/ passes the conformance suite."""

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

import drivers
from drivers import coap, http, modbus, mqtt, serial, simulated
from drivers.modbus.register import Register
from drivers.modbus.unit import Unit
from gateway.clock import SystemClock
from gateway.config.listeners import clashes
from gateway.driver import Context, Manifest
from gateway.port import PortSettings
from gateway.settings import Address
from gateway.testing.conformance import LINK_CHECKS, RUN_CHECKS, Bench, Check, Link, Peer, free_address
from gateway.testing.driver_folder import FOLDER_CHECKS, manifest
from gateway.testing.emit import FakeEmit
from gateway.testing.modbus_slave import ModbusUnit, SerialSlave
from gateway.testing.tty import Device

FOLDERS = sorted(path.parent for path in Path(drivers.__path__[0]).glob("*/__init__.py"))


class HttpLink:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, body: bytes) -> None:
        head = b"POST /ingest/site/bench HTTP/1.1\r\nHost: bench\r\nContent-Length: %d\r\n\r\n" % len(body)
        self._writer.write(head + body)
        await self._writer.drain()

    async def acknowledged(self) -> bool:
        try:
            head = await self._reader.readuntil(b"\r\n\r\n")
            lines = head.lower().split(b"\r\n")
            length = next(int(line[15:]) for line in lines if line.startswith(b"content-length:"))
            await self._reader.readexactly(length)
        except (asyncio.IncompleteReadError, ConnectionError):
            return False
        return head.startswith(b"HTTP/1.1 2")

    async def close(self) -> None:
        self._writer.transport.abort()


class HttpPeer:
    def config(self, address: Address) -> http.Config:
        return http.Config(listen=address, anonymous=True)

    async def connect(self, address: Address) -> Link:
        return HttpLink(*await asyncio.open_connection(*address))


class MqttLink:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._number = 0

    async def send(self, body: bytes) -> None:
        self._number += 1
        packet = b"\0\x04site" + self._number.to_bytes(2, "big") + body
        self._writer.write(b"\x32" + bytes((len(packet) & 0x7F | 0x80, len(packet) >> 7)) + packet)
        await self._writer.drain()

    async def acknowledged(self) -> bool:
        try:
            return (await self._reader.readexactly(4))[0] == 0x40
        except (asyncio.IncompleteReadError, ConnectionError):
            return False

    async def close(self) -> None:
        self._writer.transport.abort()


class MqttPeer:
    _clients = 0

    def config(self, address: Address) -> mqtt.Config:
        return mqtt.Config(listen=address, anonymous=True)

    async def connect(self, address: Address) -> Link:
        MqttPeer._clients += 1
        reader, writer = await asyncio.open_connection(*address)
        name = b"bench-%d" % MqttPeer._clients
        writer.write(
            bytes((0x10, 12 + len(name))) + b"\0\x04MQTT\x04\x02\0\x3c\0" + bytes((len(name),)) + name
        )
        assert await reader.readexactly(4) == b"\x20\x02\0\0"
        return MqttLink(reader, writer)


class ModbusPeer:
    connect: Callable[[Address], Awaitable[Link]] | None = None

    def __init__(self) -> None:
        self._folder = TemporaryDirectory()
        self._slave: SerialSlave | None = None

    def config(self, address: Address) -> modbus.Config:
        if self._slave is None:
            self._slave = SerialSlave({1: ModbusUnit({0: 1})}, Path(self._folder.name) / "port")
        port = PortSettings(port=str(self._slave.path))
        unit = Unit(address=1, device="bench", registers={"n": Register(at=0)}, interval=0.01)
        return modbus.Config(serial=port, answer_timeout=0.05, units=[unit])


class CoapLink(asyncio.DatagramProtocol):
    """A device that sends what was not answered again, until nobody is there any more."""

    def __init__(self) -> None:
        self._number = 0
        self._open: dict[bytes, bytes] = {}
        self._codes: asyncio.Queue[int] = asyncio.Queue()

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self._transport = transport

    def datagram_received(self, data: bytes, address: Any) -> None:
        if self._open.pop(data[2:4], None):
            self._codes.put_nowait(data[1])

    def error_received(self, error: Exception) -> None:
        self._codes.put_nowait(0)

    async def ping(self) -> None:
        """Raises ConnectionRefusedError."""
        self._open[b"\xff\xff"] = b"\x40\0\xff\xff"
        self._transport.sendto(b"\x40\0\xff\xff")
        await self._codes.get()
        if self._open:
            self._transport.abort()
            raise ConnectionRefusedError

    async def send(self, body: bytes) -> None:
        self._number += 1
        number = self._number.to_bytes(2, "big")
        self._open[number] = b"\x42\x02" + number + number + b"\xb4site\xff" + body
        self._transport.sendto(self._open[number])

    async def acknowledged(self) -> bool:
        while True:
            try:
                async with asyncio.timeout(0.5):
                    return await self._codes.get() >> 5 == 2
            except TimeoutError:
                for message in self._open.values():
                    self._transport.sendto(message)

    async def close(self) -> None:
        self._transport.abort()


class CoapPeer:
    def config(self, address: Address) -> coap.Config:
        return coap.Config(listen=address, anonymous=True)

    async def connect(self, address: Address) -> Link:
        loop = asyncio.get_running_loop()
        _, link = await loop.create_datagram_endpoint(CoapLink, remote_addr=address)
        await link.ping()
        return link


class SimulatedPeer:
    connect: Callable[[Address], Awaitable[Link]] | None = None

    def config(self, address: Address) -> simulated.Config:
        return simulated.Config(devices=2, interval=0.01)


class SerialPeer:
    """A device that answers whatever it is asked."""

    connect: Callable[[Address], Awaitable[Link]] | None = None

    def __init__(self) -> None:
        self._device: Device | None = None

    def config(self, address: Address) -> serial.Config:
        if self._device is None:
            self._device = Device(Path(tempfile.mkdtemp(), "port"), lambda asked: b"{}\n")
        else:
            self._device.unplug()
            self._device.plug()
        asks = serial.Request(send="?", interval=0.01)
        return serial.Config(port=str(self._device.path), requests={"probe": asks})


PEERS: dict[str, Peer] = {
    "coap": CoapPeer(),
    "http": HttpPeer(),
    "modbus": ModbusPeer(),
    "mqtt": MqttPeer(),
    "serial": SerialPeer(),
    "simulated": SimulatedPeer(),
}


def cases() -> list[Any]:
    found = []
    for folder in FOLDERS:
        peer = PEERS.get(folder.name)
        for check in (*RUN_CHECKS, *(LINK_CHECKS if peer is None or peer.connect else ())):
            found.append(pytest.param(folder, check, id=f"{folder.name}-{check.__name__}"))
    return found


@pytest.mark.parametrize("check", FOLDER_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_folder(folder: Path, check: Callable[[Path], None]) -> None:
    check(folder)


@pytest.mark.parametrize(("folder", "check"), cases())
async def test_run(folder: Path, check: Check) -> None:
    found: Manifest = manifest(folder)
    assert found.name in PEERS, "PEERS has nothing that plays this driver's devices"
    await check(Bench(found, PEERS[found.name]))


@pytest.mark.parametrize("name", ["coap", "http", "mqtt"])
@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("0.0.0.0", "::"),
        ("::", "0.0.0.0"),
        ("::", "127.0.0.1"),
        ("::", "::1"),
        ("::1", "0.0.0.0"),
        ("::1", "127.0.0.1"),
        ("0.0.0.0", "127.0.0.1"),
    ],
)
async def test_check_knows_which_addresses_two_drivers_can_not_share(
    name: str, first: str, second: str
) -> None:
    """It says so of exactly those that could not be listened on."""
    port = free_address().port
    driver = manifest(next(folder for folder in FOLDERS if folder.name == name))
    settings = [PEERS[name].config(Address(host, port)) for host in (first, second)]
    told = list(clashes({f"drivers.{index}": one for index, one in enumerate(settings)}))
    made = [driver.load()(one, Context("bench", SystemClock())) for one in settings]
    one = asyncio.create_task(made[0].run(FakeEmit()))
    await asyncio.sleep(0.05)
    other = asyncio.create_task(made[1].run(FakeEmit()))
    ended, _ = await asyncio.wait([one, other], timeout=0.1)
    for task in (one, other):
        task.cancel()
    why = [str(result) for result in await asyncio.gather(one, other, return_exceptions=True) if str(result)]
    assert ended == ({other} if told else set())
    there = f"[{second}]" if ":" in second else second
    assert why == ([f"can't listen on {there}:{port}: Address already in use"] if told else [])
