"""The link that tests break, against a server that answers every Kafka frame with as many bytes as it got."""

import asyncio
import contextlib
import struct
import time
from collections.abc import AsyncIterator

import pytest

from gateway.testing.proxy import DOWN, UP, Api, Proxy


class Server:
    """Answers each frame after its length field was read; remembers what arrived."""

    def __init__(self) -> None:
        self.arrived: list[bytes] = []
        self.news = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                (length,) = struct.unpack(">i", await reader.readexactly(4))
                body = await reader.readexactly(length)
                self.arrived.append(body)
                self.news.set()
                writer.write(struct.pack(">ii", length, struct.unpack_from(">i", body, 4)[0]) + body[4:])
        writer.close()


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def ask(self, api_key: int, correlation_id: int, size: int = 20) -> None:
        self.writer.write(struct.pack(">ihhi", size, api_key, 0, correlation_id) + bytes(size - 8))

    async def answer(self) -> int:
        length, correlation_id = struct.unpack(">ii", await self.reader.readexactly(8))
        await self.reader.readexactly(length - 4)
        return int(correlation_id)


@pytest.fixture
async def server() -> AsyncIterator[tuple[Server, str]]:
    served = Server()
    listener = await asyncio.start_server(served.serve, "127.0.0.1", 0)
    host, port = listener.sockets[0].getsockname()
    yield served, f"{host}:{port}"
    listener.close()


@pytest.fixture
async def proxy(server: tuple[Server, str]) -> AsyncIterator[Proxy]:
    async with Proxy(server[1]) as link:
        yield link


@contextlib.asynccontextmanager
async def connected(proxy: Proxy) -> AsyncIterator[Client]:
    host, _, port = proxy.address.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield Client(reader, writer)
    finally:
        writer.close()


async def silent(client: Client) -> bool:
    try:
        await asyncio.wait_for(client.answer(), 0.2)
    except TimeoutError:
        return True
    return False


async def test_frames_pass_and_are_logged_with_their_api_key_in_both_directions(proxy: Proxy) -> None:
    async with connected(proxy) as client:
        client.ask(Api.PRODUCE, 1)
        client.ask(Api.END_TXN, 2, size=300_000)
        assert [await client.answer(), await client.answer()] == [1, 2]
    assert {(frame.direction, frame.api_key, frame.correlation_id, frame.size) for frame in proxy.frames} == {
        (UP, Api.PRODUCE, 1, 24),
        (DOWN, Api.PRODUCE, 1, 24),
        (UP, Api.END_TXN, 2, 300_004),
        (DOWN, Api.END_TXN, 2, 300_004),
    }
    assert (await proxy.seen(Api.END_TXN, DOWN)).correlation_id == 2


async def test_cut_resets_and_refuses_until_restored(proxy: Proxy) -> None:
    async with connected(proxy) as client:
        client.ask(Api.PRODUCE, 1)
        await client.answer()
        await proxy.cut()
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await client.answer()
    with pytest.raises(ConnectionRefusedError):
        async with connected(proxy):
            pass
    await proxy.restore()
    async with connected(proxy) as client:
        client.ask(Api.PRODUCE, 2)
        assert await client.answer() == 2


async def test_a_held_request_keeps_those_behind_it_and_passes_on_release(
    proxy: Proxy, server: tuple[Server, str]
) -> None:
    trap = proxy.hold(Api.END_TXN, UP)
    async with connected(proxy) as client:
        client.ask(Api.PRODUCE, 1)
        client.ask(Api.END_TXN, 2)
        client.ask(Api.PRODUCE, 3)
        assert await client.answer() == 1
        await asyncio.wait_for(trap.reached.wait(), 5)
        assert await silent(client)
        assert len(server[0].arrived) == 1
        trap.release()
        assert [await client.answer(), await client.answer()] == [2, 3]


async def test_a_held_request_arrives_although_its_client_has_gone(
    proxy: Proxy, server: tuple[Server, str]
) -> None:
    trap = proxy.hold(Api.END_TXN, UP)
    async with connected(proxy) as client:
        client.ask(Api.END_TXN, 2)
        await asyncio.wait_for(trap.reached.wait(), 5)
    assert server[0].arrived == []
    trap.release()
    await asyncio.wait_for(server[0].news.wait(), 5)


async def test_a_held_answer_shows_that_the_request_was_done(
    proxy: Proxy, server: tuple[Server, str]
) -> None:
    trap = proxy.hold(Api.END_TXN, DOWN, skip=1)
    async with connected(proxy) as client:
        client.ask(Api.END_TXN, 1)
        assert await client.answer() == 1
        client.ask(Api.END_TXN, 2)
        await asyncio.wait_for(trap.reached.wait(), 5)
        assert len(server[0].arrived) == 2
        assert await silent(client)
        trap.release()
        assert await client.answer() == 2


@pytest.mark.parametrize("count", [0, 1, 23])
async def test_cut_within_an_answer_delivers_so_many_bytes(proxy: Proxy, count: int) -> None:
    trap = proxy.cut_in(Api.PRODUCE, DOWN, count)
    async with connected(proxy) as client:
        client.ask(Api.PRODUCE, 1)
        received = bytearray()
        with contextlib.suppress(ConnectionResetError):
            while byte := await client.reader.read(1):
                received += byte
        assert len(received) <= count
    assert trap.reached.is_set()


async def test_cut_within_a_request_keeps_it_from_being_done(
    proxy: Proxy, server: tuple[Server, str]
) -> None:
    proxy.cut_in(Api.PRODUCE, UP, 23)
    async with connected(proxy) as client:
        client.ask(Api.PRODUCE, 1)
        with contextlib.suppress(ConnectionResetError):
            assert await client.reader.read() == b""
    assert server[0].arrived == []


async def test_cut_after_counts_bytes_of_all_frames(proxy: Proxy, server: tuple[Server, str]) -> None:
    proxy.cut_after(UP, 30)
    async with connected(proxy) as client:
        client.ask(Api.PRODUCE, 1)
        assert await client.answer() == 1
        client.ask(Api.PRODUCE, 2)
        with contextlib.suppress(ConnectionResetError):
            assert await client.reader.read() == b""
    assert len(server[0].arrived) == 1


async def test_a_black_hole_is_silent_and_its_connections_stay_so(proxy: Proxy) -> None:
    async with connected(proxy) as before, connected(proxy) as after:
        proxy.black_hole()
        before.ask(Api.PRODUCE, 1)
        assert await silent(before)
        await proxy.restore()
        before.ask(Api.PRODUCE, 2)
        assert await silent(before)
        after.ask(Api.PRODUCE, 1)
        assert await after.answer() == 1


async def test_delay_and_rate_slow_the_link_down(proxy: Proxy) -> None:
    async with connected(proxy) as client:
        proxy.shape(UP, delay_s=0.1)
        proxy.shape(DOWN, bytes_per_s=10_000)
        start = time.monotonic()
        client.ask(Api.PRODUCE, 1, size=1000)
        await client.answer()
        assert time.monotonic() - start >= 0.15


async def test_bytes_that_are_no_kafka_pass_when_not_taken_apart(server: tuple[Server, str]) -> None:
    async with Proxy(server[1], taken_apart=False) as proxy, connected(proxy) as client:
        client.ask(Api.PRODUCE, 1)
        assert await client.answer() == 1
        assert {frame.api_key for frame in proxy.frames} == {-1}
