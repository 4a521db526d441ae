"""What a sender sees, and what is on the disk when it sees it."""

import asyncio
import gzip
import json
import subprocess
from pathlib import Path

import pytest

import drivers.http
from drivers.http import Tls, Token
from gateway.routing import Router, RouteSettings
from gateway.testing.certificates import Authority
from tests.http.rig import gateway, post

CASES = sorted((Path(drivers.http.__file__).parent / "cases").iterdir())
NDJSON = "application/x-ndjson"


@pytest.mark.parametrize("pieces", [1, 11, 100_000])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_case(case: Path, pieces: int, tmp_path: Path) -> None:
    """Requests one after the other on one connection, in one piece or in many."""
    wire = (case / "wire").read_bytes()
    answers = [json.loads(line) for line in (case / "answers.jsonl").read_text().splitlines()]
    expected = [json.loads(line) for line in (case / "expected.jsonl").read_text().splitlines()]
    async with gateway(tmp_path) as one:
        client = await one.client()
        size = len(wire) // pieces + 1
        for start in range(0, len(wire), size):
            await client.send(wire[start : start + size])
        for wanted in answers:
            answer = await client.answer()
            assert {"status": answer.status, "body": answer.body} == wanted
        assert [body.decode() for body in await one.bodies()] == [record["body"] for record in expected]
        for record, header in zip(expected, await one.headers(), strict=True):
            assert header["tg.channel"] == record["channel"]
            assert header["tg.device"] == record["device"]
            assert header.get("content-type", "") == record["content_type"]


@pytest.mark.fault("repeat", "a request again under its Idempotency-Key")
@pytest.mark.parametrize("how", ["cut", "kill"])
async def test_the_same_request_again_stores_nothing_and_gets_the_same_answer(
    how: str, tmp_path: Path
) -> None:
    request = post(b'{"t":1}\n{"t":2}\n', content_type=NDJSON, idempotency_key='"batch-7"')
    async with gateway(tmp_path) as one:
        client = await one.client()
        await client.send(request)
        if how == "kill":
            async with asyncio.timeout(10):
                await one.queue.wait_for("main", 1)
            await one.kill_and_restart()  # stored, and the answer perhaps never seen
        else:
            assert (await client.answer()).status == 200
        again = await one.client()
        for _ in range(2):
            await again.send(request)
            answer = await again.answer()
            assert (answer.status, answer.body) == (200, {"accepted": 2})
        await again.send(post(b"{}", idempotency_key='"batch-7"'))
        assert (await again.answer()).status == 422
        assert await one.bodies() == [b'{"t":1}', b'{"t":2}']


async def test_a_key_may_be_used_again_after_its_lifetime_and_not_before(tmp_path: Path) -> None:
    async with gateway(tmp_path, idempotency_lifetime=3600.0) as one:
        client = await one.client()
        for ahead_s, body, status in (
            (0.0, b"1", 200),
            (3590.0, b"1", 200),
            (3590.0, b"2", 422),
            (3601.0, b"2", 200),
            (7000.0, b"3", 422),
        ):
            one.clock.ahead_s = ahead_s
            await client.send(post(body, idempotency_key="batch-7"))
            assert (await client.answer()).status == status
        await one.kill_and_restart()
        again = await one.client()
        await again.send(post(b"2", idempotency_key="batch-7"))
        assert (await again.answer()).status == 200
        assert await one.bodies() == [b"1", b"2"]


async def test_a_full_queue_says_when_to_come_again(tmp_path: Path) -> None:
    async with gateway(tmp_path) as one:
        await one.stop()
        await one.start(min_free_bytes=1 << 60)
        client = await one.client()
        await client.send(post(b"1"))
        answer = await client.answer()
        assert (answer.status, answer.headers["retry-after"]) == (503, "10")
        assert answer.body["detail"].startswith("nothing was stored: less than ")
        assert "would stay free on the disk" in answer.body["detail"]
        shown = one.emit.devices.by_name["press/4"]
        assert (shown.failures, shown.error) == (1, f"503: {answer.body['detail']}")
        assert await one.bodies() == []


async def test_what_no_topic_may_have_need_not_be_sent_again(tmp_path: Path) -> None:
    async with gateway(tmp_path) as one:
        one.emit.router = Router(
            [RouteSettings(from_="web", match="#", topic="{1}")], None, {"tidegate-ledger"}
        )
        client = await one.client()
        await client.send(post(b"1", "tidegate-ledger"))
        answer = await client.answer()
        assert (answer.status, answer.headers.get("retry-after")) == (403, None)
        assert "no record may go to topic 'tidegate-ledger'" in answer.body["detail"]
        assert one.emit.devices.by_name["tidegate-ledger"].error == f"403: {answer.body['detail']}"


async def test_tokens_open_their_channels_only(tmp_path: Path) -> None:
    digest = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"  # of "secret"
    tokens = {"press": Token(sha256=digest, channels=["press/4/#"])}
    async with gateway(tmp_path, anonymous=False, tokens=tokens) as one:
        client = await one.client()
        for channel, header, status in (
            ("press/4/t", {}, 401),
            ("press/4/t", {"authorization": "Bearer wrong"}, 401),
            ("press/5", {"authorization": "Bearer secret"}, 403),
            ("press/4/t", {"authorization": "Bearer secret"}, 200),
        ):
            await client.send(post(b"1", channel, **header))
            assert (await client.answer()).status == status
        assert [header["tg.device"] for header in await one.headers()] == ["press"]


@pytest.mark.fault("input", "requests that are not right")
@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /ingest/a HTTP/1.1\r\nHost: g\r\n\r\n", 405),
        (b"POST /other HTTP/1.1\r\nHost: g\r\nContent-Length: 0\r\n\r\n", 404),
        (b"POST /ingest/a HTTP/1.1\r\nHost: g\r\n\r\n", 411),
        (b"\x10\x0c\0\4MQTT\4\2\0\x3c\0\0\r\n\r\n", 400),
        (b"POST /ingest/a%2 HTTP/1.1\r\nHost: g\r\nContent-Length: 1\r\n\r\n1", 400),
        (b"POST /ingest/a+b HTTP/1.1\r\nHost: g\r\nContent-Length: 1\r\n\r\n1", 400),
        (b"POST /ingest/a HTTP/1.1\r\nHost: g\r\nContent-Length: 999999999\r\n\r\n", 413),
        (b"POST /ingest/a HTTP/1.1\r\nHost: g\r\nX: " + b"x" * 70_000 + b"\r\n\r\n", 431),
        (post(b"1", x_padding="x" * (16 << 10)), 431),
        (post(b"1", idempotency_key="a", Idempotency_Key="b"), 400),
        (post(b"1", idempotency_key="a", Idempotency_Key="a"), 400),
        (post(b"1", x_device="a", X_Device="b"), 400),
        (post(b"1", "a%1b"), 400),
        (post(b"1", "a%C2%9B2J"), 400),
        (post(b"1", x_device="press\u009b2J"), 400),
        (post(b"1", content_type="text/\x1b[2Jplain"), 400),
        (post(b"1", content_type="text/plain\x7f"), 400),
        (post(b"not gzip", content_encoding="gzip"), 400),
        (post(gzip.compress(b"x" * 2_000_000), content_encoding="gzip"), 413),
        (post(b"1", content_encoding="br"), 415),
        (post(b'{"t":', content_type="application/json"), 400),
        (post(b"[" * 100_000, content_type="application/json"), 400),
    ],
)
async def test_what_is_refused_stores_nothing(request_bytes: bytes, status: int, tmp_path: Path) -> None:
    async with gateway(tmp_path) as one:
        client = await one.client()
        await client.send(request_bytes)
        answer = await client.answer()
        assert answer.status == status
        assert "detail" in answer.body
        assert await one.bodies() == []


@pytest.mark.parametrize("length", [0, 3])
async def test_a_request_with_two_lengths_is_refused_and_nothing_behind_it_is_read(
    length: int, tmp_path: Path
) -> None:
    head = f"POST /ingest/a HTTP/1.1\r\nHost: g\r\nContent-Length: {length}\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with gateway(tmp_path) as one:
        client = await one.client()
        await client.send(head.encode() + b"3\r\nabc\r\n0\r\n\r\n" + post(b"1"))
        answer = await client.answer()
        assert (answer.status, answer.headers["connection"]) == (400, "close")
        assert await client.closed()
        assert await one.bodies() == []


async def test_the_slow_are_closed_and_never_hold_the_others_up(tmp_path: Path) -> None:
    async with gateway(tmp_path, request_timeout=0.3, idle_timeout=0.3) as one:
        silent, drip = await one.client(), await one.client()
        await drip.send(post(b"12345")[:-4])
        quick = await one.client()
        await quick.send(post(b"1"))
        assert (await quick.answer()).status == 200
        assert (await drip.answer()).status == 408
        assert await silent.closed()
        assert await one.bodies() == [b"1"]


async def test_connections_beyond_the_limit_are_closed(tmp_path: Path) -> None:
    async with gateway(tmp_path, connections_max=2) as one:
        kept = [await one.client() for _ in range(2)]
        for client in kept:
            await client.send(post(b"1"))
            assert (await client.answer()).status == 200
        assert await (await one.client()).closed()


async def test_curl(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    server = authority.issue("localhost")
    tls = Tls(cert=server.certificate, key=server.key)
    body = tmp_path / "body"
    body.write_bytes(b'[{"t":1},{"t":2}]')
    async with gateway(tmp_path / "gateway", tls=tls) as one:
        done = await asyncio.to_thread(
            subprocess.run,
            [
                *("curl", "-sS", "--cacert", str(authority.path), "-H", "Expect: 100-continue"),
                *("-H", "Content-Type: application/json", "-H", "Transfer-Encoding: chunked"),
                *(
                    "--data-binary",
                    f"@{body}",
                    "-w",
                    "%{http_code}",
                    f"https://localhost:{one.port}/ingest/press/4",
                ),
            ],
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == '{"accepted":2}\n200'
        assert await one.bodies() == [b'{"t":1}', b'{"t":2}']
