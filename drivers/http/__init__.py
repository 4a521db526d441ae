"""Devices that POST: one record, a JSON array or NDJSON to /ingest/<channel>, answered after the fsync."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway.driver import Manifest
from gateway.limits import MARKS_PER_SCOPE_MAX
from gateway.pattern import Pattern
from gateway.settings import Address, Duration, Form, Secret, Size, setting


@dataclass(frozen=True, kw_only=True)
class Tls:
    cert: Path = setting(doc="Certificate chain, PEM.", example='"/etc/tidegate/http.crt"')
    key: Path = setting(doc="Its private key, PEM, without a password.", example='"/etc/tidegate/http.key"')


@dataclass(frozen=True, kw_only=True)
class Token:
    secret: Secret | None = setting(None, doc="The token itself.", example='{ env = "PRESS_TOKEN" }')
    sha256: str | None = setting(
        None,
        doc="Instead of `secret`: SHA-256 of the token, hexadecimal.",
        form=Form(
            "[0-9a-f]{64}",
            "the SHA-256 of the token in 64 hexadecimal digits, as `printf %s TOKEN | sha256sum` prints it",
        ),
    )
    channels: list[str] = setting(
        doc="Channels that its holder may send to, MQTT wildcards allowed.", example='["press/4/#"]'
    )


@dataclass(frozen=True, kw_only=True)
class Config:
    listen: Address = setting(doc="Address and port to listen on.", example='"0.0.0.0:8080"')
    tls: Tls | None = setting(None, doc="Speak HTTPS with this certificate; plain HTTP without.")
    anonymous: bool = setting(False, doc="Take requests without a token, to any channel.")
    tokens: dict[str, Token] = setting(factory=dict, doc="Bearer tokens by name.")
    body_bytes_max: Size = setting(
        1 << 20, doc="Largest body of a request, after gzip.", minimum=1, maximum=16 << 20, example='"1 MiB"'
    )
    buffer_bytes_max: Size = setting(
        16 << 20,
        doc="All bodies that are being received or stored; a request beyond it gets 503.",
        minimum=1,
        example='"16 MiB"',
    )
    connections_max: int = setting(200, doc="Connections at a time; more are closed at once.", minimum=1)
    request_timeout: Duration = setting(
        10.0,
        doc="For a request's head, and for its body beyond what 1 KiB/s would take.",
        minimum=0.01,
        example='"10 s"',
    )
    idle_timeout: Duration = setting(
        60.0, doc="A connection without a request is closed after this.", minimum=0.01, example='"60 s"'
    )
    idempotency_lifetime: Duration = setting(
        86400.0, doc="How long an Idempotency-Key and its answer are remembered.", minimum=1, example='"24 h"'
    )
    idempotency_keys_max: int = setting(
        10_000,
        doc="Remembered keys of each token; the oldest go first.",
        minimum=1,
        maximum=MARKS_PER_SCOPE_MAX,
    )


def problems(config: Config) -> Sequence[tuple[str, str]]:
    found = []
    if not config.tokens and not config.anonymous:
        found.append(("tokens", "nobody may send: name a token, or set anonymous = true"))
    for name, token in config.tokens.items():
        if (token.secret is None) == (token.sha256 is None):
            found.append((f"tokens.{name}", "needs one of secret and sha256"))
        for text in token.channels:
            try:
                Pattern(text)
            except ValueError as error:
                found.append((f"tokens.{name}.channels", f"{text!r}: {error}"))
    if config.buffer_bytes_max < config.body_bytes_max:
        found.append(("buffer_bytes_max", "is less than body_bytes_max"))
    return found


DRIVER = Manifest(
    name="http",
    summary="Devices POST a record, a JSON array or NDJSON; 200 after the fsync",
    config=Config,
    factory="drivers.http.driver:HttpDriver",
    problems=problems,
)
