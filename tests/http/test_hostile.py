"""Senders that mean no good, or are broken so that it looks like it: they end by themselves, and the others are served."""

import asyncio
import resource
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from gateway.testing.conformance import open_sockets, settled
from tests.http.rig import Client, Gateway, gateway, post
from tests.proof import INJECTED

pytestmark = pytest.mark.slow


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


async def served(one: Gateway) -> None:
    client = await one.client()
    await client.send(post(b"1"))
    assert (await client.answer()).status == 200


async def drip(client: Client, data: bytes) -> int:
    """A byte now and then, until there is an answer: its status."""
    answer = asyncio.create_task(client.answer())
    for byte in data:
        await asyncio.wait([answer], timeout=0.02)
        if answer.done():
            break
        await client.send(bytes((byte,)))
    return (await answer).status


@pytest.mark.fault("repeat", "requests that come a byte at a time", "32")
@pytest.mark.parametrize("fast_bytes", [10, len(post(b"x" * 1000)) - 1000], ids=["head", "body"])
async def test_requests_that_come_a_byte_at_a_time_are_refused(fast_bytes: int, tmp_path: Path) -> None:
    request = post(b"x" * 1000)
    async with gateway(tmp_path, request_timeout=0.5) as one:
        before = open_sockets()
        clients = [await one.client() for _ in range(50)]
        for client in clients:
            await client.send(request[:fast_bytes])
        dripping = asyncio.gather(*(drip(client, request[fast_bytes:]) for client in clients))
        await served(one)
        assert set(await dripping) == {408}
        for client in clients:
            assert await client.closed()
            client.writer.close()
        await settled(lambda: open_sockets() <= before + 2, "sockets are left")
        assert await one.bodies() == [b"1"]


@pytest.mark.fault("repeat", "headers of 256 MB", "32")
@pytest.mark.parametrize("piece", [b"x" * 65_536, b"X: y\r\n" * 10_000], ids=["one header", "many"])
async def test_headers_of_256_mb_are_refused_when_the_first_16_kb_have_come(
    piece: bytes, tmp_path: Path
) -> None:
    async with gateway(tmp_path) as one:
        before, memory = open_sockets(), resident_bytes()
        for _ in range(20):
            client = await one.client()
            await client.send(b"POST /ingest/a HTTP/1.1\r\nHost: g\r\nX: ")
            sent = 0
            with suppress(ConnectionError):
                while sent < 256 << 20:
                    await client.send(piece)
                    sent += len(piece)
            assert sent < 16 << 20
            client.writer.close()
        await served(one)
        await settled(lambda: open_sockets() <= before + 2, "sockets are left")
        assert resident_bytes() - memory < 16 << 20


@pytest.mark.fault("repeat", "many large bodies at a time", "32")
async def test_bodies_take_bounded_memory_over_all_senders(tmp_path: Path) -> None:
    async with gateway(tmp_path, buffer_bytes_max=1 << 20) as one:
        greedy = [await one.client() for _ in range(4)]
        for client in greedy:
            await client.send(post(bytes(300_000))[:-1])
        answers = {asyncio.create_task(client.answer()): client for client in greedy}
        [refused], waiting = await asyncio.wait(answers, return_when=asyncio.FIRST_COMPLETED)
        assert refused.result().status == 503
        await served(one)
        for answer in waiting:
            await answers[answer].send(b"\0")
            assert (await answer).status == 200


@pytest.mark.fault("repeat", "up to 5,000 idle connections", "32")
async def test_five_thousand_idle_connections(
    tmp_path: Path, connections: int, record_property: Callable[[str, object], None]
) -> None:
    """Or as many as this process may have both ends of."""
    async with gateway(tmp_path, connections_max=connections + 1, request_timeout=30.0) as one:
        record_property(INJECTED, f"{connections:,} idle connections")
        before, memory = open_sockets(), resident_bytes()
        clients = [await one.client() for _ in range(connections)]
        await served(one)
        assert resident_bytes() - memory < connections * 40_000  # both ends
        for client in clients:
            client.writer.transport.abort()
        await settled(lambda: open_sockets() <= before + 2, "sockets are left")
