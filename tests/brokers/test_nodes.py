"""Nodes of a real cluster are killed, stopped and moved while a gateway delivers to it."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.sync import LinkState
from gateway.testing.cluster import KafkaCluster
from gateway.testing.kafka import KafkaBroker
from gateway.testing.proxy import Proxy
from tests.brokers.load import Load, prove
from tests.sync.rig import until

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.proof, pytest.mark.timeout(300)]

COMMAND = "pytest tests/brokers/test_nodes.py"
STOPPED_S = 8.0


def leader_of_the_records(cluster: KafkaCluster, load: Load, gateway_id: str) -> KafkaBroker:
    return cluster.leader(load.topic)


def leader_of_the_positions(cluster: KafkaCluster, load: Load, gateway_id: str) -> KafkaBroker:
    return cluster.leader("tidegate-positions")


def coordinator_of_the_transactions(cluster: KafkaCluster, load: Load, gateway_id: str) -> KafkaBroker:
    return cluster.coordinator(f"tidegate.{gateway_id}")


Role = Callable[[KafkaCluster, Load, str], KafkaBroker]
ROLES = [leader_of_the_records, leader_of_the_positions, coordinator_of_the_transactions]


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.__name__)
async def test_a_node_is_killed_and_comes_back(role: Role, cluster: KafkaCluster, tmp_path: Path) -> None:
    gateway_id = f"killed-{role.__name__}"
    topic = cluster.create_topic(gateway_id)
    async with Load.on(tmp_path, cluster.bootstrap, gateway_id, topic) as load:
        node = await asyncio.to_thread(role, cluster, load, gateway_id)
        await asyncio.to_thread(node.kill)
        await load.flows()
        without = load.recovery_s
        await cluster.revive()
        await asyncio.to_thread(cluster.elect, topic)
        await load.flows()
        load.recovery_s = without
    what = f"1 of 3 killed and back: {role.__name__.replace('_', ' ')}"
    prove("17", what, load, cluster.read(topic), COMMAND)


async def test_a_node_is_stopped_for_a_while(cluster: KafkaCluster, tmp_path: Path) -> None:
    topic = cluster.create_topic("stopped")
    async with Load.on(tmp_path, cluster.bootstrap, "stopped", topic) as load:
        node = await asyncio.to_thread(cluster.leader, topic)
        node.pause()
        await asyncio.sleep(STOPPED_S)
        node.resume()
        await load.flows()
    prove("16", f"SIGSTOP of a leader for {STOPPED_S:.0f} s", load, cluster.read(topic), COMMAND)


async def test_too_few_replicas_delay_and_nothing_else(cluster: KafkaCluster, tmp_path: Path) -> None:
    topic = cluster.create_topic("replicas", min_insync_replicas="3")
    async with Load.on(tmp_path, cluster.bootstrap, "replicas", topic) as load:
        node = next(one for one in cluster.nodes.values() if one is not cluster.leader(topic))
        await asyncio.to_thread(node.kill)
        await until(lambda: load.sync.status().state is LinkState.DOWN)
        position = load.queue.position("main")
        await cluster.revive()
        await load.flows()
        assert position < load.queue.position("main")
    prove("19", "2 of 3 in sync where 3 must be", load, cluster.read(topic), COMMAND)


async def test_all_are_gone_and_come_back_at_other_ports(cluster: KafkaCluster, tmp_path: Path) -> None:
    topic = cluster.create_topic("moved")
    async with Proxy(cluster.nodes[1].bootstrap) as first:
        async with Load.on(tmp_path, [first.address], "moved", topic) as load:
            await first.cut()
            await asyncio.to_thread(cluster.kill)
            await until(lambda: load.sync.status().state is LinkState.DOWN)
            cluster.move()
            await cluster.revive()
            first.lead_to(cluster.nodes[1].bootstrap)
            await first.restore()
            await load.flows()
        found = await asyncio.to_thread(cluster.read, topic)
    prove("18", "all 3 killed, back at other ports behind the same first address", load, found, COMMAND)
