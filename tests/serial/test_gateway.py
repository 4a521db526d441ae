"""The installed gateway with a serial device: socat is the wire, status and Kafka are what an operator and a consumer see."""

import asyncio
import json
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from drivers.serial.framing import WRONG_CHECK
from gateway.testing.conformance import settled
from gateway.testing.kafka import KafkaBroker

pytestmark = pytest.mark.slow
TIDEGATE = Path(sys.executable).with_name("tidegate")
WITHIN_S = 20
CONFIGURATION = """
[gateway]
id = "plant-7"
data_dir = "data"
default_topic = "{topic}"
[queue]
min_free_bytes = "0 B"
unacked_interval = "10 ms"
[kafka]
bootstrap_servers = ["{bootstrap}"]
linger = "0 ms"

[drivers.climate]
type = "serial"
port = "{port}"
baud_rate = 19200
device_field = "address"
frame = {{ start = "hex:aa 55", length_at = 2, length_adds = 3 }}
check = {{ kind = "crc", width = 16, polynomial = 0x8005, init = 0xffff, reflect = true, byte_order = "little", at = -2 }}
fields.address = {{ type = "u8", at = 3 }}
fields.temperature = {{ type = "i16", at = 5, byte_order = "little", scale = 0.1 }}

[[routes]]
from = "climate"
match = "serial/+"
topic = "{topic}"
key = "{{1}}"
"""
FRAME = bytes.fromhex("aa 55 08 07 21 d7 00 de 12 9d 3d")


@asynccontextmanager
async def process(*command: object, folder: Path) -> AsyncIterator[Process]:
    made = await asyncio.create_subprocess_exec(
        *map(str, command), cwd=folder, stderr=PIPE, stdout=PIPE, stdin=DEVNULL
    )
    try:
        yield made
    finally:
        if made.returncode is None:
            made.terminate()
        await made.communicate()


def wire(folder: Path) -> Any:
    """A pair of pseudo-terminals; what is written to "device" comes out of "port"."""
    return process("socat", "pty,raw,echo=0,link=device", "pty,raw,echo=0,link=port", folder=folder)


async def there(path: Path) -> None:
    await settled(path.exists, f"no {path}")


def say(folder: Path, data: bytes) -> None:
    with (folder / "device").open("wb", buffering=0) as device:
        device.write(data)


async def status(folder: Path) -> dict[str, Any]:
    async with process(TIDEGATE, "status", "--json", folder=folder) as asked:
        out, _ = await asked.communicate()
    return json.loads(out) if out else {}


async def until(folder: Path, condition: Callable[[dict[str, Any]], bool], data: bytes = b"") -> int:
    """Records accepted once the driver's status is so; the device goes on saying `data`."""
    async with asyncio.timeout(WITHIN_S):
        while True:
            if data:
                say(folder, data)
            found = await status(folder)
            if found and condition(found["drivers"]["climate"]):
                return int(found["drivers"]["climate"]["accepted"])
            await asyncio.sleep(0.1)


async def test_a_cable_comes_and_goes(tmp_path: Path) -> None:
    (tmp_path / "tidegate.toml").write_text(
        CONFIGURATION.format(port=tmp_path / "port", topic="climate", bootstrap="127.0.0.1:1")
    )
    broken = FRAME[:-1] + b"?"
    async with process(TIDEGATE, "run", folder=tmp_path) as gateway:
        await until(tmp_path, lambda driver: driver["events"] == {"losses of the port": 1})
        accepted = 0
        for _ in range(2):
            async with wire(tmp_path):
                await there(tmp_path / "device")
                accepted = await until(tmp_path, more_than(accepted), FRAME)
            lost = await until(tmp_path, lambda driver: driver["devices"]["7"]["error"] is not None)
        async with wire(tmp_path):
            await there(tmp_path / "device")
            await until(tmp_path, lambda driver: driver["events"].get(WRONG_CHECK, 0) > 0, broken)
            gateway.terminate()
            _, log = await gateway.communicate()
    assert lost == accepted, "a frame with a wrong check became a record"
    lines = [line for line in log.decode().splitlines() if "climate" in line]
    assert sum("trying again every second" in line for line in lines) == 3
    assert sum("works again" in line for line in lines) == 3


def more_than(accepted: int) -> Callable[[dict[str, Any]], bool]:
    return lambda driver: driver["accepted"] > accepted and driver["devices"]["7"]["error"] is None


@pytest.mark.kafka
async def test_from_bytes_to_kafka(kafka: KafkaBroker, topic: str, tmp_path: Path) -> None:
    (tmp_path / "tidegate.toml").write_text(
        CONFIGURATION.format(port=tmp_path / "port", topic=topic, bootstrap=kafka.bootstrap)
    )
    async with wire(tmp_path), process(TIDEGATE, "run", folder=tmp_path):
        await there(tmp_path / "device")
        await until(tmp_path, lambda driver: driver["accepted"] > 0, FRAME)
        async with asyncio.timeout(60):
            while not (delivered := await asyncio.to_thread(kafka.read, topic)):  # noqa: ASYNC110
                await asyncio.sleep(0.2)
    assert delivered[0].key == b"7"
    body = json.loads(delivered[0].value)
    assert body["device"] == "7"
    assert body["values"] == {"address": 7, "temperature": 21.5}
