"""[kafka]: where the records go and how the connection is secured."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gateway.settings import TOPIC, Duration, Form, Rate, Secret, setting


@dataclass(frozen=True, kw_only=True)
class TlsSettings:
    """Present: the connection is encrypted and the broker's certificate is checked."""

    ca: Path | None = setting(
        None,
        doc="PEM file of the authorities that may sign broker certificates; without it the system's are used.",
        example='"/etc/tidegate/ca.pem"',
    )
    cert: Path | None = setting(
        None, doc="PEM file of the gateway's own certificate (mTLS).", example='"/etc/tidegate/gateway.pem"'
    )
    key: Path | None = setting(
        None,
        doc="PEM file of the key to `cert`, if it is not in the same file.",
        example='"/etc/tidegate/gateway.key"',
    )
    verify_hostname: bool = setting(
        True, doc="Whether the broker's certificate must carry the name that we connected to."
    )


@dataclass(frozen=True, kw_only=True)
class SaslSettings:
    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = setting(doc="How the password is shown.")
    user: str = setting(doc="User name.", example='"gateway"')
    password: Secret = setting(doc="Password.", example='{ credential = "tidegate_kafka-password" }')


@dataclass(frozen=True, kw_only=True)
class KafkaSettings:
    bootstrap_servers: list[str] = setting(
        doc='Brokers to ask first, each "host:port"; one that answers is enough.',
        minimum=1,
        form=Form(r"\S+:[0-9]{1,5}", 'an address "host:port"'),
        example='["kafka-1:9092", "kafka-2:9092"]',
    )
    delivery: Literal["exactly_once", "at_least_once"] = setting(
        "exactly_once",
        doc="exactly_once needs transactions (consumers read with read_committed); at_least_once works without, "
        "and may repeat records after a failure, recognisable by their headers.",
    )
    compression: Literal["none", "gzip", "lz4", "snappy", "zstd"] = setting(
        "zstd", doc="How batches are compressed. gzip is slow on small boards."
    )
    linger: Duration = setting(
        0.1,
        minimum=0,
        maximum=60,
        doc="Shortest time between two transactions; longer means fewer bytes and later records.",
        example='"100 ms"',
    )
    max_rate: Rate | None = setting(
        None, minimum=1024, doc="Most bytes a second to send, on average.", example='"256 KiB/s"'
    )
    transaction_timeout: Duration = setting(
        20.0,
        minimum=5,
        maximum=900,
        doc="Time a transaction may take: a link so slow that the largest record needs longer never delivers it. "
        "A gateway that vanishes in a transaction delays consumers of the same partitions as long.",
        example='"20 s"',
    )
    positions_topic: str = setting(
        "tidegate-positions",
        form=TOPIC,
        doc="Compacted topic that holds how far each gateway has come; shared by all gateways of a cluster.",
    )
    ledger_topic: str = setting(
        "tidegate-ledger",
        form=TOPIC,
        doc="Topic for what the gateways say about their own records: drops, topics used, losses.",
    )
    replication: int | None = setting(
        None,
        minimum=1,
        maximum=15,
        doc="Replicas of the two topics above when the gateway creates them; without it 3, or the number of brokers.",
        example="3",
    )
    tls: TlsSettings | None = setting(None, doc="Encrypt the connection.")
    sasl: SaslSettings | None = setting(None, doc="Log in with user and password.")

    @property
    def own_topics(self) -> frozenset[str]:
        """No device's record goes there."""
        return frozenset((self.positions_topic, self.ledger_topic))
