"""`serial ports` and `serial sniff`."""

import asyncio
import json
from pathlib import Path

import pytest

from gateway.port import ports
from gateway.testing.tty import Device
from tests.cli.conftest import Run, start

pytestmark = pytest.mark.slow


async def test_ports_as_text_and_json(tidegate: Run) -> None:
    text, as_json = await asyncio.gather(tidegate("serial", "ports"), tidegate("serial", "ports", "--json"))
    assert (text.code, as_json.code) == (0, 0)
    assert [port["path"] for port in json.loads(as_json.out)] == [port.path for port in ports()]
    assert all(port.path in text.out for port in ports())


async def test_sniff_shows_what_comes(site: Path) -> None:
    device = Device(site / "port")
    process = await start(site, "serial", "sniff", device.path, "--mode", "115200-8N1", "-n", "2")
    assert process.stdout is not None
    waiting = asyncio.ensure_future(process.stdout.readline())
    while not waiting.done():
        # What came before the port was open is discarded, so it is sent again until it is seen.
        device.send(b"\x02weight +12.5kg\r\n")
        await asyncio.wait([waiting], timeout=0.2)
    assert waiting.result().endswith(b"02 77 65 69 67 68 74 20 2b 31 32 2e 35 6b 67 0d  .weight +12.5kg.\n")
    assert await process.stdout.readline() == b" " * 22 + b"0a".ljust(48) + b" .\n"
    device.send(b"\xff")
    assert (await process.stdout.readline()).endswith(b" .\n")
    assert await process.wait() == 0
    device.unplug()


async def test_what_can_not_be_sniffed(tidegate: Run, site: Path) -> None:
    missing = await tidegate("serial", "sniff", "/dev/does-not-exist")
    assert (missing.code, missing.out) == (69, "")
    assert missing.err.startswith("tidegate: port /dev/does-not-exist: there is no such port")
    unclear = await tidegate("serial", "sniff", "/dev/does-not-exist", "--mode", "9600")
    assert (unclear.code, unclear.err) == (64, "tidegate: --mode '9600' is not like 19200-8E1\n")


async def test_sniff_ends_when_the_port_goes(site: Path) -> None:
    device = Device(site / "port")
    process = await start(site, "serial", "sniff", device.path)
    assert process.stdout is not None
    line = asyncio.ensure_future(process.stdout.readline())
    while not line.done():
        device.send(b"here")
        await asyncio.wait([line], timeout=0.2)
    device.unplug()
    _, err = await process.communicate()
    assert process.returncode == 69
    assert b"unplugged" in err or b"Input/output" in err


async def test_a_description_is_tried_without_a_queue(site: Path) -> None:
    with (site / "tidegate.toml").open("a") as file:
        file.write(f'[drivers.scale]\ntype = "serial"\nport = "{site}/port"\n')
        file.write("pattern = '(?P<weight>.*)kg'\nfields.weight = { type = \"number\" }\n")
    device = Device(site / "port")
    process = await start(site, "try", "scale", "-n", "1", "--json")
    ended = asyncio.ensure_future(process.communicate())
    while not ended.done():
        device.send(b"+12.5kg\r\n")
        await asyncio.wait([ended], timeout=0.2)
    out, err = ended.result()
    assert json.loads(json.loads(out)["body"])["values"] == {"weight": 12.5}
    assert err == b"counted: half frames\n"
    assert list((site / "data").iterdir()) == []
    device.unplug()
