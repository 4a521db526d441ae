"""A real Apache Kafka of several KRaft nodes, for what happens when leaders and coordinators go."""

import asyncio
from pathlib import Path
from types import TracebackType
from typing import Self

from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.admin import AlterPartitionReassignmentsRequest
from confluent_kafka import ElectionType, KafkaException, TopicPartition

from gateway.testing.kafka import Delivered, KafkaBroker, free_ports, new_cluster_id, wait_until

TRANSACTION_LOG = "__transaction_state"
REPLICATED = {
    "default.replication.factor": "3",
    "min.insync.replicas": "2",
    "offsets.topic.replication.factor": "3",
    "transaction.state.log.replication.factor": "3",
    "transaction.state.log.min.isr": "2",
    "auto.leader.rebalance.enable": "false",
}
SMALL = ("-Xmx320m", "-XX:TieredStopAtLevel=1")
"""Starting is most of what a node that is killed again and again does."""


class KafkaCluster:
    """Three nodes, each of them broker and controller: with two of them all works on. Their listeners "proxied" are
    advertised where proxies are to wait."""

    def __init__(self, directory: Path) -> None:
        controllers, cluster_id = free_ports(3), new_cluster_id()
        self.nodes = {
            node: KafkaBroker(
                directory / str(node),
                node=node,
                controllers=controllers,
                cluster_id=cluster_id,
                settings=REPLICATED,
                listeners=("plain", "proxied"),
                advertised={"proxied": port},
                java=SMALL,
            )
            for node, port in zip((1, 2, 3), free_ports(3), strict=True)
        }

    @property
    def bootstrap(self) -> list[str]:
        return [node.bootstrap for node in self.nodes.values()]

    def start(self) -> None:
        asyncio.run(self.revive())

    async def revive(self) -> None:
        """Start all that are down, side by side: one alone has no controller."""
        down = [node for node in self.nodes.values() if not node.running]
        await asyncio.gather(*(asyncio.to_thread(node.prepare) for node in down))
        for node in down:
            node.launch()  # here, because it ends with its thread
        await asyncio.gather(*(asyncio.to_thread(node.wait_until_served) for node in down))
        await asyncio.to_thread(wait_until, self._all_know_all, "not all nodes know each other")

    def _all_know_all(self) -> bool:
        nodes = self.nodes.values()
        return all(len(node.admin.list_topics(timeout=10).brokers) == len(nodes) for node in nodes)

    def kill(self) -> None:
        for node in self.nodes.values():
            node.kill()

    def move(self) -> None:
        """While all are down."""
        for node in self.nodes.values():
            node.move()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    @property
    def any(self) -> KafkaBroker:
        """A node that runs."""
        return next(node for node in self.nodes.values() if node.running)

    def create_topic(self, name: str, partitions: int = 1, **config: str) -> str:
        return self.any.create_topic(name, partitions, **config)

    def read(self, topic: str) -> list[Delivered]:
        return self.any.read(topic)

    def leader(self, topic: str, partition: int = 0) -> KafkaBroker:
        """Raises KafkaException while there is none."""
        found = self.any.admin.list_topics(topic, timeout=10).topics[topic].partitions
        if partition not in found or found[partition].leader not in self.nodes:
            raise KafkaException(f"{topic}, partition {partition} has no leader")
        return self.nodes[found[partition].leader]

    def transaction_log(self, transactional_id: str) -> tuple[str, int]:
        """The partition of Kafka's own log that the id is hashed to: its leader is the coordinator."""
        topics = self.any.admin.list_topics(TRANSACTION_LOG, timeout=10).topics
        return TRANSACTION_LOG, _java_hash(transactional_id) % len(topics[TRANSACTION_LOG].partitions)

    def elect(self, topic: str, partition: int = 0) -> None:
        """Leadership goes (back) to the first of the partition's replicas, once that is in sync."""
        wanted = TopicPartition(topic, partition)

        def is_there() -> bool:
            self.any.admin.elect_leaders(ElectionType.PREFERRED, [wanted]).result(30)
            return self.leader(topic, partition) is self.nodes[self._replicas(topic, partition)[0]]

        wait_until(is_there, f"{topic}, partition {partition}: the leadership did not go where it belongs")

    async def reassign(self, topic: str, partition: int = 0) -> None:
        """Another of the partition's replicas is now the first one: `elect` makes it the leader."""
        first, *others = await asyncio.to_thread(self._replicas, topic, partition)
        client = AIOKafkaClient(bootstrap_servers=self.any.bootstrap)
        await client.bootstrap()
        try:
            move: tuple[int, list[int], dict[int, bytes]] = (partition, [*others, first], {})
            request = AlterPartitionReassignmentsRequest(30_000, [(topic, [move], {})], {})
            await client.send(client.get_random_node(), request)
        finally:
            await client.close()

    def _replicas(self, topic: str, partition: int) -> list[int]:
        return list(
            self.any.admin.list_topics(topic, timeout=10).topics[topic].partitions[partition].replicas
        )


def _java_hash(text: str) -> int:
    """Of an ASCII text, as Kafka uses it: without the sign."""
    number = 0
    for character in text:
        number = (31 * number + ord(character)) & 0xFFFFFFFF
    return number & 0x7FFFFFFF
