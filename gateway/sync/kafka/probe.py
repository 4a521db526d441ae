"""What `tidegate check --kafka` asks: would this gateway be let in, and may it do what it must? Changes nothing.

Only the right to use the transactional id can't be asked for completely without fencing a gateway that runs: what is
asked is whether the id may be described.
"""

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from enum import IntEnum
from typing import Any, NamedTuple

from aiokafka import errors
from aiokafka.conn import AIOKafkaConnection, create_conn
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.coordination import FindCoordinatorRequest
from aiokafka.protocol.types import Array, Boolean, Int16, Int32, Schema, String

from gateway.errors import SinkUnavailable
from gateway.sync.kafka.connection import CONNECT_TIMEOUT_S, ask, explain, options, split
from gateway.sync.kafka.topics import administration, creation, own_creation, own_topics
from gateway.sync.settings import KafkaSettings

_TRANSACTION = 1


class Operation(IntEnum):
    """Bits of the operations that a broker says are granted."""

    READ = 3
    WRITE = 4
    CREATE = 5
    DESCRIBE = 8
    DESCRIBE_CONFIGS = 10
    IDEMPOTENT_WRITE = 12


class Finding(NamedTuple):
    """`command` is what would put it right, where a command can."""

    good: bool
    text: str
    command: str | None = None


class _MetadataResponse(Response):  # type: ignore[misc]
    API_KEY = 3
    API_VERSION = 8
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            Array(("node_id", Int32), ("host", String("utf-8")), ("port", Int32), ("rack", String("utf-8"))),
        ),
        ("cluster_id", String("utf-8")),
        ("controller_id", Int32),
        (
            "topics",
            Array(
                ("error_code", Int16),
                ("topic", String("utf-8")),
                ("is_internal", Boolean),
                (
                    "partitions",
                    Array(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", Array(Int32)),
                        ("isr", Array(Int32)),
                        ("offline_replicas", Array(Int32)),
                    ),
                ),
                ("authorized_operations", Int32),
            ),
        ),
        ("cluster_authorized_operations", Int32),
    )


class _MetadataStruct(RequestStruct):  # type: ignore[misc]
    API_KEY = 3
    API_VERSION = 8
    RESPONSE_TYPE = _MetadataResponse
    SCHEMA = Schema(
        ("topics", Array(String("utf-8"))),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
    )


class MetadataRequest(Request[_MetadataStruct]):  # type: ignore[misc]
    """Version 8, the first that tells what is granted (Kafka 2.3)."""

    API_KEY = 3

    def __init__(self, topics: Sequence[str]) -> None:
        self._topics = topics

    def build(self, request_struct_class: type[_MetadataStruct]) -> _MetadataStruct:
        return request_struct_class(self._topics, False, True, True)


async def probe(settings: KafkaSettings, gateway_id: str, topics: Iterable[str]) -> AsyncIterator[Finding]:
    """Every bootstrap server, then rights and topics as the first that answers tells them."""
    reached = None
    for server in settings.bootstrap_servers:
        try:
            cluster = await ask(server, settings)
        except SinkUnavailable as error:
            yield Finding(False, str(error))
        else:
            reached = reached or server
            yield Finding(True, f"{server} answers: cluster {cluster.cluster_id}, {cluster.brokers} brokers")
    if reached is None:
        return
    try:
        async with _connection(reached, settings) as connection:
            for finding in await _rights(connection, settings, gateway_id, sorted(set(topics))):
                yield finding
    except (OSError, TimeoutError, EOFError, errors.KafkaError) as error:
        yield Finding(False, str(explain(error, reached, settings)))


async def _rights(
    connection: AIOKafkaConnection, settings: KafkaSettings, gateway_id: str, topics: Sequence[str]
) -> list[Finding]:
    acls = _Acls(settings)
    own = {wanted.name: wanted for wanted in own_topics(settings)}
    try:
        answer = await connection.send(MetadataRequest([*own, *topics]))
    except NotImplementedError:
        return [Finding(True, "this broker is older than Kafka 2.3 and doesn't tell what is granted")]
    granted_to_cluster = answer.cluster_authorized_operations
    findings = []
    if settings.delivery == "exactly_once":
        findings.append(await _transactional_id(connection, f"tidegate.{gateway_id}", acls))
    for code, name, _, partitions, operations in answer.topics:
        wanted = {Operation.WRITE, Operation.DESCRIBE}
        if name == settings.positions_topic:
            wanted.add(Operation.READ)
        kind = errors.for_code(code)
        if kind is errors.UnknownTopicOrPartitionError:
            findings.append(_missing(name, own, settings, _granted(granted_to_cluster, Operation.CREATE)))
        elif kind is errors.TopicAuthorizationFailedError:
            findings.append(Finding(False, f"topic {name}: not authorised", acls.topic(name, wanted)))
        elif kind is not errors.NoError:
            findings.append(Finding(False, f"topic {name}: {kind.message}"))
        else:
            lacking = {one for one in wanted if not _granted(operations, one)}
            text = f"topic {name}: {len(partitions)} partitions"
            if lacking:
                names = ", ".join(sorted(one.name.title() for one in lacking))
                findings.append(
                    Finding(False, f"{text}, but not authorised to {names}", acls.topic(name, wanted))
                )
            else:
                findings.append(Finding(True, text))
    return findings


def _missing(name: str, own: dict[str, Any], settings: KafkaSettings, may_create: bool) -> Finding:
    if name in own and may_create:
        return Finding(True, f"topic {name} is missing: the gateway will create it")
    if name in own:
        return Finding(False, f"topic {name} is missing", own_creation(own[name], settings))
    return Finding(False, f"topic {name} is missing: its records would wait", creation(name, settings))


async def _transactional_id(connection: AIOKafkaConnection, name: str, acls: "_Acls") -> Finding:
    answer = await connection.send(FindCoordinatorRequest(name, _TRANSACTION))
    if errors.for_code(answer.error_code) is errors.TransactionalIdAuthorizationFailed:
        return Finding(False, f"not authorised for transactional id {name}", acls.transactional_id(name))
    return Finding(True, f"transactional id {name} may be described")


class _Acls:
    """kafka-acls.sh commands that would grant what is lacking."""

    def __init__(self, settings: KafkaSettings) -> None:
        user = settings.sasl.user if settings.sasl else "NAME-IN-THE-CERTIFICATE"
        self._begin = f"{administration('kafka-acls.sh', settings)} --add --allow-principal User:{user}"

    def topic(self, name: str, wanted: Iterable[Operation]) -> str:
        operations = "".join(f" --operation {one.name.title()}" for one in sorted(wanted))
        return f"{self._begin}{operations} --operation DescribeConfigs --topic {name}"

    def transactional_id(self, name: str) -> str:
        return f"{self._begin} --operation Write --operation Describe --transactional-id {name}"


def _granted(operations: int, one: Operation) -> bool:
    """A broker without an authorizer grants all; the lowest bits alone mean that it doesn't tell."""
    return operations < 0 or bool(operations >> one & 1)


@asynccontextmanager
async def _connection(server: str, settings: KafkaSettings) -> AsyncIterator[AIOKafkaConnection]:
    host, port = split(server)
    connection = await create_conn(
        host,
        port,
        client_id="tidegate",
        request_timeout_ms=int(CONNECT_TIMEOUT_S * 1000),
        **options(settings),
    )
    try:
        yield connection
    finally:
        connection.close()
