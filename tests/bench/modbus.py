"""Modbus: how near to the line rate, and what a request costs. The slaves are another process: python -m tests.bench.modbus."""

import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from drivers.modbus import Config
from drivers.modbus.driver import ModbusDriver
from drivers.modbus.register import Register
from drivers.modbus.unit import Unit
from gateway.clock import SystemClock
from gateway.driver import Context
from gateway.port import PortSettings
from gateway.settings import Address
from gateway.testing.emit import FakeEmit
from gateway.testing.modbus_slave import ModbusUnit, SerialSlave, TcpSlave
from tests.bench.row import Row

BAUD_RATE = 19_200
CHARACTER_S = 11 / BAUD_RATE
ANSWER_S = 0.005
REGISTERS = (10, 60, 125)
TCP_UNITS = 32
TCP_INTERVAL_S = 0.02
SECONDS = 5.0


def rows() -> Iterator[Row]:
    for registers in REGISTERS:
        rate = asyncio.run(_rtu_rate(registers))
        # Request, the unit's answer time, answer, and the rest of 3.5 characters.
        possible = 1 / ((8 + 5 + 2 * registers + 3.5) * CHARACTER_S + ANSWER_S)
        yield Row(
            f"RTU at {BAUD_RATE:,} baud, {registers} registers a request, answers after 5 ms",
            f"{rate:.1f} requests/s, {rate / possible:.1%} of what the line allows",
            "95 %",
        )
    for units, interval in ((1, 0.001), (TCP_UNITS, TCP_INTERVAL_S)):
        rate, cpu_s = asyncio.run(_tcp_cost(units, interval))
        yield Row(
            f"TCP, {units} units in parallel, 100 registers a request, decoded and emitted",
            f"{rate:.0f} requests/s, {1000 * cpu_s:.2f} ms CPU a request",
        )


async def _rtu_rate(registers: int) -> float:
    """Requests a second on a line that is never idle, of ten units."""
    with tempfile.TemporaryDirectory() as folder, slaves("rtu", Path(folder)):
        port = PortSettings(port=f"{folder}/port", baud_rate=BAUD_RATE, parity="even")
        config = Config(serial=port, units=[_unit(number, registers, 0.01) for number in range(1, 11)])
        emit = FakeEmit()
        task = asyncio.create_task(ModbusDriver(config, Context("bench", SystemClock())).run(emit))
        await emit.stored(10, within_s=60)
        before, began = len(emit.records), time.monotonic()
        await asyncio.sleep(SECONDS)
        rate = (len(emit.records) - before) / (time.monotonic() - began)
        task.cancel()
        await asyncio.wait([task])
    return rate


async def _tcp_cost(units: int, interval: float) -> tuple[float, float]:
    """Requests a second and CPU seconds of each; one driver and one connection a unit."""
    with tempfile.TemporaryDirectory() as folder, slaves("tcp", Path(folder)) as port:
        emit = FakeEmit()
        tasks = [
            asyncio.create_task(
                ModbusDriver(
                    Config(tcp=Address("127.0.0.1", port), units=[_unit(1, 100, interval)]),
                    Context(f"bench-{number}", SystemClock()),
                ).run(emit)
            )
            for number in range(units)
        ]
        await emit.stored(units, within_s=60)
        before, cpu, began = len(emit.records), time.process_time(), time.monotonic()
        await asyncio.sleep(SECONDS)
        count = len(emit.records) - before
        found = count / (time.monotonic() - began), (time.process_time() - cpu) / count
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    return found


def _unit(address: int, registers: int, interval: float) -> Unit:
    """Half of the values plain, half scaled."""
    values = {f"value_{at}": Register(at=at, scale=0.1 if at % 2 else 1.0) for at in range(registers)}
    return Unit(address=address, device=f"unit-{address}", registers=values, interval=interval)


def drivers(port: int) -> str:
    """TOML of one driver a unit, as in `rows`."""
    registers = ", ".join(
        f"value_{at} = {{ at = {at}, scale = {0.1 if at % 2 else 1.0} }}" for at in range(100)
    )
    return "".join(
        f"""
[drivers.bus-{number}]
type = "modbus"
tcp = "127.0.0.1:{port}"
[[drivers.bus-{number}.units]]
address = 1
device = "unit-{number}"
interval = "{TCP_INTERVAL_S * 1000:g} ms"
registers = {{ {registers} }}
"""
        for number in range(TCP_UNITS)
    )


@contextmanager
def slaves(kind: str, folder: Path) -> Iterator[int]:
    """The port of those on TCP; `folder` is for those on a pty."""
    command = [sys.executable, "-m", "tests.bench.modbus", kind, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline())
        process.kill()


async def _serve_tcp() -> None:
    slave = TcpSlave({1: ModbusUnit({at: at for at in range(125)})})
    await slave.listen()
    print(slave.port, flush=True)
    await asyncio.Event().wait()


def _play(kind: str, folder: Path) -> None:
    """Until killed, or the one who reads standard input ends."""
    if kind == "tcp":
        asyncio.run(_serve_tcp())
        return
    units = {number: ModbusUnit({at: at for at in range(125)}) for number in range(1, 11)}
    SerialSlave(units, folder / "port", character_s=CHARACTER_S, answer_s=ANSWER_S)
    print(0, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    _play(sys.argv[1], Path(sys.argv[2]))
