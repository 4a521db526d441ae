"""What anybody with curl and the socket gets, and what the socket does not put up with."""

import asyncio
import json
import stat
from asyncio.subprocess import PIPE
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from gateway.config import load
from gateway.control import http
from gateway.control.server import BODY_BYTES_MAX, CONNECTIONS_MAX, ControlServer, attached
from gateway.errors import StorageError
from gateway.record import Record
from gateway.settings import Address
from gateway.testing.gateway import FakeGateway
from gateway.testing.kafka import free_ports


async def curl(*arguments: object) -> tuple[int, str]:
    """Status and body."""
    process = await asyncio.create_subprocess_exec(
        "curl", "-sS", "-m", "20", "-w", "\n%{http_code}", *map(str, arguments), stdout=PIPE
    )
    output, _ = await process.communicate()
    body, _, status = output.decode().rpartition("\n")
    return int(status), body


async def ask(socket_path: Path, target: str, *arguments: str) -> tuple[int, Any]:
    status, body = await curl("--unix-socket", socket_path, f"http://localhost{target}", *arguments)
    return status, json.loads(body)


async def raw(socket_path: Path, sent: bytes) -> bytes:
    """Everything that comes back until the server closes."""
    reader, writer = await asyncio.open_unix_connection(str(socket_path))
    try:
        writer.write(sent)
        async with asyncio.timeout(20):
            return await reader.read()
    finally:
        writer.transport.abort()


def records(count: int, device: str = "press-4", size: int = 10) -> list[Record]:
    return [
        Record(f"site/{device}", device, b"%d " % number + b"x" * size, 1000 + number)
        for number in range(count)
    ]


async def test_status_and_verify_tell_of_the_queue(gateway: FakeGateway, socket_path: Path) -> None:
    await gateway.accept("floor", records(3))
    status, told = await ask(socket_path, "/status")
    assert (status, told["gateway_id"], told["link"]["state"]) == (200, "plant-7", "down")
    assert told["queue"]["lanes"]["main"]["pending"] == 3
    status, told = await ask(socket_path, "/verify")
    assert (status, told["lanes"]["main"]["pending"], told["accepted"]) == (200, 3, 3)


async def test_the_queue_can_be_looked_into(gateway: FakeGateway, socket_path: Path) -> None:
    await gateway.accept("floor", [*records(3), Record("site/bin", "bin", b"\xff\x00", 5)])
    _, lanes = await ask(socket_path, "/queue")
    assert lanes["stats"]["lanes"]["main"]["stored"] == 4
    assert lanes["oldest_ms"]["main"] is not None
    assert lanes["oldest_ms"]["ledger"] is None
    _, first = await ask(socket_path, "/queue/peek?limit=1")
    assert first == [
        {
            "lane": "main",
            "seq": 1,
            "run": gateway.queue.run_id,
            "time_ms": 1000,
            "topic": "telemetry",
            "key": "press-4",
            "headers": [
                {"name": "tg.driver", "value": "floor"},
                {"name": "tg.device", "value": "press-4"},
                {"name": "tg.channel", "value": "site/press-4"},
            ],
            "value": "0 xxxxxxxxxx",
        }
    ]
    _, rest = await ask(socket_path, "/queue/peek?after=2")
    assert [record["seq"] for record in rest] == [3, 4]
    assert rest[1]["value_base64"] == "/wA="


async def test_dead_letters_are_listed_and_tried_again(gateway: FakeGateway, socket_path: Path) -> None:
    await gateway.accept("floor", records(2))
    (segment,) = await gateway.queue.peek("main", 0, 10, 1000)
    await gateway.queue.bury("main", 1, segment.entries[0], "too large")
    gateway.queue.advance("main", 1, delivered=0)
    _, letters = await ask(socket_path, "/queue/dead")
    assert [(one["reason"], one["seq"]) for one in letters] == [("too large", 1)]
    post = ("-d", json.dumps({"ids": [letters[0]["id"], 99]}))
    assert await ask(socket_path, "/queue/dead/retry", *post) == (200, {"retried": 1})
    assert await ask(socket_path, "/queue/dead") == (200, [])
    _, waiting = await ask(socket_path, "/queue/peek?after=2")
    assert {"name": "tg.retry", "value": "main/1"} in waiting[0]["headers"]


async def test_an_operator_s_word_reaches_the_gateway(gateway: FakeGateway, socket_path: Path) -> None:
    for assume in (None, "lost", "delivered"):
        status, _ = await ask(socket_path, "/adopt", "-d", json.dumps({"assume": assume}))
        assert status == 200
    assert gateway.adopted == [None, "lost", "delivered"]


@pytest.mark.parametrize(
    ("target", "arguments", "status", "told"),
    [
        ("/statu", (), 404, "there is no /statu; there are /status,"),
        ("/adopt", (), 405, "/adopt takes POST"),
        ("/status", ("-X", "DELETE"), 405, "/status takes GET"),
        ("/queue/peek?limit=many", (), 400, "limit= must be a whole number"),
        ("/queue/peek?after=99999999999999999999", (), 400, "after= must be a whole number"),
        ("/queue/peek?after=" + "0" * 5000, (), 400, "after= must be a whole number"),
        ("/", ("--request-target", "//["), 400, "not a target"),
        ("/queue/peek?lane=fast", (), 400, "there is no lane 'fast'; there are main, ledger"),
        ("/adopt", ("-d", "yes"), 400, "the body is not JSON"),
        ("/adopt", ("-d", "[]"), 400, "the body must be a JSON object"),
        ("/adopt", ("-d", '{"assume": "both"}'), 400, '"assume" must be "delivered", "lost", "fork" or null'),
        ("/queue/dead/retry", ("-d", '{"ids": [true]}'), 400, 'the body must be {"ids": [...]}'),
        (
            "/queue/dead/retry",
            ("-d", '{"ids": [9223372036854775808]}'),
            400,
            'the body must be {"ids": [...]}',
        ),
        ("/queue/dead/retry", ("-d", "[" * 60_000), 400, "the body is not JSON"),
        ("/queue/dead/retry", ("-d", "x" * (BODY_BYTES_MAX + 1)), 413, "the body has more than 65536 bytes"),
        ("/queue/import?start=0", ("-d", "x"), 400, "file= must name the import"),
        ("/queue/import?file=a&start=0", ("-d", "x"), 400, "the transfer ends in the middle of a frame"),
        ("/" + "x" * 60_000, (), 431, "not HTTP"),
    ],
)
async def test_what_is_not_understood_is_answered_with_what_would_be(
    gateway: FakeGateway,
    socket_path: Path,
    target: str,
    arguments: tuple[str, ...],
    status: int,
    told: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    answer = await ask(socket_path, target, *arguments)
    assert answer[0] == status
    assert told in answer[1]["error"]
    assert gateway.adopted == []
    assert not caplog.records


async def test_noise_and_half_requests_end_the_connection_only(
    socket_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "REQUEST_TIMEOUT_S", 0.2)
    assert (await raw(socket_path, b"\x16\x03\x01\r\n\r\n")).startswith(b"HTTP/1.1 400 ")
    assert await raw(socket_path, b"GET /status HTTP/1.1\r\n") == b""
    assert await raw(socket_path, b"POST /adopt HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{") == b""
    assert (await ask(socket_path, "/status"))[0] == 200


async def test_connections_are_limited_and_free_again(socket_path: Path) -> None:
    idle = [await asyncio.open_unix_connection(str(socket_path)) for _ in range(CONNECTIONS_MAX)]
    assert not await answers(socket_path)
    for _, writer in idle:
        writer.transport.abort()
    async with asyncio.timeout(20):
        while not await answers(socket_path):
            pass


async def test_connections_to_the_metrics_keep_nobody_from_the_control_socket(
    server: ControlServer, socket_path: Path
) -> None:
    await server.open_metrics(Address("127.0.0.1", 0))
    idle = [await asyncio.open_connection("127.0.0.1", server.metrics_port) for _ in range(CONNECTIONS_MAX)]
    assert await answers(socket_path)
    idle.append(await asyncio.open_connection("127.0.0.1", server.metrics_port))
    assert await idle[-1][0].read() == b""
    for _, writer in idle:
        writer.transport.abort()


async def answers(socket_path: Path) -> bool:
    try:
        return (await raw(socket_path, b"GET /status HTTP/1.1\r\nHost: x\r\n\r\n")).startswith(
            b"HTTP/1.1 200 "
        )
    except ConnectionError:
        return False


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_the_socket_belongs_to_its_owner_and_group(socket_path: Path) -> None:
    assert mode(socket_path) == 0o660


async def test_a_socket_left_by_a_dead_gateway_is_taken_over_and_that_of_a_living_one_is_not(
    gateway: FakeGateway, tmp_path: Path
) -> None:
    folder = tmp_path / ("long" * 30)  # an address has room for 107 bytes
    folder.mkdir()
    path = folder / "control.sock"
    dead = ControlServer(gateway, "plant-7")
    await dead.open_socket(path)
    with pytest.raises(StorageError, match="another gateway answers here"):
        await ControlServer(gateway, "plant-7").open_socket(path)
    left = path.with_suffix(".left")
    path.rename(left)
    await dead.close()
    left.rename(path)
    living = ControlServer(gateway, "plant-7")
    await living.open_socket(path)
    await living.close()
    assert not path.exists()


async def test_metrics_are_served_over_tcp_too_and_nothing_else_is(
    gateway: FakeGateway, server: ControlServer, socket_path: Path
) -> None:
    gateway.metrics.counter("tidegate_stored_total", "Records on disk.", driver="floor").value = 7
    await server.open_metrics(Address("127.0.0.1", 0))
    url = f"http://127.0.0.1:{server.metrics_port}"
    expected = (
        "# HELP tidegate_stored_total Records on disk.\n# TYPE tidegate_stored_total counter\n"
        'tidegate_stored_total{driver="floor"} 7\n'
    )
    assert await curl(f"{url}/metrics") == (200, expected)
    assert await curl("--unix-socket", socket_path, "http://localhost/metrics") == (200, expected)
    for other in ("/status", "/adopt", "/queue/peek"):
        assert (await curl(f"{url}{other}"))[0] == 404
    assert (await curl("--request-target", "//[", url))[0] == 400
    assert (await curl("-d", "{}", f"{url}/metrics"))[0] == 405
    await server.open_metrics(None)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))


async def test_a_taken_port_is_had_once_it_is_free(
    gateway: FakeGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("gateway.control.server.METRICS_AGAIN_S", 0.05)
    [port] = free_ports(1)
    file = tmp_path / "tidegate.toml"
    text = (
        f'[gateway]\nid = "plant-7"\ndata_dir = "{tmp_path}"\n[kafka]\nbootstrap_servers = ["127.0.0.1:1"]\n'
    )
    file.write_text(f'{text}[metrics]\nlisten = "127.0.0.1:{port}"\n')
    other = await asyncio.start_server(lambda *_: None, "127.0.0.1", port)
    async with attached(gateway, load(file)):
        async with asyncio.timeout(10):
            while not caplog.records:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        other.close()
        await other.wait_closed()
        async with asyncio.timeout(10):
            while (await curl(f"http://127.0.0.1:{port}/metrics"))[0] != 200:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    told = f"metrics: can't listen on 127.0.0.1:{port}: Address already in use; trying again every 0.05 s"
    assert [one.getMessage() for one in caplog.records if one.levelname == "WARNING"] == [told]


class Tail:
    """A reader of /tail that can stop reading."""

    def __init__(self, socket_path: Path, query: str = "") -> None:
        self._arguments = ("-sSN", "--unix-socket", str(socket_path), f"http://localhost/tail{query}")

    async def __aenter__(self) -> "Tail":
        self._curl = await asyncio.create_subprocess_exec(
            "curl", *self._arguments, stdout=PIPE, limit=1 << 20
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        with suppress(ProcessLookupError):
            self._curl.kill()
        await self._curl.wait()

    async def line(self) -> dict[str, Any]:
        assert self._curl.stdout is not None
        async with asyncio.timeout(20):
            found: dict[str, Any] = json.loads(await self._curl.stdout.readline())
        return found


async def watched(gateway: FakeGateway, by: int) -> None:
    async with asyncio.timeout(20):
        while len(gateway.tap.onlookers) != by:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_tail_shows_records_as_they_are_accepted(gateway: FakeGateway, socket_path: Path) -> None:
    async with Tail(socket_path) as everything, Tail(socket_path, "?driver=floor&device=press-5") as one:
        await watched(gateway, 2)
        await gateway.accept("floor", records(1))
        await gateway.accept("roof", records(1, "press-5"))
        await gateway.accept("floor", [Record("a/b", "press-5", b"\xff", 7, "text/plain", (("n", b"v"),))])
        assert [(await everything.line())["driver"] for _ in range(3)] == ["floor", "roof", "floor"]
        assert await one.line() == {
            "driver": "floor",
            "device": "press-5",
            "channel": "a/b",
            "time_ms": 7,
            "content_type": "text/plain",
            "headers": [{"name": "n", "value": "v"}],
            "body_base64": "/w==",
        }
    await watched(gateway, 0)


async def test_a_slow_reader_of_tail_loses_records_and_is_told_how_many(
    gateway: FakeGateway, socket_path: Path
) -> None:
    async with Tail(socket_path) as tail:
        await watched(gateway, 1)
        sent = 0
        while sent < 8000:  # far more than pipe, sockets and backlog hold
            await gateway.accept("floor", records(500, size=1000))
            sent += 500
        seen = lost = 0
        while not lost:
            line = await tail.line()
            seen, lost = seen + 1, line.get("lost", 0)
            if seen % 500 == 0:
                await gateway.accept("floor", records(1))
                sent += 1
        assert gateway.queue.stats().lanes["main"].stored == sent
        assert lost + seen <= sent


async def test_a_reader_that_takes_nothing_is_given_up(
    gateway: FakeGateway, socket_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "WRITE_TIMEOUT_S", 0.3)
    reader, writer = await asyncio.open_unix_connection(str(socket_path), limit=1)
    writer.write(b"GET /tail HTTP/1.1\r\nHost: x\r\n\r\n")
    await watched(gateway, 1)
    async with asyncio.timeout(20):
        while gateway.tap.onlookers:
            await gateway.accept("floor", records(100, size=10_000))
    writer.transport.abort()
    del reader
