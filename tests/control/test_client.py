"""The typed client says the same as the gateway, and one clear sentence when it can't."""

import asyncio
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.control.address import candidates, short
from gateway.control.client import Client, running
from gateway.control.server import ControlServer
from gateway.errors import CommandError
from gateway.runtime.status import DeviceStatus, DriverStatus
from gateway.runtime.supervisor import DriverHealth
from gateway.testing.gateway import FakeGateway
from tests.control.test_server import records, watched


async def test_status_and_verification_arrive_typed(gateway: FakeGateway, client: Client) -> None:
    gateway.drivers = {
        "floor": DriverStatus(
            "mqtt",
            DriverHealth(False, 5, "no", 2),
            10,
            9,
            {"press-4": DeviceStatus(1, 1, None, "silent", 4)},
            0,
            {"late answers": 3},
        )
    }
    await gateway.accept("floor", records(2))
    told, known = await asyncio.to_thread(client.status), await gateway.status()
    queue = replace(known.queue, disk_free_bytes=told.queue.disk_free_bytes)
    assert told == replace(known, now_ms=told.now_ms, up_s=told.up_s, queue=queue)
    gateway.lost = 1
    verification = await asyncio.to_thread(client.verify)
    assert verification == await gateway.verify()
    assert not verification.holds


async def test_everything_else(gateway: FakeGateway, client: Client) -> None:
    await gateway.accept("floor", records(3))
    assert (await asyncio.to_thread(client.contents)).queue_id == gateway.queue.queue_id
    first, second = await asyncio.to_thread(client.peek, "main", 1, 10)
    assert (first.seq, second.seq) == (2, 3)
    await gateway.queue.bury("main", 2, first.entry, "too large")
    gateway.queue.advance("main", 2, delivered=1)
    (letter,) = await asyncio.to_thread(client.dead, 10)
    assert (letter.reason, letter.seq) == ("too large", 2)
    assert (await asyncio.to_thread(client.dead_record, letter.id)).entry == first.entry
    assert await asyncio.to_thread(client.retry, [letter.id]) == 1
    await asyncio.to_thread(client.adopt, "lost")
    assert gateway.adopted == ["lost"]
    gateway.metrics.counter("a_total", "A.").value = 1
    assert "a_total 1" in await asyncio.to_thread(client.metrics)


async def test_tail(gateway: FakeGateway, client: Client) -> None:
    tail = client.tail("floor", None)
    line = asyncio.ensure_future(asyncio.to_thread(next, tail))
    await watched(gateway, 1)
    await gateway.accept("roof", records(1))
    await gateway.accept("floor", records(1))
    assert (await line)["driver"] == "floor"
    await asyncio.to_thread(tail.close)  # type: ignore[attr-defined]


async def test_refusals_are_one_sentence(gateway: FakeGateway, client: Client) -> None:
    with pytest.raises(CommandError, match="there is no lane 'fast'"):
        await asyncio.to_thread(client.peek, "fast", None, 1)


async def test_a_running_gateway_is_found_by_its_socket(
    gateway: FakeGateway, server: ControlServer, tmp_path: Path
) -> None:
    found = await asyncio.to_thread(running, "plant-7", tmp_path)
    assert found is not None
    assert (await asyncio.to_thread(found.status)).gateway_id == "plant-7"
    await server.close()
    assert running("plant-7", tmp_path) is None
    path = candidates("plant-7", tmp_path)[-1]
    with short(path) as name, socket.socket(socket.AF_UNIX) as left:
        left.bind(name)
    assert path.exists()
    assert running("plant-7", tmp_path) is None
    with pytest.raises(CommandError, match="the connection to the gateway broke") as raised:
        Client(path).status()
    assert raised.value.exit_code == 69


async def test_a_gateway_that_answers_nonsense(tmp_path: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b'HTTP/1.1 200 OK\r\ncontent-length: 13\r\n\r\n{"version":1}')
        writer.close()

    path = tmp_path / "control.sock"
    server = await asyncio.start_unix_server(answer, str(path))
    with pytest.raises(CommandError, match="another version than this command"):
        await asyncio.to_thread(Client(path).status)
    server.close()
