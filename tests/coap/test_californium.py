"""OSCORE with a device that shares no code with us: Eclipse Californium's, which the gateway hears, and asks."""

import asyncio
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from drivers.coap import Config, Resource
from drivers.coap.driver import CoapDriver
from gateway.clock import SystemClock
from gateway.driver import Context
from gateway.testing.conformance import free_address
from gateway.testing.emit import FakeEmit
from gateway.testing.jars import jars
from tests.coap.rig import Gateway, gateway
from tests.coap.test_oscore import SALT, SECRET, context

HERE = Path(__file__).parent / "californium"
WRONG = "ff" + SECRET[2:]
PRESS = {"press-4": replace(context("01", "02", "press/#"), short_numbers=True)}
STARTS_S = 60.0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


@contextmanager
def device(secret: str, *what: object) -> Iterator["subprocess.Popen[str]"]:
    classpath = str(jars((HERE / "pom.xml").read_bytes(), "Eclipse Californium") / "*")
    java = (
        "java",
        "-XX:TieredStopAtLevel=1",
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=error",
        "-cp",
        classpath,
    )
    script = ("groovy.ui.GroovyMain", str(HERE / "device.groovy"), secret, SALT, "02", "01", *map(str, what))
    with subprocess.Popen(
        [*java, *script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


async def posted(secret: str, one: Gateway, *what: str) -> list[str]:
    """What the device prints of these paths and bodies."""
    with device(secret, "post", f"coap://127.0.0.1:{one.address.port}", *what) as process:
        out, _ = await asyncio.to_thread(process.communicate, timeout=STARTS_S)
    return out.splitlines()


async def test_what_the_device_protects_is_stored_and_answered_protected(tmp_path: Path) -> None:
    large = "x" * 3000
    async with gateway(tmp_path, anonymous=False, oscore=PRESS) as one:
        sent = ("press/4", "1", "press/4", "2", "press/5", large, "mill/1", "3")
        stored = ["2.04 protected"] * 3
        assert await posted(SECRET, one, *sent) == ["challenged", *stored, "4.03 protected"]
        assert await posted(WRONG, one, "press/4", "4") == ["4.00 plain"]
        assert await posted(SECRET, one, "press/4", "its number is used again") == ["4.01 plain"]
        assert await one.bodies() == [b"1", b"2", large.encode()]
        assert {header["tg.device"] for header in await one.headers()} == {"press-4"}


async def test_what_the_device_serves_is_read() -> None:
    port = free_address().port
    emit = FakeEmit()
    with device(SECRET, "serve", port, '{"t": 21.5}') as process:
        assert process.stdout is not None
        assert await asyncio.to_thread(process.stdout.readline) == "serving\n"
        resource = Resource(
            uri=f"coap://127.0.0.1:{port}/reading", device="press-4", interval=0.1, oscore="press-4"
        )
        config = Config(resources=[resource], oscore=PRESS, timeout=2.0)
        driver = asyncio.create_task(CoapDriver(config, Context("asks", SystemClock())).run(emit))
        records = await emit.stored(3)
        driver.cancel()
        await asyncio.wait([driver])
    assert {record.body for record in records} == {b'{"t": 21.5}'}
    assert not emit.failures
