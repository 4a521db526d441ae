"""What the links to a cluster suffer while a gateway delivers over them. Each fault is over when its function returns."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple

from gateway.sync import LinkState
from gateway.testing.proxy import DOWN, UP, Api, Direction
from tests.brokers.links import Links
from tests.brokers.load import Load
from tests.sync.rig import until

SLOW_DELAY_S = 0.4
SLOW_BYTES_PER_S = 8000
SLOW_CUTS = 3
WAIT_S = 90.0


class Site(NamedTuple):
    links: Links
    load: Load
    dice: random.Random


Fault = Callable[[Site], Awaitable[None]]


async def link_down_shortly(site: Site) -> None:
    await site.links.cut()
    await asyncio.sleep(site.dice.uniform(0.1, 1.0))
    await site.links.restore()


async def link_down(site: Site) -> None:
    await site.links.cut()
    await until(lambda: site.load.sync.status().state is LinkState.DOWN, WAIT_S)
    await asyncio.sleep(site.dice.uniform(0.0, 4.0))
    await site.links.restore()


async def link_silent(site: Site) -> None:
    """Until the gateway has noticed."""
    site.links.black_hole()
    await until(lambda: site.load.sync.status().state is LinkState.DOWN, WAIT_S)
    await site.links.restore()


async def link_slow(site: Site) -> None:
    """Records must arrive while it lasts, also between cuts."""
    turn_s, site.load.turn_s = site.load.turn_s, 0.5
    site.links.shape(delay_s=SLOW_DELAY_S, bytes_per_s=SLOW_BYTES_PER_S)
    for _ in range(SLOW_CUTS):
        await asyncio.sleep(site.dice.uniform(0.0, 3.0))
        await site.links.reset()
        before = site.load.queue.position("main")
        await until(lambda: site.load.queue.position("main") > before, WAIT_S)  # noqa: B023
    await site.links.restore()
    site.load.turn_s = turn_s


async def cut_within(site: Site, api: Api, direction: Direction, share: float) -> None:
    """The connection breaks when so much of the next such request or answer has passed."""
    sizes = [frame.size for frame in site.links.frames(api, direction)[-1:]]
    trap = site.links.trap(api, direction, round(share * max(sizes, default=100)))
    if api in (Api.METADATA, Api.INIT_PRODUCER_ID):  # those come with a new connection
        await site.links.reset()
    await asyncio.wait_for(trap.reached.wait(), WAIT_S)
    await site.links.restore()


async def end_is_late(site: Site) -> None:
    """A commit's request arrives when the next producer already has a transaction open."""
    trap = site.links.trap(Api.END_TXN, UP)
    await asyncio.wait_for(trap.reached.wait(), WAIT_S)
    for api, direction in ((Api.INIT_PRODUCER_ID, DOWN), (Api.ADD_PARTITIONS_TO_TXN, DOWN)):
        seen = len(site.links.frames(api, direction))
        await until(lambda: len(site.links.frames(api, direction)) > seen, WAIT_S)  # noqa: B023
    await site.links.restore()


CUT_APIS = (
    Api.PRODUCE,
    Api.END_TXN,
    Api.ADD_PARTITIONS_TO_TXN,
    Api.INIT_PRODUCER_ID,
    Api.METADATA,
)


async def cut_within_any(site: Site) -> None:
    await cut_within(site, site.dice.choice(CUT_APIS), site.dice.choice((UP, DOWN)), site.dice.random())


LINK_FAULTS: Mapping[Fault, tuple[str, str]] = {
    link_down_shortly: ("11", "all links cut for up to 1 s"),
    link_down: ("11", "all links cut until the gateway has noticed, and up to 4 s more"),
    link_silent: ("12", "nothing passes and nothing is closed, until the gateway has noticed"),
    link_slow: ("13", f"64 kbit/s a connection, 800 ms there and back, cut {SLOW_CUTS} times"),
    cut_within_any: ("14", "within a request or answer, somewhere"),
    end_is_late: ("15", "held until the next transaction is open"),
}
"""With what they are in the page of proofs: the fault's number there, and what was done."""
