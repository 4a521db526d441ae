"""What every driver must do when it runs. Its tests bring a `Peer`, which plays the devices.

Each check raises NotConforming, or TimeoutError where a driver does nothing at all.
"""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, Protocol

from gateway.clock import SystemClock
from gateway.driver import Context, Manifest
from gateway.errors import DeviceError, QueueFull, StorageFailing
from gateway.settings import Address
from gateway.testing.driver_folder import NotConforming, need
from gateway.testing.emit import FakeEmit

DEADLINE_S = 5.0
STOP_S = 3.0
SILENCE_S = 0.1
"""How long a check waits to believe that an acknowledgement does not come."""


class Link(Protocol):
    """One connection of a device."""

    async def send(self, body: bytes) -> None:
        """One record, without waiting for its acknowledgement."""

    async def acknowledged(self) -> bool:
        """Whether the next record in line was accepted; False if it was refused or the connection ended."""

    async def close(self) -> None: ...


class Peer(Protocol):
    """The devices of one driver. `connect` is None for drivers that nobody connects to."""

    def config(self, address: Address) -> Any:
        """A configuration that takes whatever the links send; it listens on `address`, if on anything."""

    @property
    def connect(self) -> Callable[[Address], Awaitable[Link]] | None: ...


class Bench:
    """One driver under test: what it runs with and what speaks to it."""

    def __init__(self, driver: Manifest, peer: Peer) -> None:
        self.manifest = driver
        self.peer = peer
        self.address = free_address()
        self.emit = FakeEmit()

    @asynccontextmanager
    async def running(
        self, as_it_stops: Callable[[], None] = lambda: None
    ) -> AsyncIterator["asyncio.Task[None]"]:
        """The driver, until the end of the block; it must stop in time. `as_it_stops` is called once it knows."""
        made = self.manifest.load()(self.peer.config(self.address), Context("bench", SystemClock()))
        task = asyncio.create_task(made.run(self.emit))
        try:
            yield task
        finally:
            crashed = task.done()
            await stopped(task, as_it_stops)
        need(not crashed, "the driver ended by itself")

    async def link(self) -> Link:
        """A connection, as soon as the driver takes one."""
        if self.peer.connect is None:
            raise NotConforming("nobody connects to this driver")
        async with asyncio.timeout(DEADLINE_S):
            while True:
                try:
                    return await self.peer.connect(self.address)
                except ConnectionRefusedError:
                    await asyncio.sleep(0.01)


async def stopped(task: "asyncio.Task[None]", as_it_stops: Callable[[], None]) -> None:
    task.cancel()
    asyncio.get_running_loop().call_soon(as_it_stops)
    done, _ = await asyncio.wait([task], timeout=STOP_S)
    need(bool(done), f"the driver still runs {STOP_S} s after it was cancelled")
    with suppress(asyncio.CancelledError):
        task.result()


def free_address() -> Address:
    """Free for TCP and for UDP."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            address = Address("127.0.0.1", probe.getsockname()[1])
        with suppress(OSError), taken(address):
            return address


@contextmanager
def taken(address: Address) -> Iterator[None]:
    """Nobody else can listen there, by TCP or by UDP."""
    with socket.create_server(address), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        datagrams.bind(address)
        yield


def open_sockets() -> int:
    count = 0
    for entry in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            count += os.readlink(f"/proc/self/fd/{entry}").startswith("socket:")
    return count


async def settled(condition: Callable[[], bool], otherwise: str) -> None:
    for _ in range(int(DEADLINE_S / 0.01)):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise NotConforming(otherwise)


async def acknowledged(link: Link) -> bool:
    async with asyncio.timeout(DEADLINE_S):
        return await link.acknowledged()


async def silent(link: Link) -> "asyncio.Task[bool]":
    """No acknowledgement comes for now; the task goes on waiting for it."""
    answer = asyncio.create_task(link.acknowledged())
    done, _ = await asyncio.wait([answer], timeout=SILENCE_S)
    need(not done or not answer.result(), "acknowledged before it was stored")
    return answer


async def serves(bench: Bench) -> None:
    async with bench.running():
        if bench.peer.connect:
            link = await bench.link()
            await link.send(b'{"n":0}')
            need(await acknowledged(link), "not acknowledged")
            await link.close()
        await bench.emit.stored(1, DEADLINE_S)
        await bench.emit.until(lambda: bench.emit.told >= 1)
    need(bench.emit.told == len(bench.emit.records), "counted other than stored")
    if bench.peer.connect:
        need(bench.emit.records[0].body == b'{"n":0}', "the body is not what the device sent")


async def leaves_nothing(bench: Bench) -> None:
    """A commit that is under way when the driver is stopped ends then."""
    tasks, sockets = len(asyncio.all_tasks()), open_sockets()
    async with bench.running(as_it_stops=bench.emit.release):
        if bench.peer.connect:
            links = [await bench.link() for _ in range(3)]
            bench.emit.hold()
            await links[0].send(b'{"n":0}')
            await bench.emit.until(lambda: bool(bench.emit.held))
        else:
            await bench.emit.stored(1, DEADLINE_S)
            links = []
    for link in links:
        await link.close()
    await settled(
        lambda: len(asyncio.all_tasks()) <= tasks and open_sockets() <= sockets, "a task or a socket is left"
    )


async def starts_again(bench: Bench) -> None:
    for count in (1, 2):
        async with bench.running():
            if bench.peer.connect:
                link = await bench.link()
                await link.send(b'{"n":%d}' % count)
                need(await acknowledged(link), "not acknowledged")
                await link.close()
            await bench.emit.stored(count, DEADLINE_S)
        bench.emit = bench.emit.restart()


async def keeps_serving_when_refused(bench: Bench) -> None:
    bench.emit.refuse = QueueFull("full")
    async with bench.running():
        if bench.peer.connect:
            link = await bench.link()
            await link.send(b'{"n":0}')
            need(not await acknowledged(link), "acknowledged though the queue refused")
            await link.close()
        else:
            await asyncio.sleep(SILENCE_S)
        need(bench.emit.told == 0, "counted though the queue refused")
        bench.emit.refuse = None
        if bench.peer.connect:
            link = await bench.link()
            await link.send(b'{"n":1}')
            need(await acknowledged(link), "not acknowledged once the queue takes records again")
            await link.close()
        await bench.emit.stored(1, DEADLINE_S)


async def counts_only_what_is_stored(bench: Bench) -> None:
    bench.emit.hold()
    async with bench.running():
        if bench.peer.connect:
            link = await bench.link()
            await link.send(b'{"n":0}')
        await bench.emit.until(lambda: bool(bench.emit.held))
        need(bench.emit.told == 0, "counted before it was stored")
        bench.emit.fail(StorageFailing("disk"))
        if bench.peer.connect:
            need(not await acknowledged(link), "acknowledged though the disk failed")
            await link.close()
        need(bench.emit.told == 0, "counted though the disk failed")
        bench.emit.release()


async def acknowledges_after_the_commit(bench: Bench) -> None:
    async with bench.running():
        link = await bench.link()
        bench.emit.hold()
        await link.send(b'{"n":0}')
        await bench.emit.until(lambda: bool(bench.emit.held))
        answer = await silent(link)
        bench.emit.release()
        async with asyncio.timeout(DEADLINE_S):
            need(await answer, "not acknowledged")
        await link.close()


async def keeps_order(bench: Bench) -> None:
    count = 20
    bodies = [b'{"n":%d}' % number for number in range(count)]
    async with bench.running():
        link = await bench.link()
        bench.emit.hold()
        sending = asyncio.create_task(_send_all(link, bodies))
        told = 0
        while told < count:
            await bench.emit.until(lambda: bool(bench.emit.held))
            bench.emit.release(1)
            while told < len(bench.emit.records):
                need(await acknowledged(link), f"record {told} was not acknowledged")
                told += 1
        await sending
        bench.emit.release()
        await link.close()
    need([record.body for record in bench.emit.records] == bodies, "records are out of order")


async def _send_all(link: Link, bodies: list[bytes]) -> None:
    for body in bodies:
        await link.send(body)


async def survives_a_lost_device(bench: Bench) -> None:
    async with bench.running():
        link = await bench.link()
        bench.emit.hold()
        await link.send(b'{"n":0}')
        await bench.emit.until(lambda: bool(bench.emit.held))
        await link.close()
        bench.emit.release()
        await bench.emit.stored(1)
        link = await bench.link()
        await link.send(b'{"n":1}')
        need(await acknowledged(link), "not acknowledged after another device was lost")
        await link.close()


async def acknowledges_nothing_when_stopped(bench: Bench) -> None:
    async with bench.running():
        link = await bench.link()
        bench.emit.hold()
        await link.send(b'{"n":0}')
        await bench.emit.until(lambda: bool(bench.emit.held))
    need(not await acknowledged(link), "acknowledged by a driver that was stopped before the commit")
    await link.close()


async def says_that_its_address_is_taken(bench: Bench) -> None:
    with taken(bench.address):
        driver = bench.manifest.load()(bench.peer.config(bench.address), Context("bench", SystemClock()))
        try:
            async with asyncio.timeout(DEADLINE_S):
                await driver.run(bench.emit)
        except DeviceError as error:
            need(
                str(error).count(str(bench.address.port)) == 1,
                f"the error doesn't name the address once: {error}",
            )
        else:
            raise NotConforming("no DeviceError")


Check = Callable[[Bench], Awaitable[None]]

RUN_CHECKS: tuple[Check, ...] = (
    serves,
    leaves_nothing,
    starts_again,
    keeps_serving_when_refused,
    counts_only_what_is_stored,
)
LINK_CHECKS: tuple[Check, ...] = (
    acknowledges_after_the_commit,
    keeps_order,
    survives_a_lost_device,
    acknowledges_nothing_when_stopped,
    says_that_its_address_is_taken,
)
"""Only for drivers that devices connect to."""
