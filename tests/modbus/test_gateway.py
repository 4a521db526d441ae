"""The installed gateway on a line that is pulled out and put back."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.testing.conformance import settled
from gateway.testing.modbus_slave import ModbusUnit, SerialSlave
from tests.cli.conftest import CONFIGURATION, start

pytestmark = pytest.mark.slow

DRIVER = """
[drivers.hall]
type = "modbus"
answer_timeout = "100 ms"
serial = {{ port = "{port}", baud_rate = 115200 }}
[[drivers.hall.units]]
address = 3
device = "press"
interval = "100 ms"
registers = {{ strokes = {{ at = 1 }} }}
"""


async def tailed(folder: Path, value: int) -> None:
    """Until a record with this value comes."""
    process = await start(folder, "tail", "hall", "--json")
    assert process.stdout is not None
    try:
        async with asyncio.timeout(30):
            async for line in process.stdout:
                if json.loads(json.loads(line)["body"])["values"] == {"strokes": value}:
                    return
        raise AssertionError("tail ended")
    finally:
        process.kill()
        await process.communicate()


async def status(folder: Path) -> Any:
    process = await start(folder, "status", "--json")
    out, _ = await process.communicate()
    return json.loads(out)["drivers"]["hall"]


@pytest.fixture
async def folder(tmp_path: Path) -> AsyncIterator[Path]:
    """A gateway runs on it."""
    (tmp_path / "tidegate.toml").write_text(CONFIGURATION + DRIVER.format(port=tmp_path / "port"))
    process = await start(tmp_path, "run")
    yield tmp_path
    process.terminate()
    async with asyncio.timeout(20):
        await process.communicate()


async def test_unplugged_and_plugged_in_again(folder: Path) -> None:
    slave = SerialSlave({3: ModbusUnit({1: 41})}, folder / "port")
    await settled((folder / "data/control.sock").exists, "no control socket")
    await tailed(folder, 41)
    slave.close()
    (folder / "port").unlink()
    async with asyncio.timeout(20):
        while (press := (await status(folder))["devices"]["press"])["error"] is None:
            pass
    assert re.search("there is no such port|unplugged", press["error"])
    slave = SerialSlave({3: ModbusUnit({1: 42})}, folder / "port")
    await tailed(folder, 42)
    slave.close()
