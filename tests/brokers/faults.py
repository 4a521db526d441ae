"""What a cluster and the links to it suffer while a gateway delivers. Each fault is over when its function returns."""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple

from gateway.sync import LinkState
from gateway.sync.kafka import partition_of
from gateway.testing.cluster import KafkaCluster
from gateway.testing.proxy import DOWN, UP, Api
from tests.brokers.links import Links
from tests.brokers.load import Load
from tests.sync.rig import until

SLOW_DELAY_S = 0.4
SLOW_BYTES_PER_S = 8000
STOPPED_S = 8.0
NEW_CONNECTION = (Api.METADATA, Api.INIT_PRODUCER_ID)
"""Asked when a connection broke; the latter only if an answer was awaited then."""

AGAIN_S = 3.0
POSITIONS_PARTITIONS = 50
WAIT_S = 120.0


class Site(NamedTuple):
    """`full`: outages last ten minutes and not seconds, slow links are cut more often. `turn`: which time it is, from 0 on,
    where one fault is repeated: connections are cut byte by byte then."""

    cluster: KafkaCluster
    links: Links
    load: Load
    gateway_id: str
    dice: random.Random
    full: bool = False
    turn: int | None = None

    def down(self) -> bool:
        return self.load.sync.status().state is LinkState.DOWN

    def outage_s(self) -> float:
        return 600.0 if self.full else self.dice.uniform(0.0, 4.0)


Fault = Callable[[Site], Awaitable[None]]


async def link_down_shortly(site: Site) -> None:
    await site.links.cut()
    await asyncio.sleep(site.dice.uniform(0.1, 1.0))
    await site.links.restore()


async def link_down(site: Site) -> None:
    await site.links.cut()
    await until(site.down, WAIT_S)
    await asyncio.sleep(site.outage_s())
    await site.links.restore()


async def link_silent(site: Site) -> None:
    site.links.black_hole()
    await until(site.down, WAIT_S)
    await site.links.restore()


async def link_slow(site: Site) -> None:
    """Records must arrive while it lasts, also between cuts."""
    turn_s, site.load.turn_s = site.load.turn_s, 0.5
    site.links.shape(delay_s=SLOW_DELAY_S, bytes_per_s=SLOW_BYTES_PER_S)
    for _ in range(10 if site.full else 1):
        await asyncio.sleep(site.dice.uniform(0.0, 3.0))
        await site.links.reset()
        before = site.load.queue.position("main")
        await until(lambda: site.load.queue.position("main") > before, WAIT_S)  # noqa: B023
    await site.links.restore()
    site.load.turn_s = turn_s


def cut_within(api: Api) -> Fault:
    """The connection breaks somewhere within the next such request or answer."""

    async def cut(site: Site) -> None:
        direction = site.dice.choice((UP, DOWN)) if site.turn is None else (UP, DOWN)[site.turn % 2]
        size = next((frame.size for frame in site.links.frames(api, direction)[-1:]), 100)
        after = site.dice.randint(0, size) if site.turn is None else site.turn // 2 % (size + 1)
        trap = site.links.trap(api, direction, after)
        async with asyncio.timeout(WAIT_S):
            while api in NEW_CONNECTION and not trap.reached.is_set():
                await site.links.reset()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(trap.reached.wait(), AGAIN_S)
            await trap.reached.wait()
        await site.links.restore()

    cut.__name__ = f"cut_within_{api.name.lower()}"
    return cut


async def end_is_late(site: Site) -> None:
    """A commit's request arrives when the next producer already has a transaction open."""
    trap = site.links.trap(Api.END_TXN, UP)
    await asyncio.wait_for(trap.reached.wait(), WAIT_S)
    for api in (Api.INIT_PRODUCER_ID, Api.ADD_PARTITIONS_TO_TXN):
        seen = len(site.links.frames(api, DOWN))
        await until(lambda: len(site.links.frames(api, DOWN)) > seen, WAIT_S)  # noqa: B023
    await site.links.restore()


async def end_unanswered(site: Site) -> None:
    """The broker has committed; the answer goes, and the link with it, for longer than the gateway asks again."""
    trap = site.links.trap(Api.END_TXN, DOWN)
    await asyncio.wait_for(trap.reached.wait(), WAIT_S)
    await site.links.cut()
    await until(site.down, WAIT_S)
    await site.links.restore()


Role = Callable[[Site], tuple[str, int]]


def records(site: Site) -> tuple[str, int]:
    return site.load.topic, 0


def positions(site: Site) -> tuple[str, int]:
    return "tidegate-positions", partition_of(site.gateway_id.encode(), POSITIONS_PARTITIONS)


def transactions(site: Site) -> tuple[str, int]:
    return site.cluster.transaction_log(f"tidegate.{site.gateway_id}")


def killed(role: Role) -> Fault:
    async def kill(site: Site) -> None:
        topic, partition = await asyncio.to_thread(role, site)
        node = await asyncio.to_thread(site.cluster.leader, topic, partition)
        await asyncio.to_thread(node.kill)
        await site.load.flows()
        await site.cluster.revive()
        await asyncio.to_thread(site.cluster.elect, topic, partition)

    kill.__name__ = f"leader_of_{role.__name__}_killed"
    return kill


def moved(role: Role) -> Fault:
    async def move(site: Site) -> None:
        topic, partition = await asyncio.to_thread(role, site)
        await site.cluster.reassign(topic, partition)
        await asyncio.to_thread(site.cluster.elect, topic, partition)

    move.__name__ = f"leader_of_{role.__name__}_moved"
    return move


async def node_stopped(site: Site) -> None:
    node = await asyncio.to_thread(site.cluster.leader, *records(site))
    node.pause()
    await asyncio.sleep(70.0 if site.full else STOPPED_S)
    node.resume()


async def two_killed(site: Site) -> None:
    """The last one serves on, but leads nothing new and has no controller."""
    for node in site.dice.sample(list(site.cluster.nodes.values()), 2):
        await asyncio.to_thread(node.kill)
    await until(site.down, WAIT_S)
    await asyncio.sleep(site.outage_s())
    await site.cluster.revive()


async def all_gone_and_elsewhere(site: Site) -> None:
    await asyncio.to_thread(site.cluster.kill)
    await until(site.down, WAIT_S)
    await asyncio.sleep(site.outage_s())
    site.cluster.move()
    await site.cluster.revive()
    await site.links.follow()


async def too_few_in_sync(site: Site) -> None:
    """Of the records' replicas; what the position and the transaction need is there."""
    topic, partition = records(site)
    await asyncio.to_thread(needs_in_sync, site, 3)
    leader = await asyncio.to_thread(site.cluster.leader, topic, partition)
    node = site.dice.choice([node for node in site.cluster.nodes.values() if node is not leader])
    await asyncio.to_thread(node.kill)
    await until(site.down, WAIT_S)
    await site.cluster.revive()
    await site.load.flows()
    await asyncio.to_thread(needs_in_sync, site, 2)


def needs_in_sync(site: Site, replicas: int) -> None:
    site.cluster.any.configure(site.load.topic, min_insync_replicas=str(replicas))


FAULTS: Mapping[Fault, tuple[str, str]] = {
    link_down_shortly: ("11", "all links cut for up to 1 s"),
    link_down: ("11", "all links cut until the gateway has noticed, and longer"),
    link_silent: ("12", "nothing passes and nothing is closed, until the gateway has noticed"),
    link_slow: ("13", "64 kbit/s a connection, 800 ms there and back, cut"),
    **{
        cut_within(api): ("14", f"somewhere within {api.name} or its answer")
        for api in (
            *(Api.PRODUCE, Api.END_TXN, Api.ADD_PARTITIONS_TO_TXN),
            *(Api.INIT_PRODUCER_ID, Api.METADATA),
        )
    },
    end_unanswered: ("14", "committed, and the answer lost with the link"),
    end_is_late: ("15", "held until the next transaction is open"),
    node_stopped: ("16", "SIGSTOP of the records' leader"),
    **{
        killed(role): ("17", f"leader of the {role.__name__} killed")
        for role in (records, positions, transactions)
    },
    **{
        moved(role): ("17", f"leader of the {role.__name__} moved")
        for role in (records, positions, transactions)
    },
    two_killed: ("19", "2 of 3 nodes killed"),
    all_gone_and_elsewhere: ("18", "all 3 killed, back at other ports"),
    too_few_in_sync: ("19", "2 of 3 replicas in sync where 3 must be"),
}
"""With what they are in the page of proofs: the fault's number there, and what was done."""
