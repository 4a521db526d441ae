"""A driver that fails is started again, alone, later and later; one line tells of it and one of its recovery."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.clock import SystemClock
from gateway.config import DriverConfig
from gateway.driver import Context, Emit, Manifest, Mark
from gateway.errors import DeviceError
from gateway.metrics import Metrics
from gateway.queue import Queue, QueueSettings
from gateway.record import Record
from gateway.routing import Router
from gateway.runtime import supervisor as supervisor_module
from gateway.runtime.emit import QueueEmit
from gateway.runtime.supervisor import Supervisor
from gateway.runtime.tap import Tap


@dataclass(frozen=True)
class Config:
    pass


class Faulty:
    """Fails once for each of the failures, then works."""

    starts = 0
    failures: tuple[Exception, ...] = ()

    def __init__(self, config: Config, context: Context) -> None:
        pass

    async def run(self, emit: Emit) -> None:
        Faulty.starts += 1
        if Faulty.starts <= len(Faulty.failures):
            raise Faulty.failures[Faulty.starts - 1]
        await emit([Record("a", "device", b"1", 0)])
        await asyncio.Event().wait()


class Deaf:
    """Does not end when it is told to."""

    def __init__(self, config: Config, context: Context) -> None:
        pass

    async def run(self, emit: Emit) -> None:
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                if emit.recall("let go"):
                    raise


@pytest.fixture
async def emit(tmp_path: Path) -> AsyncIterator[QueueEmit]:
    clock = SystemClock()
    queue = await Queue.open(
        tmp_path / "queue.db", QueueSettings(min_free_bytes=0, commit_interval=0.001), clock
    )
    yield QueueEmit("floor", queue, Router([], "all"), Tap(), Metrics(), clock)
    await queue.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor_module, "BACKOFF_S", (0.001, 0.002))
    monkeypatch.setattr(supervisor_module, "STOP_S", 0.05)
    Faulty.starts = 0


def supervisor(emit: QueueEmit, driver: str, *failures: Exception) -> Supervisor:
    Faulty.failures = failures
    manifest = Manifest(
        name="faulty", summary="", config=Config, factory=f"{__name__.rpartition('.')[2]}:{driver}"
    )
    object.__setattr__(manifest, "load", lambda: {"Faulty": Faulty, "Deaf": Deaf}[driver])
    settings = DriverConfig(name="floor", manifest=manifest, settings=Config())
    return Supervisor(settings, emit, SystemClock(), "plant-7")


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def test_one_line_for_the_first_failure_and_one_for_the_recovery(
    emit: QueueEmit, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    one = supervisor(
        emit, "Faulty", DeviceError("port is gone"), DeviceError("still gone"), ValueError("a bug")
    )
    task = asyncio.create_task(one.run())
    await until(lambda: "works again" in caplog.text)
    assert [message.split(";")[0] for message in caplog.messages] == [
        "driver floor failed: port is gone",
        "driver floor works again",
    ]
    assert (one.health.running, one.health.error, one.health.restarts) == (True, "a bug", 3)
    task.cancel()
    await asyncio.wait([task])


async def test_a_bug_shows_its_traceback(emit: QueueEmit, caplog: pytest.LogCaptureFixture) -> None:
    task = asyncio.create_task(supervisor(emit, "Faulty", ValueError("a bug")).run())
    await until(lambda: "a bug" in caplog.text)
    assert "Traceback" in caplog.text
    task.cancel()
    await asyncio.wait([task])


async def test_a_driver_that_does_not_end_is_left_behind(
    emit: QueueEmit, caplog: pytest.LogCaptureFixture
) -> None:
    task = asyncio.create_task(supervisor(emit, "Deaf").run())
    await until(lambda: any(one.get_name() == "driver floor" for one in asyncio.all_tasks()))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert "driver floor did not end in 0.05 s" in caplog.text
    await emit([], remember=[_let_go()])
    for left in asyncio.all_tasks():
        if left.get_name() == "driver floor":
            left.cancel()
            await asyncio.wait([left])


def _let_go() -> Mark:
    return Mark("let go", b"", b"", 60)
