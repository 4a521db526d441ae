"""Devices that publish over MQTT 3.1.1 and 5.0: PUBACK and PUBREC after the fsync; subscribers are served by amqtt."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway.driver import Manifest
from gateway.pattern import Pattern
from gateway.settings import Address, Duration, Form, Size, setting


@dataclass(frozen=True, kw_only=True)
class Tls:
    cert: Path = setting(doc="Certificate chain, PEM.", example='"/etc/tidegate/mqtt.crt"')
    key: Path = setting(doc="Its private key, PEM, without a password.", example='"/etc/tidegate/mqtt.key"')
    client_ca: Path | None = setting(
        None,
        doc="Devices must show a certificate that one of these authorities signed (mTLS).",
        example='"/etc/tidegate/devices-ca.crt"',
    )


@dataclass(frozen=True, kw_only=True)
class User:
    password: str = setting(
        doc="Hash of the password, as `tidegate password` prints it.",
        form=Form(
            r"scrypt:\d+:\d+:\d+:[0-9a-f]+:[0-9a-f]+",
            "the hash of a password, as `tidegate password` prints it",
        ),
        example='"scrypt:16384:8:1:6f1e...:9a03..."',
    )
    publish: list[str] = setting(
        factory=lambda: ["#"],
        doc="Topics it may publish to, wildcards allowed; {client} and {user} stand for its own names.",
        example='["site/{user}/#"]',
    )
    subscribe: list[str] = setting(
        factory=list,
        doc="Topic filters it may subscribe to, each covered by one of these.",
        example='["site/{user}/#"]',
    )


@dataclass(frozen=True, kw_only=True)
class Config:
    listen: Address = setting(
        doc="Address and port to listen on; `[::]` is IPv6 alone.", example='"0.0.0.0:1883"', dual_stack=False
    )
    tls: Tls | None = setting(None, doc="Speak MQTT over TLS with this certificate; plain TCP without.")
    anonymous: bool = setting(False, doc="Take clients without a user name; they may publish everywhere.")
    users: dict[str, User] = setting(factory=dict, doc="Who may connect, by user name.")
    connections_max: int = setting(1000, minimum=1, doc="Connections at a time; more are closed at once.")
    packet_bytes_max: Size = setting(
        256 << 10,
        minimum=128,
        maximum=1 << 20,
        doc="Largest packet; a client that sends a larger one is disconnected.",
        example='"256 KiB"',
    )
    in_flight_bytes_max: Size = setting(
        1 << 20,
        minimum=1024,
        doc="Bytes of one client that wait for the disk; beyond it its socket isn't read.",
        example='"1 MiB"',
    )
    qos2_in_flight_max: int = setting(
        100, minimum=1, maximum=65_535, doc="QoS 2 messages of one client between PUBLISH and PUBREL."
    )
    connect_timeout: Duration = setting(
        10.0, minimum=0.1, doc="From the connection (TLS included) to CONNECT.", example='"10 s"'
    )
    silence_max: Duration = setting(
        3600.0,
        minimum=1,
        doc="A client that names no keep-alive is closed after this time of silence; others after 1.5 times theirs.",
        example='"1 h"',
    )
    session_expiry: Duration = setting(
        7 * 86400.0,
        minimum=60,
        doc="How long the packet ids of QoS 2 messages that a client did not finish are remembered.",
        example='"7 d"',
    )
    retained_max: int = setting(
        1000,
        minimum=0,
        doc="Retained messages kept in memory for subscribers, of 8 MiB at most; the oldest go first.",
    )


def problems(config: Config) -> Sequence[tuple[str, str]]:
    found = []
    if not config.users and not config.anonymous:
        found.append(("users", "nobody may connect: name a user, or set anonymous = true"))
    for name, user in config.users.items():
        for field, patterns in (("publish", user.publish), ("subscribe", user.subscribe)):
            for text in patterns:
                try:
                    Pattern(text)
                except ValueError as error:
                    found.append((f"users.{name}.{field}", f"{text!r}: {error}"))
    return found


DRIVER = Manifest(
    name="mqtt",
    summary="Devices publish over MQTT 3.1.1 and 5.0; PUBACK and PUBREC after the fsync",
    config=Config,
    factory="drivers.mqtt.driver:MqttDriver",
    problems=problems,
)
