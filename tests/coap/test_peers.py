"""libcoap's coap-client and aiocoap's own client against the gateway, and what they may read there."""

import asyncio
import json
import os
import shlex
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiocoap
import pytest

import drivers.coap
from drivers.coap.about import OBSERVERS_MAX
from tests.coap.rig import (
    ACK,
    CON,
    GET,
    MAX_AGE,
    OBSERVE,
    RST,
    URI_PATH,
    Device,
    Gateway,
    Message,
    gateway,
    post,
)

STATUS = ((URI_PATH, b"tidegate"), (URI_PATH, b"status"))


async def coap_client(one: Gateway, path: str, *arguments: str) -> str:
    """What it prints."""
    client = await asyncio.create_subprocess_exec(
        "coap-client-notls",
        *("-B", "10", "-v", "6", *arguments, f"coap://127.0.0.1:{one.address.port}/{path}"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    return (await client.communicate())[0].decode(errors="replace")


async def test_the_readme_s_command_is_there_and_sends(tmp_path: Path) -> None:
    """As Debian names it: there is no `coap-client`."""
    readme = Path(drivers.coap.__file__).with_name("README.md").read_text()
    [command] = [line for line in readme.splitlines() if line.startswith("    coap-client")]
    async with gateway(tmp_path) as one:
        words = shlex.split(command.replace("//gateway/", f"//127.0.0.1:{one.address.port}/"))
        assert await (await asyncio.create_subprocess_exec(*words)).wait() == 0
        assert await one.stored(1) == [b'{"t": 21.5}']
        [header] = await one.headers()
        assert (header["tg.channel"], header["tg.device"]) == ("press/4", "left")


@asynccontextmanager
async def aiocoap_client() -> AsyncIterator[aiocoap.Context]:
    context = await aiocoap.Context.create_client_context(transports=["udp6"])
    try:
        yield context
    finally:
        await context.shutdown()


async def test_libcoap_s_client_sends(tmp_path: Path) -> None:
    body = b"0123456789" * 500
    (tmp_path / "body").write_bytes(body)
    async with gateway(tmp_path / "gateway") as one:
        await coap_client(one, "press/4?d=left", "-m", "post", "-t", "50", "-e", '{"t":21.5}')
        await coap_client(one, "press/5", "-m", "put", "-b", "256", "-f", str(tmp_path / "body"))
        await coap_client(one, "press/6", "-m", "post", "-N", "-e", "1")
        assert await one.stored(3) == [b'{"t":21.5}', body, b"1"]
        first, second, _ = await one.headers()
        assert (first["tg.channel"], first["tg.device"]) == ("press/4", "left")
        assert first["content-type"] == "application/json"
        assert second["tg.channel"] == "press/5"
        assert "4.00" in await coap_client(one, "press/4", "-m", "post", "-t", "110", "-e", "{")


@pytest.mark.slow
async def test_libcoap_s_client_on_a_bad_line_stores_each_record_once(tmp_path: Path) -> None:
    """Its first datagrams never leave, one or two of them; it sends them again."""
    async with gateway(tmp_path) as one:
        senders = [
            coap_client(
                one, "press/4", "-m", "post", "-l", f"1-{1 + number % 2}", "-B", "60", "-e", f"{number}"
            )
            for number in range(10)
        ]
        await asyncio.gather(*senders)
        assert sorted(await one.bodies()) == [b"%d" % number for number in range(10)]


async def test_libcoap_s_client_reads(tmp_path: Path) -> None:
    async with gateway(tmp_path) as one:
        assert "</tidegate/status>" in await coap_client(one, ".well-known/core", "-m", "get")
        assert '"takes": true' in await coap_client(one, "tidegate/status", "-m", "get")
        assert "4.06" in await coap_client(one, "tidegate/status", "-m", "get", "-A", "60")


async def test_aiocoap_s_client_sends_and_observes(tmp_path: Path) -> None:
    body = bytes(range(256)) * 200
    async with gateway(tmp_path) as one, aiocoap_client() as client:
        base = f"coap://127.0.0.1:{one.address.port}"
        request = aiocoap.Message(code=aiocoap.POST, payload=body, uri=f"{base}/a%20b/c")
        answer = await client.request(request).response
        assert str(answer.code) == "2.04 Changed"
        assert await one.bodies() == [body]
        assert [header["tg.channel"] for header in await one.headers()] == ["a b/c"]
        request = aiocoap.Message(code=aiocoap.POST, payload=body + body, uri=f"{base}/a")
        answer = await client.request(request).response
        assert (str(answer.code), answer.opt.size1) == ("4.13 Request Entity Too Large", 64 << 10)


async def test_an_observer_hears_when_the_gateway_refuses(tmp_path: Path) -> None:
    async with gateway(tmp_path) as one:
        await one.kill_and_restart(max_bytes=256 << 10)
        observer, device = one.device(), one.device()
        first = await observer.ask(Message(CON, GET, 1, b"ob", ((OBSERVE, b""), *STATUS)))
        assert (first.option(MAX_AGE), json.loads(first.payload)["takes"]) == (b"\x3c", True)
        mid = 0
        while (await device.ask(post(mid := mid + 1, os.urandom(1000)))).status == "2.04":
            assert mid < 1000
        told = await observer.receive()
        assert (told.kind, told.token, json.loads(told.payload)["takes"]) == (CON, b"ob", False)
        assert told.option(OBSERVE) != first.option(OBSERVE)
        await observer.send(Message(RST, 0, told.mid))
        others = [await _observe(device, 60_000 + number) for number in range(OBSERVERS_MAX)]
        assert all(others)  # the reset made room


async def _observe(device: Device, mid: int) -> bool:
    token = mid.to_bytes(2, "big")
    answer = await device.ask(Message(CON, GET, mid, token, ((OBSERVE, b""), *STATUS)))
    return answer.option(OBSERVE) is not None


async def test_observers_are_bounded(tmp_path: Path) -> None:
    async with gateway(tmp_path) as one:
        observer = one.device()
        answers = [await _observe(observer, number) for number in range(OBSERVERS_MAX + 2)]
        assert answers == [True] * OBSERVERS_MAX + [False] * 2
        ended = await observer.ask(Message(CON, GET, 90, b"\0\0", ((OBSERVE, b"\1"), *STATUS)))
        assert (ended.kind, ended.option(OBSERVE)) == (ACK, None)
        assert await _observe(observer, 91)
