"""A whole gateway, a process of its own, with MQTT devices and Kafka; and what must hold at the end whatever was done to it."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from drivers.mqtt.passwords import hashed
from gateway.control.client import Client
from gateway.errors import CommandError
from gateway.runtime.status import Status
from gateway.testing.kafka import free_ports
from tests import proof
from tests.demo.devices import Publisher
from tests.judge.judge import Judge, read_journals, read_topics
from tests.proof import Row

TIDEGATE = str(Path(sys.executable).with_name("tidegate"))
WITHIN_S = 60.0
RATE = 5.0
DELIVERS = "Kafka: records are delivered"
CONFIGURATION = """\
[gateway]
id = "{id}"
data_dir = "data"
default_topic = "{id}"
[queue]
max_bytes = "4 MiB"
min_free_bytes = "0 B"
[kafka]
bootstrap_servers = ["{bootstrap}"]
[drivers.floor]
type = "mqtt"
listen = "127.0.0.1:{port}"
[drivers.floor.users.demo]
password = "{password}"
publish = ["#"]
"""
PASSWORD = hashed("demo-password")


class Audited(NamedTuple):
    """`again`: sent again by the device, and in Kafka with the mark that says so."""

    acknowledged: int
    lost: int
    twice: int
    again: int
    out_of_order: int

    @property
    def clean(self) -> bool:
        return not (self.lost or self.twice or self.out_of_order)


class Gateway:
    """Topic and id are its name. `folder` holds all of it, `data` (the queue) may be a file system of its own. It reaches
    Kafka by `link`, the judge by `bootstrap`."""

    def __init__(self, folder: Path, name: str, bootstrap: str, link: str | None = None) -> None:
        self.name = name
        self.folder = folder
        self.data = folder / "data"
        self.log = folder / "log"
        self.port = free_ports(1)[0]
        self.process: Process
        self._bootstrap = bootstrap
        text = CONFIGURATION.format(id=name, bootstrap=link or bootstrap, port=self.port, password=PASSWORD)
        (folder / "tidegate.toml").write_text(text)

    async def start(
        self, *, prefix: Sequence[str] = (), environment: Mapping[str, str] | None = None, live: bool = True
    ) -> None:
        """Until it delivers, or only (`live=False`) until it is started."""
        since = len(self.said())
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *("setpriv", "--pdeathsig", "KILL", *prefix, TIDEGATE, "run"),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **(environment or {})},
            )
        if live:
            await until(lambda: DELIVERS in self.said()[since:], "it does not deliver", self.said)

    def said(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    async def ended(self) -> int:
        """The exit code, once it is over by itself."""
        async with asyncio.timeout(WITHIN_S):
            return await self.process.wait()

    async def status(self) -> Status:
        """Raises CommandError while it does not answer."""
        return await asyncio.to_thread(Client(self.data / "control.sock").status)

    async def drained(self) -> None:
        """Until all that is stored by now is delivered; devices may send on."""
        stored: int | None = None
        async with asyncio.timeout(WITHIN_S):
            while True:
                try:
                    lane = (await self.status()).queue.lanes["main"]
                    stored = lane.stored if stored is None else stored
                    if lane.position >= stored:
                        return
                except CommandError:
                    assert self.process.returncode is None, self.said()
                await asyncio.sleep(0.05)

    async def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        assert await self.ended() == 0, self.said()

    def reload(self) -> None:
        self.process.send_signal(signal.SIGHUP)

    async def kill(self) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()

    async def audit(self) -> Audited:
        """Of what the devices were told, and what a read_committed consumer sees; the numbers of the gateway, too."""
        return await asyncio.to_thread(self._audit)

    def _audit(self) -> Audited:
        judge = Judge(frozenset())
        for message in read_topics(self._bootstrap, [self.name]):
            judge.read(message)
        judge.compare(read_journals(self.folder), [])
        account = judge.accounts["floor"]
        # A queue that was saved from a damaged one begins with what that had delivered under other numbers.
        saved = (self.folder / "data" / "quarantine").exists()
        assert judge.numbers.clean() or (saved and not judge.numbers.twice), judge.numbers
        return Audited(account.accepted, account.lost, account.twice, account.again, account.out_of_order)


class Devices:
    """Publishers with QoS 1 and 2 who send on until they are told to end, and again what was not acknowledged."""

    def __init__(self, gateway: Gateway, padding: int = 0) -> None:
        self.publishers = [
            Publisher("floor", name, gateway.folder, RATE, qos, ("127.0.0.1", gateway.port))
            for name, qos in (("press", 1), ("robot", 2))
        ]
        for publisher in self.publishers:
            publisher.padding = padding
        self._no_more = asyncio.Event()
        self._tasks = [asyncio.create_task(publisher.run(self._no_more)) for publisher in self.publishers]

    @property
    def told(self) -> int:
        return sum(publisher.told for publisher in self.publishers)

    async def told_more(self, said: Callable[[], str]) -> float:
        """Seconds until something is acknowledged that was not yet."""
        before, began = self.told, time.monotonic()
        await until(lambda: self.told > before, "nothing is acknowledged", said)
        return time.monotonic() - began

    async def end(self) -> None:
        """Once all is acknowledged."""
        self._no_more.set()
        async with asyncio.timeout(WITHIN_S):
            await asyncio.gather(*self._tasks)

    async def abandon(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for publisher in self.publishers:
            publisher.close()


@asynccontextmanager
async def at_work(gateway: Gateway, padding: int = 0) -> AsyncIterator[Devices]:
    """Devices that are heard. Whatever happens, nothing of it runs on."""
    devices = Devices(gateway, padding)
    try:
        await devices.told_more(gateway.said)
        yield devices
    finally:
        await devices.abandon()
        await gateway.kill()


async def settle(gateway: Gateway, devices: Devices) -> Audited:
    """Devices end, the gateway delivers what waits and ends, and the audit."""
    await devices.end()
    await gateway.drained()
    await gateway.stop()
    return await gateway.audit()


async def until(condition: Callable[[], bool], complaint: str, said: Callable[[], str]) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < deadline, f"{complaint}: {said()[-2000:]}"
        await asyncio.sleep(0.02)


def tell(fault: str, what: str, audited: Audited, recovery_s: float | None) -> None:
    """A row of the page of proofs; the audit must be clean."""
    assert audited.clean, audited
    assert audited.acknowledged > 0
    proof.tell(
        Row(fault, what, 1, audited.acknowledged, audited.lost, audited.twice, recovery_s, "make proof")
    )
