"""A running gateway that is given another configuration."""

import asyncio
import io
import logging
import re
import ssl
from contextlib import suppress
from pathlib import Path

import pytest
from rich.console import Console

from gateway.cli.status import show
from gateway.clock import SystemClock
from gateway.config import Config, load
from gateway.runtime.runtime import Runtime
from gateway.testing.certificates import Authority
from gateway.testing.kafka import free_ports

FIRST = """
[gateway]
id = "plant-7"
data_dir = "{folder}/data"
[queue]
unacked_interval = "5 s"
[kafka]
bootstrap_servers = ["127.0.0.1:1"]
"""


def configuration(folder: Path, *changes: tuple[str, str]) -> Config:
    text = FIRST.format(folder=folder)
    for old, new in changes:
        text = text.replace(old, new)
    file = folder / "tidegate.toml"
    file.write_text(text)
    return load(file)


class SetClock(SystemClock):
    """A board without a battery: 1970 until NTP comes."""

    def __init__(self) -> None:
        self.knows = False

    def wall_ms(self) -> int:
        return super().wall_ms() if self.knows else 60_000


async def test_ages_are_right_though_the_clock_was_set_in_between(tmp_path: Path) -> None:
    clock = SetClock()
    simulated = ("[kafka]", '[drivers.sim]\ntype = "simulated"\n[kafka]')
    topic = ('"plant-7"', '"plant-7"\ndefault_topic = "all"')
    runtime = await Runtime.start(configuration(tmp_path, topic, simulated), clock)
    async with asyncio.timeout(20):
        while not runtime.drivers["sim"].health.running:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    clock.knows = True
    told = await runtime.status()
    for age_s in (told.up_s, told.link.since_s, told.drivers["sim"].health.since_s):
        assert 0 <= age_s < 3600
    said = io.StringIO()
    show(Console(file=said, width=160), told, None, every_device=False)
    assert re.search(r", up \d+ (ms|s), ", said.getvalue())
    await runtime.stop()


async def test_what_needs_a_restart_stays_as_it_was_until_then(tmp_path: Path) -> None:
    runtime = await Runtime.start(configuration(tmp_path), SystemClock())
    await runtime.reconfigure(
        configuration(
            tmp_path, ("plant-7", "plant-9"), ('"5 s"', '"1 h"'), ("[kafka]", '[kafka]\nlinger = "9 s"')
        )
    )
    told = await runtime.status()
    assert told.needs_restart == ("gateway.id", "queue.unacked_interval")
    assert told.gateway_id == runtime.config.gateway.id == "plant-7"
    assert told.loss.unacknowledged_s < 60
    assert runtime.config.kafka.linger == 9.0
    await runtime.reconfigure(configuration(tmp_path))
    assert (await runtime.status()).needs_restart == ()
    await runtime.stop()


WEB = """
[drivers.web]
type = "http"
listen = "127.0.0.1:{port}"
tls = {{ cert = "web.crt.pem", key = "web.key.pem" }}
[drivers.web.tokens.press]
secret = {{ file = "token" }}
channels = ["#"]
[drivers.plant]
type = "simulated"
journal = "journal"
[[routes]]
from = "*"
topic = "all"
[queue]"""


async def shown(port: int, authority: Authority) -> bytes | None:
    """The certificate with which somebody listens there."""
    async with asyncio.timeout(20):
        while True:
            with suppress(ConnectionRefusedError):
                _, writer = await asyncio.open_connection(
                    "127.0.0.1", port, ssl=ssl.create_default_context(cafile=authority.path)
                )
                certificate: bytes = writer.get_extra_info("ssl_object").getpeercert(True)
                writer.transport.abort()
                return certificate
            await asyncio.sleep(0.02)


async def answer(port: int, authority: Authority, token: str) -> int:
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=ssl.create_default_context(cafile=authority.path)
    )
    request = (
        f"POST /ingest/a HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Length: 1\r\n\r\n1"
    )
    writer.write(request.encode())
    status = int((await reader.readline()).split()[1])
    writer.transport.abort()
    return status


async def test_renewed_certificates_and_tokens_are_taken_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Replaced under the same name. One that can't be used is told, and the driver stays as it is."""
    caplog.set_level(logging.INFO)
    authority, [port] = Authority(tmp_path), free_ports(1)
    change = ("[queue]", WEB.format(port=port))
    old = authority.issue("web")
    (tmp_path / "token").write_text("first")
    runtime = await Runtime.start(configuration(tmp_path, change), SystemClock())
    first = await shown(port, authority)
    plant = runtime.drivers["plant"]
    await runtime.reconfigure(configuration(tmp_path, change))
    assert caplog.messages[-1] == "the configuration is the same"

    authority.issue("web")
    (tmp_path / "token").write_text("second")
    await runtime.reconfigure(configuration(tmp_path, change))
    second = await shown(port, authority)
    assert first != second
    assert [await answer(port, authority, token) for token in ("first", "second")] == [401, 200]

    key = old.key.read_bytes()
    for spoil, told in (
        (lambda: old.key.write_text("no key"), "drivers.web.tls.cert"),
        ((tmp_path / "token").unlink, "drivers.web.tokens.press.secret"),
    ):
        spoil()
        web = runtime.drivers["web"]
        await runtime.reconfigure(configuration(tmp_path, change))
        assert runtime.drivers["web"] is web
        assert any(told in message and "left with what it has" in message for message in caplog.messages)
        assert await answer(port, authority, "second") == 200
        old.key.write_bytes(key)
    assert runtime.drivers["plant"] is plant
    assert (tmp_path / "journal").stat().st_size > 0
    assert "second" not in caplog.text
    await runtime.stop()
