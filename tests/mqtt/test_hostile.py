"""Devices that mean no good, or are broken so that it looks like it: memory and descriptors stay bounded, the others are
served, and whoever is to be closed is closed by itself."""

import asyncio
import gc
import resource
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from drivers.mqtt.protocol import V311, Packet
from gateway.testing.conformance import open_sockets, settled
from gateway.testing.emit import FakeEmit
from tests.mqtt.rig import CONNACK, Client, ack, connect, front_door, gateway, publish
from tests.proof import INJECTED

pytestmark = pytest.mark.slow


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


async def served(port: int) -> None:
    client = await Client.open(port, connect("honest"), publish("a", b"1"))
    await client.expect(CONNACK, ack(Packet.PUBACK))


async def drip(client: Client, data: bytes) -> None:
    """A byte now and then, until the other side closes."""
    closed = asyncio.create_task(client.rest())
    for byte in data:
        await asyncio.wait([closed], timeout=0.02)
        if closed.done():
            break
        try:
            await client.send(bytes((byte,)))
        except ConnectionError:
            break
    assert await closed == b""


@pytest.mark.fault("repeat", "CONNECTs that come a byte at a time", "32")
async def test_connects_that_come_a_byte_at_a_time_are_closed(tmp_path: Path) -> None:
    """Each byte is a sign of life; only the whole CONNECT counts."""
    slow = connect("x" * 1000)
    async with gateway(tmp_path, connect_timeout=0.5) as one:
        before = open_sockets()
        clients = [await Client.open(one.port) for _ in range(100)]
        dripping = asyncio.gather(*(drip(client, slow) for client in clients))
        await served(one.port)
        await dripping
        for client in clients:
            client.cut()
        await settled(lambda: open_sockets() <= before + 2, "sockets are left")


@pytest.mark.fault("repeat", "a CONNECT of 256 MB", "32")
async def test_a_connect_of_256_mb_is_refused_by_its_length(tmp_path: Path) -> None:
    async with gateway(tmp_path, connect_timeout=3600) as one:
        client = await Client.open(one.port, b"\x10\xff\xff\xff\x7f")
        assert await client.rest() == b""
        await served(one.port)


@pytest.mark.fault("repeat", "packets that never end", "32")
async def test_packets_that_never_end_take_bounded_memory_over_all_clients() -> None:
    count, size = 300, 250_000
    unfinished = publish("a", bytes(size))[:-1]
    async with front_door(FakeEmit()) as port:
        before = resident_bytes()
        for number in range(count):
            client = await Client.open(port, connect(f"c{number}"))
            await client.expect(CONNACK)
            with suppress(ConnectionError):
                await client.send(unfinished)
        await served(port)
        gc.collect()
        assert resident_bytes() - before < count * size / 2


@pytest.mark.fault("repeat", "a client that reads nothing", "32")
async def test_a_client_that_reads_nothing_is_closed_when_it_falls_silent() -> None:
    """What it does not read must not keep it."""
    async with front_door(FakeEmit()) as port:
        narrow = socket.create_connection(("127.0.0.1", port))
        narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf = Client(*await asyncio.open_connection(sock=narrow))
        await deaf.send(connect("deaf", keep_alive=1))
        await deaf.expect(CONNACK)
        sending = asyncio.create_task(deaf.send(*[ack(Packet.PUBREL) * 50_000] * 150))
        await asyncio.wait([sending], timeout=60)
        deaf.cut()
        assert isinstance(sending.exception(), ConnectionError)


@pytest.mark.fault("repeat", "a storm of duplicates", "31")
async def test_a_storm_of_duplicates_is_answered_and_stored_once(tmp_path: Path) -> None:
    count = 50_000
    async with gateway(tmp_path) as one:
        client = await Client.open(one.port, connect("press", clean=False))
        await client.expect(CONNACK)
        storm = asyncio.create_task(client.send(*[publish("a", b"once", 2, 7, dup=True)] * count))
        await client.expect(ack(Packet.PUBREC, 7) * count)
        await storm
        assert await one.bodies() == [b"once"]
        await client.send(*[ack(Packet.PUBREL, 7)] * count)
        await client.expect(ack(Packet.PUBCOMP, 7) * count)
        assert len(one.queue.recall("mqtt/floor/qos2")) == 0


@pytest.mark.fault(
    "repeat", "storms of duplicates over kills and cuts; of QoS 1 those after the first carry tg.dup", "31"
)
async def test_storms_of_duplicates_over_kills(tmp_path: Path) -> None:
    """Half of each storm is answered before the gateway is killed; the device goes on where it was."""
    storms, count = 6, 500
    async with gateway(tmp_path) as one:
        for number in range(storms):
            client = await Client.open(one.port, connect("press", clean=False))
            await client.packet()
            again = number > 0
            await client.send(*[publish("a", b"two", 2, 7, dup=again)] * count)
            await client.send(*[publish("a", b"one", 1, 8, dup=again)] * count)
            await client.expect(ack(Packet.PUBREC, 7) * count, ack(Packet.PUBACK, 8) * (count // 2))
            if number % 2:
                client.cut()
            else:
                await one.kill_and_restart()
        bodies = await one.bodies()
        assert bodies.count(b"two") == 1
        found = [header.get("tg.dup") for header in await one.headers()]
        sent_again = [dup for body, dup in zip(bodies, found, strict=True) if body == b"one"]
        assert sent_again.count(b"1") == len(sent_again) - count
        client = await Client.open(one.port, connect("press", clean=False))
        await client.packet()
        await client.send(ack(Packet.PUBREL, 7) * 2, publish("a", b"another", 2, 7))
        await client.expect(ack(Packet.PUBCOMP, 7) * 2, ack(Packet.PUBREC, 7))
        assert (await one.bodies())[-1] == b"another"


@pytest.mark.fault("repeat", "up to 5,000 idle clients", "32")
async def test_five_thousand_idle_clients(
    tmp_path: Path, connections: int, record_property: Callable[[str, object], None]
) -> None:
    """Or as many as this process may have both ends of."""
    async with gateway(tmp_path, connections_max=connections + 1) as one:
        record_property(INJECTED, f"{connections:,} idle clients")
        sockets, memory = open_sockets(), resident_bytes()
        clients = []
        for number in range(connections):
            client = await Client.open(one.port, connect(f"c{number}", version=V311))
            await client.expect(CONNACK)
            clients.append(client)
        await served(one.port)
        assert resident_bytes() - memory < connections * 40_000  # both ends
        for client in clients:
            client.cut()
        await settled(lambda: open_sockets() <= sockets + 2, "sockets are left")
