"""A real Apache Kafka for tests and the demo: one KRaft node from Maven Central, everything under one directory.

Listeners are named after what they ask of a client; "plain" is always there. Any listener can be advertised at another port, where a
proxy waits. Ports lie below the kernel's ephemeral range: a client that retries against a dead port inside that range
can connect to itself and keep the port from the broker that comes back.
"""

import contextlib
import os
import random
import signal
import socket
import subprocess
import time
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self, cast

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from gateway.testing.certificates import Authority, Certificate
from gateway.testing.jars import jars

PORTS = range(20_000, 32_000)
PORT_TAKEN = "Address already in use"
START_S = 60.0
PROTOCOLS = {
    "plain": "PLAINTEXT",
    "proxied": "PLAINTEXT",
    "ssl": "SSL",
    "mtls": "SSL",
    "sasl_plaintext": "SASL_PLAINTEXT",
    "sasl_ssl": "SASL_SSL",
}


class BrokerError(RuntimeError):
    """The real Kafka didn't start; one sentence that says what to do."""


class Delivered(NamedTuple):
    """One record as a consumer sees it."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes
    headers: dict[str, bytes]
    timestamp_ms: int


class KafkaBroker:
    """`users` have these passwords with PLAIN and, by `add_scram_user`, with SCRAM. With `authorize`, whoever has
    a name (from SASL or a client certificate) may do only what ACLs grant; the nameless may do everything.

    Of a cluster of several, `controllers` are the ports of all nodes' controllers; this one's is number `node`, and topics
    lie on all. `java` are options of the virtual machine.
    """

    def __init__(
        self,
        directory: Path,
        *,
        listeners: Sequence[str] = ("plain",),
        advertised: Mapping[str, int] | None = None,
        users: Mapping[str, str] | None = None,
        authority: Authority | None = None,
        certificate: Certificate | None = None,
        authorize: bool = False,
        settings: Mapping[str, str] | None = None,
        node: int = 1,
        controllers: Sequence[int] | None = None,
        cluster_id: str | None = None,
        java: Sequence[str] = ("-Xmx512m",),
    ) -> None:
        self._directory = directory
        self._listeners = ("plain", *(name for name in listeners if name != "plain"))
        self._advertised = dict(advertised or {})
        self._users = dict(users or {})
        self._authorize = authorize
        self._settings = dict(settings or {})
        self._node = node
        self._java = java
        self._process: subprocess.Popen[bytes] | None = None
        self._admin: AdminClient | None = None
        self._ports = dict(zip(self._listeners, free_ports(len(self._listeners)), strict=True))
        self._controllers = controllers or free_ports(1)
        self.cluster_id = cluster_id or new_cluster_id()
        needs_tls = any(PROTOCOLS[name].endswith("SSL") for name in self._listeners)
        self.authority = authority or (Authority(directory / "tls") if needs_tls else None)
        self._certificate = certificate
        if self.authority and not certificate:
            self._certificate = self.authority.issue("broker")

    @property
    def bootstrap(self) -> str:
        return self.address("plain")

    def address(self, listener: str) -> str:
        """Where the broker itself listens, also when a proxy is advertised."""
        return f"127.0.0.1:{self._ports[listener]}"

    def advertised_port(self, listener: str) -> int:
        """Where clients are told to go."""
        return self._advertised.get(listener, self._ports[listener])

    @property
    def _properties_file(self) -> Path:
        return self._directory / "server.properties"

    @property
    def log(self) -> Path:
        return self._directory / "broker.log"

    def start(self) -> None:
        """Start, or start again on the same ports and the same data; returns when clients are served. At the first start
        nobody knows the ports yet: if somebody else was faster to take one, there are others."""
        first = not (self._directory / "data").exists()
        try:
            self._start()
        except BrokerError:
            if not first or PORT_TAKEN not in self.log.read_text():
                raise
            self._admin = None
            self.move()
            self._start()

    def _start(self) -> None:
        self.prepare()
        self.launch()
        self.wait_until_served()

    def prepare(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        self._properties_file.write_text(
            "".join(f"{key}={value}\n" for key, value in self._properties().items())
        )
        if not (self._directory / "data").exists():
            self._format()

    def launch(self) -> None:
        """The process ends with the thread that calls this."""
        command = [
            *("setpriv", "--pdeathsig", "KILL", "java", *self._java, "-XX:+UseSerialGC"),
            *("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", str(kafka_jars() / "*")),
            *("kafka.Kafka", str(self._properties_file)),
        ]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def wait_until_served(self) -> None:
        try:
            self._wait_until_served()
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """An orderly end (SIGTERM); a broker that takes longer than 20 s is killed."""
        if self._process:
            self._signal(signal.SIGCONT)
            self._signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(20)
        self.kill()

    def move(self) -> None:
        """While it is down: clients find it, or the proxies before it, at other ports from the next start on."""
        self._ports = dict(zip(self._ports, free_ports(len(self._ports)), strict=True))
        self._advertised = dict(zip(self._advertised, free_ports(len(self._advertised)), strict=True))
        self._admin = None

    def kill(self) -> None:
        if self._process:
            self._signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def pause(self) -> None:
        """SIGSTOP: the sockets stay open and silent."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    @property
    def admin(self) -> AdminClient:
        if self._admin is None:
            self._admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
        return self._admin

    def create_topic(self, name: str, partitions: int = 1, **config: str) -> str:
        """Config names are written with underscores: `max_message_bytes="2000"`. Returns the name."""
        settings = {key.replace("_", "."): value for key, value in config.items()}
        topic = NewTopic(
            name, num_partitions=partitions, replication_factor=len(self._controllers), config=settings
        )
        self.admin.create_topics([topic])[name].result(30)
        wait_until(lambda: name in self.admin.list_topics(timeout=10).topics, f"topic {name} did not appear")
        return name

    def delete_topic(self, name: str) -> None:
        self.admin.delete_topics([name])[name].result(30)
        wait_until(lambda: name not in self.admin.list_topics(timeout=10).topics, f"topic {name} did not go")

    def configure(self, topic: str, **config: str) -> None:
        """Changes settings of a topic, written as for `create_topic`."""
        changes = [
            ConfigEntry(key.replace("_", "."), value, incremental_operation=AlterConfigOpType.SET)
            for key, value in config.items()
        ]
        resource = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=changes)
        self.admin.incremental_alter_configs([resource])[resource].result(30)

    def add_scram_user(self, user: str, password: str) -> None:
        """Also changes the password of one who is there."""
        for mechanism in (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512):
            wanted = UserScramCredentialUpsertion(
                user, ScramCredentialInfo(mechanism, 4096), password.encode()
            )
            self.admin.alter_user_scram_credentials([wanted])[user].result(30)

    def read(self, *topics: str, isolation: str = "read_committed") -> list[Delivered]:
        """All that a consumer would see of these topics now, each partition in order."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.bootstrap,
                "group.id": "unused",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "isolation.level": isolation,
                "auto.offset.reset": "earliest",
                "fetch.wait.max.ms": 20,
                "log_level": 0,
            }
        )
        try:
            return list(_read_to_end(consumer, topics))
        finally:
            consumer.close()

    def _properties(self) -> dict[str, str]:
        names = {name: name.upper() for name in self._listeners}
        advertised = {name: self.advertised_port(name) for name in names}
        properties = {
            "process.roles": "broker,controller",
            "node.id": str(self._node),
            "controller.quorum.voters": _join(
                f"{node}@127.0.0.1:{port}" for node, port in enumerate(self._controllers, 1)
            ),
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAIN",
            "listeners": _join(
                f"{name.upper()}://127.0.0.1:{port}"
                for name, port in {**self._ports, "controller": self._controllers[self._node - 1]}.items()
            ),
            "advertised.listeners": _join(
                f"{names[name]}://127.0.0.1:{port}" for name, port in advertised.items()
            ),
            "listener.security.protocol.map": _join(
                ("CONTROLLER:PLAINTEXT", *(f"{names[name]}:{PROTOCOLS[name]}" for name in names))
            ),
            "log.dirs": str(self._directory / "data"),
            "auto.create.topics.enable": "false",
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "4",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "transaction.state.log.num.partitions": "4",
            "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
            "broker.heartbeat.interval.ms": "500",
            "broker.session.timeout.ms": "3000",
            "group.initial.rebalance.delay.ms": "0",
            "log.cleaner.dedupe.buffer.size": str(4 << 20),
        }
        if self._authorize:
            properties |= {
                "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
                "super.users": "User:ANONYMOUS",
                "allow.everyone.if.no.acl.found": "false",
            }
        for name in names:
            properties |= self._listener_properties(name)
        return properties | self._settings

    def _listener_properties(self, name: str) -> dict[str, str]:
        prefix = f"listener.name.{name}."
        properties: dict[str, str] = {}
        if self.authority and self._certificate and PROTOCOLS[name].endswith("SSL"):
            properties |= {
                f"{prefix}ssl.keystore.type": "PEM",
                f"{prefix}ssl.keystore.location": str(self._certificate.chain),
                f"{prefix}ssl.truststore.type": "PEM",
                f"{prefix}ssl.truststore.location": str(self.authority.path),
                f"{prefix}ssl.client.auth": "required" if name == "mtls" else "none",
                f"{prefix}ssl.principal.mapping.rules": "RULE:^CN=([^,]+).*$/$1/",
            }
        if PROTOCOLS[name].startswith("SASL"):
            module = "org.apache.kafka.common.security"
            users = " ".join(f'user_{user}="{password}"' for user, password in self._users.items())
            properties |= {
                f"{prefix}sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
                f"{prefix}plain.sasl.jaas.config": f"{module}.plain.PlainLoginModule required {users};",
                f"{prefix}scram-sha-256.sasl.jaas.config": f"{module}.scram.ScramLoginModule required;",
                f"{prefix}scram-sha-512.sasl.jaas.config": f"{module}.scram.ScramLoginModule required;",
            }
        return properties

    def _format(self) -> None:
        command = [
            *("java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", str(kafka_jars() / "*")),
            # With "=", because an id may begin with "-".
            *("kafka.tools.StorageTool", "format", f"--cluster-id={self.cluster_id}"),
            *("-c", str(self._properties_file)),
        ]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BrokerError(f"Kafka could not format its storage: {done.stdout[-500:]}{done.stderr[-500:]}")

    def _wait_until_served(self) -> None:
        host, _, port = self.bootstrap.partition(":")
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            if not self.running:
                raise BrokerError(f"Kafka ended at start: {self.log.read_text()[-1000:]}")
            with contextlib.suppress(OSError), socket.create_connection((host, int(port)), 1):
                break
            time.sleep(0.02)
        while self.running and time.monotonic() < deadline:
            with contextlib.suppress(KafkaException):
                if self.admin.list_topics(timeout=5).brokers:
                    return
        raise BrokerError(f"Kafka did not serve within {START_S:.0f} s, see {self.log}")

    def _signal(self, number: int) -> None:
        if self._process and self.running:
            os.killpg(self._process.pid, number)


def new_cluster_id() -> str:
    return urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()


def kafka_jars() -> Path:
    """Raises JarsError."""
    pom = resources.files("gateway.testing") / "broker" / "pom.xml"
    return jars(pom.read_bytes(), "Apache Kafka")


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on now, outside the ephemeral range."""
    with contextlib.ExitStack() as held:
        ports: list[int] = []
        while len(ports) < count:
            port = random.choice(PORTS)
            candidate = held.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                candidate.bind(("127.0.0.1", port))
                ports.append(port)
        return ports


def _read_to_end(consumer: Consumer, topics: Sequence[str]) -> Iterator[Delivered]:
    partitions = [
        TopicPartition(topic, partition, 0)
        for topic in topics
        for partition in consumer.list_topics(topic, timeout=10).topics[topic].partitions
    ]
    consumer.assign(partitions)
    unfinished = {(partition.topic, partition.partition) for partition in partitions}
    deadline = time.monotonic() + 30
    while unfinished:
        if time.monotonic() > deadline:
            raise BrokerError(f"reading {sorted(unfinished)} to the end took longer than 30 s")
        message = consumer.poll(0.5)
        if message is None:
            continue
        if message.error():
            unfinished.discard((message.topic(), message.partition()))
            continue
        yield Delivered(
            message.partition() or 0,
            message.offset() or 0,
            message.key(),
            message.value() or b"",
            dict(cast(list[tuple[str, bytes]], message.headers() or [])),
            message.timestamp()[1],
        )


def wait_until(condition: Callable[[], bool], complaint: str) -> None:
    deadline = time.monotonic() + START_S
    while not condition():
        if time.monotonic() > deadline:
            raise BrokerError(complaint)
        time.sleep(0.02)


def _join(parts: Iterable[str]) -> str:
    return ",".join(parts)
