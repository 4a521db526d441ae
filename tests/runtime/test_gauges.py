"""What an alert can be built on: a driver that can't listen, a dead line, a topic that is missing, a restart that is due."""

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway import __version__
from gateway.clock import SystemClock
from gateway.config import Config
from gateway.record import Record
from gateway.routing import Router
from gateway.runtime import supervisor
from gateway.runtime.runtime import Runtime
from tests.runtime.test_runtime import configuration

WITHIN_S = 20.0


class SetClock(SystemClock):
    ahead_ms = 0

    def wall_ms(self) -> int:
        return super().wall_ms() + self.ahead_ms


def with_drivers(folder: Path, drivers: str) -> Config:
    return configuration(
        folder, ("[queue]", f'default_topic = "all"\n{drivers}\n[queue]'), ('"5 s"', '"100 ms"')
    )


@asynccontextmanager
async def running(folder: Path, drivers: str, clock: SystemClock | None = None) -> AsyncIterator[Runtime]:
    runtime = await Runtime.start(with_drivers(folder, drivers), clock or SystemClock())
    try:
        yield runtime
    finally:
        await runtime.stop()


async def series(runtime: Runtime) -> dict[str, float]:
    lines = (await runtime.prometheus()).splitlines()
    return {
        name: float(value) for name, _, value in (line.rpartition(" ") for line in lines) if name[0] != "#"
    }


async def until(runtime: Runtime, come: Callable[[dict[str, float]], bool]) -> dict[str, float]:
    async with asyncio.timeout(WITHIN_S):
        while not come(found := await series(runtime)):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        return found


async def test_a_driver_that_cannot_listen_and_one_that_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "BACKOFF_S", (0.2, 0.2))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        web = f'[drivers.web]\ntype = "http"\nlisten = "{listen}"\nanonymous = true'
        async with running(tmp_path, f'{web}\n[drivers.plant]\ntype = "simulated"') as runtime:
            await until(runtime, lambda told: told['tidegate_driver_restarts_total{driver="web"}'] >= 2)
            await until(runtime, lambda told: told['tidegate_driver_running{driver="web"}'] == 0)
            told = await until(runtime, lambda told: told['tidegate_driver_running{driver="plant"}'] == 1)
            assert told['tidegate_driver_restarts_total{driver="plant"}'] == 0
            await runtime.reconfigure(with_drivers(tmp_path, '[drivers.plant]\ntype = "simulated"'))
            text = await runtime.prometheus()
            assert 'driver="web"' not in text
            assert 'tidegate_driver_running{driver="plant"} 1' in text


async def test_devices_of_a_dead_line_are_counted(tmp_path: Path) -> None:
    bus = '[drivers.bus]\ntype = "modbus"\ntcp = "127.0.0.1:1"\n'
    for unit in (1, 2):
        bus += f'[[drivers.bus.units]]\naddress = {unit}\ndevice = "meter-{unit}"\nregisters.power.at = 0\n'
    async with running(tmp_path, bus.strip()) as runtime:
        told = await until(runtime, lambda told: told['tidegate_devices_failing{driver="bus"}'] == 2)
        assert told['tidegate_driver_running{driver="bus"}'] == 1


async def test_how_long_the_oldest_record_waits(tmp_path: Path) -> None:
    clock = SetClock()
    async with running(tmp_path, "", clock) as runtime:
        assert (await series(runtime))["tidegate_oldest_record_seconds"] == 0
        await runtime.queue.put(Router([], "all").entries("web", [Record("a", "press", b"1", 0)]))
        clock.ahead_ms += 60_000
        assert 60 <= (await series(runtime))["tidegate_oldest_record_seconds"] < 70
        clock.ahead_ms -= 3_600_000
        assert (await series(runtime))["tidegate_oldest_record_seconds"] == 0


async def test_the_process_and_what_it_waits_for(tmp_path: Path) -> None:
    async with running(tmp_path, "") as runtime:
        told = await series(runtime)
        assert told[f'tidegate_info{{version="{__version__}"}}'] == 1
        assert 0 <= SystemClock().wall_ms() / 1000 - told["process_start_time_seconds"] < WITHIN_S
        assert (told["tidegate_needs_restart"], told["tidegate_parked_topics"]) == (0, 0)
        await runtime.reconfigure(configuration(tmp_path, ('"5 s"', '"1 h"')))
        assert (await series(runtime))["tidegate_needs_restart"] == 1


async def test_what_only_grows_is_a_counter_that_begins_with_the_process(tmp_path: Path) -> None:
    async with running(tmp_path, "") as runtime:
        records = [Record("a", "press", b"%d" % number, 0) for number in range(3)]
        await runtime.queue.put(Router([], "all").entries("web", records))
        runtime.queue.advance("main", 2, 2)
        told = await series(runtime)
        assert told['tidegate_queue_stored_total{lane="main"}'] == 3
        assert told['tidegate_queue_delivered_total{lane="main"}'] == 2
        assert told["tidegate_commits_total"] > 0
        assert {"tidegate_sent_bytes_total", "tidegate_transactions_total"} <= told.keys()
        assert {"tidegate_written_bytes_total", 'tidegate_queue_dead_total{lane="ledger"}'} <= told.keys()
    async with running(tmp_path, "") as runtime:
        told = await series(runtime)
        assert told['tidegate_queue_pending{lane="main"}'] == 1
        assert told['tidegate_queue_stored_total{lane="main"}'] == 0
        assert told['tidegate_queue_delivered_total{lane="main"}'] == 0
        kinds = dict(re.findall("# TYPE ([a-z_]+) ([a-z]+)", await runtime.prometheus()))
        assert {name for name, kind in kinds.items() if kind == "counter"} == {
            name for name in kinds if name.endswith("_total")
        }
        assert kinds["tidegate_queue_dropped"] == "gauge"
