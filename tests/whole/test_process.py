"""A whole gateway that runs out of descriptors or memory, hangs, or is told to end while Kafka can't be reached."""

import asyncio
import contextlib
import os
import resource
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.testing.kafka import KafkaBroker
from gateway.testing.proxy import Proxy
from tests.whole.calls import inject, needs_strace, threads
from tests.whole.rig import Audited, Devices, Gateway, at_work, settle, tell
from tests.whole.watchdog import Watchdog

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.proof, pytest.mark.timeout(300)]

CROWD = 20
SHORT_S = 5.0
HANGS_S = 5
MORTAL = Path(__file__).with_name("mortal")


@pytest.fixture
def watchdog(tmp_path: Path) -> Iterator[Watchdog]:
    with contextlib.closing(Watchdog(tmp_path / "notify")) as watchdog:
        yield watchdog


async def test_a_gateway_without_descriptors_serves_whom_it_has(
    link: Proxy, kafka: KafkaBroker, topic: str, watchdog: Watchdog, tmp_path: Path
) -> None:
    gateway = Gateway(tmp_path, topic, kafka.bootstrap, link.address)
    await gateway.start(environment=watchdog.environment)
    async with at_work(gateway) as devices:
        pid = gateway.process.pid
        before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        highest = max(int(name) for name in os.listdir(f"/proc/{pid}/fd"))
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (highest + 3, before[1]))
        crowd = [await asyncio.open_connection("127.0.0.1", gateway.port) for _ in range(CROWD)]
        await link.reset()
        assert not await watchdog.starves(within_s=SHORT_S)
        await devices.told_more(gateway.said)
        for _, writer in crowd:
            writer.transport.abort()
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
        began = time.monotonic()
        await gateway.drained()
        recovery_s = time.monotonic() - began
        audited = await settle(gateway, devices)
    tell("36", "no descriptors left, while the connection to Kafka breaks", audited, recovery_s)


def address_space(pid: int) -> int:
    """Bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()


async def test_a_gateway_without_memory_acknowledges_nothing_that_it_loses(
    kafka: KafkaBroker, topic: str, tmp_path: Path
) -> None:
    gateway = Gateway(tmp_path, topic, kafka.bootstrap)
    await gateway.start()
    async with at_work(gateway, padding=30_000) as devices:
        before = resource.prlimit(gateway.process.pid, resource.RLIMIT_AS)
        size = address_space(gateway.process.pid)
        resource.prlimit(gateway.process.pid, resource.RLIMIT_AS, (size, before[1]))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SHORT_S):
                await gateway.process.wait()
        print(gateway.process.returncode, gateway.said())
        began = time.monotonic()
        if gateway.process.returncode is None:
            resource.prlimit(gateway.process.pid, resource.RLIMIT_AS, before)
        else:
            assert gateway.process.returncode != 0
            await gateway.start()
        await devices.told_more(gateway.said)
        recovery_s = time.monotonic() - began
        audited = await settle(gateway, devices)
    tell("36", "no more memory for 5 s", audited, recovery_s)


async def started_again(gateway: Gateway, watchdog: Watchdog, devices: Devices) -> tuple[Audited, float]:
    """The audit, and the seconds of the start."""
    began = time.monotonic()
    await gateway.start(environment=watchdog.environment)
    recovery_s = time.monotonic() - began
    return await settle(gateway, devices), recovery_s


@needs_strace
@pytest.mark.parametrize(
    ("thread", "syscall"), [("main", "sendto"), ("queue", "fdatasync")], ids=["loop", "storage"]
)
async def test_a_thread_that_hangs_starves_the_watchdog(
    thread: str, syscall: str, kafka: KafkaBroker, topic: str, watchdog: Watchdog, tmp_path: Path
) -> None:
    gateway = Gateway(tmp_path, topic, kafka.bootstrap)
    await gateway.start(environment=watchdog.environment)
    async with at_work(gateway) as devices:
        assert not await watchdog.starves(within_s=3)
        tid = next(tid for tid, name in threads(gateway.process.pid).items() if name == thread)
        async with inject(tid, syscall, f"delay_enter={HANGS_S * 10**6}:when=1", tmp_path / "calls"):
            assert await watchdog.starves(within_s=2 * HANGS_S)
            await watchdog.bite(gateway.process)
        audited, recovery_s = await started_again(gateway, watchdog, devices)
    what = "event loop" if thread == "main" else "storage thread"
    tell(
        "37", f"the {what} hangs for {HANGS_S} s and systemd's watchdog ends the process", audited, recovery_s
    )


@pytest.mark.parametrize(
    ("signal_number", "what"),
    [(signal.SIGUSR1, "event loop"), (signal.SIGUSR2, "storage thread")],
    ids=["loop", "storage"],
)
async def test_a_thread_that_dies_starves_the_watchdog(
    signal_number: int, what: str, kafka: KafkaBroker, topic: str, watchdog: Watchdog, tmp_path: Path
) -> None:
    gateway = Gateway(tmp_path, topic, kafka.bootstrap)
    await gateway.start(environment=watchdog.environment | {"PYTHONPATH": str(MORTAL)})
    async with at_work(gateway) as devices:
        assert not await watchdog.starves(within_s=3)
        gateway.process.send_signal(signal_number)
        assert await watchdog.starves(within_s=2 * HANGS_S)
        await watchdog.bite(gateway.process)
        audited, recovery_s = await started_again(gateway, watchdog, devices)
    tell("37", f"the {what} dies and systemd's watchdog ends the process", audited, recovery_s)


@pytest.mark.parametrize("kafka_is", ["down", "silent"])
async def test_told_to_end_without_kafka_it_ends_and_keeps_what_waits(
    kafka_is: str, link: Proxy, kafka: KafkaBroker, topic: str, tmp_path: Path
) -> None:
    """Its last words tell that it was not ended by force, which comes 4.5 s after the signal."""
    gateway = Gateway(tmp_path, topic, kafka.bootstrap, link.address)
    await gateway.start()
    async with at_work(gateway) as devices:
        if kafka_is == "down":
            await link.cut()
        else:
            link.black_hole()
        for _ in range(3):
            await devices.told_more(gateway.said)
        await gateway.stop()
        assert "records wait for the next start" in gateway.said().splitlines()[-1]
        assert "ended; 0 records" not in gateway.said()
        await link.restore()
        began = time.monotonic()
        await gateway.start()
        recovery_s = time.monotonic() - began
        audited = await settle(gateway, devices)
    tell("38", f"SIGTERM while Kafka is {kafka_is}", audited, recovery_s)
