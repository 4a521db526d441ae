"""Against others' programs: pymodbus as the slave, mbpoll as a master that has to agree with us on what is where."""

import asyncio
import shutil
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pymodbus.framer import FramerType
from pymodbus.server import ModbusSerialServer, ModbusTcpServer
from pymodbus.simulator.simdata import SimData
from pymodbus.simulator.simdevice import SimDevice
from pymodbus.simulator.simutils import DataType

from drivers.modbus import Config
from drivers.modbus.driver import line_for
from drivers.modbus.protocol import (
    ExceptionAnswer,
    Request,
    exchange_registers,
    mask_register,
    read,
    write_coil,
    write_coils,
    write_register,
    write_registers,
)
from drivers.modbus.register import Register
from gateway.port import PortSettings
from gateway.settings import Address
from gateway.testing.conformance import settled
from gateway.testing.emit import FakeEmit
from tests.modbus.rig import bodies, running, unit

pytestmark = pytest.mark.slow

UNITS = (1, 2)
REGISTERS = {
    "holding": Register(at=10),
    "float": Register(at=20, type="float32"),
    "long": Register(at=30, type="int64"),
    "text": Register(at=40, type="string", length=6),
    "input": Register(at=5, table="input"),
    "coil": Register(at=3, table="coil"),
    "discrete": Register(at=9, table="discrete"),
}
VALUES = {
    "holding": 4242,
    "float": -12.5,
    "long": -(2**40),
    "text": "pymodbus",
    "input": 777,
    "coil": True,
    "discrete": True,
}


def devices() -> list[SimDevice]:
    """Two units with the values of REGISTERS."""
    coils = [SimData(0, values=[place == 3 for place in range(32)], datatype=DataType.BITS)]
    discrete = [SimData(0, values=[place == 9 for place in range(32)], datatype=DataType.BITS)]
    holding = [
        SimData(0, values=[0] * 10, datatype=DataType.REGISTERS),
        SimData(10, values=[4242, *[0] * 9], datatype=DataType.REGISTERS),
        SimData(20, values=-12.5, datatype=DataType.FLOAT32),
        SimData(30, values=-(2**40), datatype=DataType.INT64),
        SimData(40, values="pymodbus".ljust(12, "\0"), datatype=DataType.STRING),
    ]
    inputs = [SimData(0, values=[0, 0, 0, 0, 0, 777], datatype=DataType.REGISTERS)]
    return [SimDevice(number, simdata=(coils, discrete, holding, inputs)) for number in UNITS]


@asynccontextmanager
async def over_tcp(framer: FramerType, port: int) -> AsyncIterator[Address]:
    server = ModbusTcpServer(devices(), framer=framer, address=("127.0.0.1", port))
    await server.serve_forever(background=True)
    try:
        yield Address("127.0.0.1", port)
    finally:
        await server.shutdown()  # type: ignore[no-untyped-call]


@asynccontextmanager
async def over_a_cable(folder: Path) -> AsyncIterator[Path]:
    """socat is the cable."""
    ours, theirs = folder / "ours", folder / "theirs"
    ends = [f"pty,raw,echo=0,link={end}" for end in (ours, theirs)]
    cable = await asyncio.create_subprocess_exec("socat", *ends, stdin=DEVNULL)
    await settled(lambda: ours.exists() and theirs.exists(), "socat made no ends")
    server = ModbusSerialServer(devices(), framer=FramerType.RTU, port=str(theirs), baudrate=115_200)
    await server.serve_forever(background=True)
    try:
        yield ours
    finally:
        await server.shutdown()  # type: ignore[no-untyped-call]
        cable.kill()
        await cable.wait()


@asynccontextmanager
async def bus(way: str, folder: Path, port: int) -> AsyncIterator[dict[str, Any]]:
    """What a Config says of its line."""
    if way == "serial":
        async with over_a_cable(folder) as path:
            yield {"serial": PortSettings(port=str(path), baud_rate=115_200)}
    else:
        framer = FramerType.SOCKET if way == "tcp" else FramerType.RTU
        async with over_tcp(framer, port) as address:
            yield {way: address}


@pytest.mark.parametrize("way", ["tcp", "rtu_over_tcp", "serial"])
async def test_every_table_and_type(way: str, tmp_path: Path, unused_tcp_port: int) -> None:
    emit = FakeEmit()
    async with bus(way, tmp_path, unused_tcp_port) as line:
        units = [unit(number, REGISTERS) for number in UNITS]
        async with running(Config(**line, units=units, answer_timeout=0.3), emit):
            await emit.until(lambda: len(emit.records) >= 8, within_s=20)
    for body in bodies(emit.records):
        assert (body["values"], body["quality"]) == (VALUES, {})


CHANGES: list[tuple[Request, bytes, Request, bytes]] = [
    (write_coil(4, True), b"", read("coil", 4, 1), b"\x01"),
    (write_coils(16, [True, False, True] * 4), b"", read("coil", 16, 12), b"\x6d\x0b"),
    (write_register(11, 99), b"", read("holding", 11, 1), b"\0\x63"),
    (write_registers(12, (1, 2, 3)), b"", read("holding", 12, 3), b"\0\1\0\2\0\3"),
    (mask_register(10, 0xFF00, 0x0011), b"", read("holding", 10, 1), b"\x10\x11"),
    (exchange_registers(15, 3, 16, (7, 8)), b"\0\0\0\7\0\x08", read("holding", 15, 3), b"\0\0\0\7\0\x08"),
]


@pytest.mark.parametrize("way", ["tcp", "rtu_over_tcp", "serial"])
async def test_every_function(way: str, tmp_path: Path, unused_tcp_port: int) -> None:
    async with bus(way, tmp_path, unused_tcp_port) as settings:
        line = line_for(Config(**settings, units=[], answer_timeout=0.3), lambda event, amount: None)
        for change, answer, check, expected in CHANGES:
            assert await line.exchange(1, change) == answer
            assert await line.exchange(1, check) == expected
        with pytest.raises(ExceptionAnswer, match="illegal data address"):
            await line.exchange(1, read("holding", 1000, 1))
        line.close()


async def test_mbpoll_reads_what_we_wrote(tmp_path: Path, unused_tcp_port: int) -> None:
    """It counts from 1."""
    mbpoll = shutil.which("mbpoll")
    assert mbpoll, "apt install mbpoll"
    async with over_tcp(FramerType.SOCKET, unused_tcp_port) as address:
        line = line_for(Config(tcp=address, units=[]), lambda event, amount: None)
        await line.exchange(2, write_registers(12, (0x4148, 0)))
        line.close()
        process = await asyncio.create_subprocess_exec(
            mbpoll,
            *(
                "-m",
                "tcp",
                "-p",
                str(address.port),
                "-a",
                "2",
                "-r",
                "13",
                "-c",
                "1",
                "-t",
                "4:float",
                "-B",
                "-1",
                "-q",
            ),
            "127.0.0.1",
            stdout=PIPE,
        )
        async with asyncio.timeout(10):
            out, _ = await process.communicate()
        assert b"[13]: \t12.5" in out
