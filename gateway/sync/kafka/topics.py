"""Topics: what a cluster says of them, and the two that a gateway makes for itself."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from aiokafka import errors
from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.admin import CreateTopicsRequest, DescribeConfigsRequest
from aiokafka.protocol.metadata import MetadataRequest

from gateway.errors import SinkRefused, SinkUnavailable
from gateway.sync.settings import KafkaSettings
from gateway.sync.sink import Topic, TopicUnusable

POSITIONS_PARTITIONS = 50
LEDGER_PARTITIONS = 6
BATCH_BYTES_MAX = 512 << 10
AHEAD_MS = 5 * 60_000
REPLICAS = 3
HEARD_S = 0.05

_TOPIC_RESOURCE = 2
_NEVER = 1 << 62
_DEFAULTS = {
    "retention.ms": str(7 * 24 * 3_600_000),
    "max.message.bytes": "1048588",
    "message.timestamp.type": "CreateTime",
    "message.timestamp.before.max.ms": str(_NEVER),
    "message.timestamp.after.max.ms": "3600000",
    "cleanup.policy": "delete",
}
POSITIONS_CONFIG = {
    "cleanup.policy": "compact",
    "segment.bytes": str(4 << 20),
    "segment.ms": "3600000",
    "min.cleanable.dirty.ratio": "0.1",
    "message.timestamp.type": "LogAppendTime",
}
LEDGER_CONFIG = {"retention.ms": "-1", "segment.bytes": str(64 << 20)}
NEEDED = ("cleanup.policy", "message.timestamp.type")
"""Without these of POSITIONS_CONFIG positions would vanish, or tell no time."""


class Wanted(NamedTuple):
    """A topic that the gateway needs for itself."""

    name: str
    partitions: int
    config: Mapping[str, str]

    def options(self, replicas: int) -> Mapping[str, str]:
        """acks=all protects from the loss of a broker only where two copies must be in sync."""
        return self.config if replicas < 3 else {**self.config, "min.insync.replicas": "2"}


def own_topics(settings: KafkaSettings) -> list[Wanted]:
    return [
        Wanted(settings.positions_topic, POSITIONS_PARTITIONS, POSITIONS_CONFIG),
        Wanted(settings.ledger_topic, LEDGER_PARTITIONS, LEDGER_CONFIG),
    ]


def administration(tool: str, settings: KafkaSettings) -> str:
    """How a command of Kafka's begins. The administrator's own user or certificate is in a file that only they have."""
    secured = " --command-config admin.properties" if settings.sasl or settings.tls else ""
    return f"{tool} --bootstrap-server {settings.bootstrap_servers[0]}{secured}"


def creation(name: str, settings: KafkaSettings) -> str:
    """The command for a topic of the operator's, with the cluster's own defaults."""
    return f"{administration('kafka-topics.sh', settings)} --create --topic {name}"


def own_creation(topic: Wanted, settings: KafkaSettings) -> str:
    replicas = settings.replication or REPLICAS
    parts = [
        creation(topic.name, settings),
        f"--partitions {topic.partitions} --replication-factor {replicas}",
        *(f"--config {key}={value}" for key, value in topic.options(replicas).items()),
    ]
    return " ".join(parts)


async def ensure(client: AIOKafkaClient, wanted: Sequence[Wanted], settings: KafkaSettings) -> None:
    """Create those that are missing; then every broker knows them. Raises SinkRefused with the command that would create
    one. The caller limits the time."""
    missing = [topic for topic in wanted if await partitions(client, topic.name) is None]
    if not missing:
        return
    replicas = settings.replication or min(REPLICAS, len(client.cluster.brokers()))
    requests: list[Any] = [
        (topic.name, topic.partitions, replicas, [], list(topic.options(replicas).items()))
        for topic in missing
    ]
    controller = client.cluster.controller
    node = controller.nodeId if controller is not None else client.get_random_node()
    answer = await client.send(node, CreateTopicsRequest(requests, timeout=10_000, validate_only=False))
    for topic, (_, code, message) in zip(missing, answer.topic_errors, strict=True):
        if code and errors.for_code(code) is not errors.TopicAlreadyExistsError:
            raise SinkRefused(
                f"topic {topic.name} is missing and could not be created "
                f"({message or errors.for_code(code).message}): {own_creation(topic, settings)}"
            )
    for topic in missing:  # else the next question may go to a broker that hasn't heard of it
        for broker in client.cluster.brokers():
            while await partitions(client, topic.name, broker.nodeId) is None:  # noqa: ASYNC110
                await asyncio.sleep(HEARD_S)


async def positions_partitions(client: AIOKafkaClient, settings: KafkaSettings) -> int:
    """How many there are, of a topic that keeps positions, as far as we may ask. Raises SinkRefused with the command
    that puts it right."""
    try:
        count = await _existing(client, settings.positions_topic, settings)
    except TopicUnusable as error:
        raise SinkRefused(str(error)) from error
    found = await configuration(client, settings.positions_topic)
    wrong = {
        key: POSITIONS_CONFIG[key] for key in NEEDED if found.get(key) not in (None, POSITIONS_CONFIG[key])
    }
    if wrong:
        raise positions_unfit(wrong, settings)
    return count


def positions_unfit(wrong: Mapping[str, str], settings: KafkaSettings) -> SinkRefused:
    """`wrong`: what must be set instead of what is."""
    name, options = settings.positions_topic, ",".join(f"{key}={value}" for key, value in wrong.items())
    return SinkRefused(
        f"topic {name} must have {options}: {administration('kafka-configs.sh', settings)} --alter --topic {name} "
        f"--add-config {options}"
    )


async def partitions(client: AIOKafkaClient, name: str, node: int | None = None) -> int | None:
    """As `node` or any broker has it: None if there is no such topic. Raises TopicUnusable if it may not be seen."""
    # A broker that makes topics when asked for them would make our own unfit for us, and any with a mistake in its name.
    request = MetadataRequest([name], allow_auto_topic_creation=False)
    answer = await client.send(client.get_random_node() if node is None else node, request)
    code, found = next((topic[0], topic[-1]) for topic in answer.topics if topic[1] == name)
    kind = errors.for_code(code)
    if kind is errors.NoError:
        return len(found)
    if kind is errors.TopicAuthorizationFailedError:
        raise TopicUnusable(
            name, f"not authorised for topic {name}: the user needs the operations Describe and Write on it"
        )
    if kind is errors.InvalidTopicError:
        raise TopicUnusable(name, f"{name!r} can't be the name of a topic")
    if kind is errors.UnknownTopicOrPartitionError:
        return None
    raise SinkUnavailable(f"topic {name}: {kind.message}")


async def configuration(client: AIOKafkaClient, name: str) -> dict[str, str]:
    """Empty where we may not read the topic's configuration."""
    request = DescribeConfigsRequest([(_TOPIC_RESOURCE, name, list(_DEFAULTS))])
    answer: Any = await client.send(client.get_random_node(), request)
    return {
        entry[0]: entry[1]
        for resource in answer.resources
        if resource[0] == 0
        for entry in resource[4]
        if entry[1] is not None
    }


async def _existing(client: AIOKafkaClient, name: str, settings: KafkaSettings) -> int:
    """How many partitions it has. Raises TopicUnusable."""
    count = await partitions(client, name)
    if count is None:
        raise TopicUnusable(name, f"topic {name} doesn't exist: {creation(name, settings)}")
    return count


async def describe(client: AIOKafkaClient, name: str, settings: KafkaSettings) -> Topic:
    count = await _existing(client, name, settings)
    config = _DEFAULTS | await configuration(client, name)
    retention = int(config["retention.ms"])
    policy = config["cleanup.policy"].split(",")
    limits = [int(config["message.timestamp.before.max.ms"])]
    if retention >= 0 and "delete" in policy:
        limits.append(retention // 2)
    return Topic(
        partitions=count,
        behind_ms=None if min(limits) >= _NEVER else min(limits),
        ahead_ms=min(AHEAD_MS, int(config["message.timestamp.after.max.ms"])),
        append_time=config["message.timestamp.type"] == "LogAppendTime",
        batch_bytes=min(BATCH_BYTES_MAX, int(config["max.message.bytes"])),
        keyed="compact" in policy,
    )
