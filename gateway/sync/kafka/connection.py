"""The first connection: its options, and what went wrong in words an operator understands."""

import contextlib
import logging
import socket
import ssl
from datetime import UTC, datetime
from typing import Any, NamedTuple

from aiokafka import errors
from aiokafka.conn import AIOKafkaConnection, create_conn
from aiokafka.protocol.metadata import MetadataRequest

from gateway.errors import SinkRefused, SinkUnavailable
from gateway.sync.settings import KafkaSettings, TlsSettings

CONNECT_TIMEOUT_S = 10.0

_CERTIFICATE_EXPIRED = 10
_CERTIFICATE_NOT_YET_VALID = 9
_HOSTNAME_MISMATCH = (62, 64)
_UNKNOWN_AUTHORITY = (2, 18, 19, 20, 21)

logging.getLogger("aiokafka").setLevel(
    logging.CRITICAL
)  # it writes forty lines a second while a broker is away


class Cluster(NamedTuple):
    """What the first broker that answered said."""

    cluster_id: str
    brokers: int
    server: str


class _Codes(errors.BrokerResponseError):  # type: ignore[misc]
    """Error codes of later brokers that aiokafka would call unknown."""


class InvalidRecord(_Codes):
    errno = 87
    message = "INVALID_RECORD"
    description = "the record failed the broker's validation"


class FencedByNewer(_Codes):
    errno = 90
    message = "PRODUCER_FENCED"
    description = "there is a newer producer with the same transactional id"


errors.kafka_errors |= {kind.errno: kind for kind in (InvalidRecord, FencedByNewer)}


def options(settings: KafkaSettings) -> dict[str, Any]:
    """Keyword arguments of every aiokafka client. Reads files and secrets now. Raises SinkRefused."""
    protocol = ("SASL_" if settings.sasl else "") + ("SSL" if settings.tls else "PLAINTEXT")
    chosen: dict[str, Any] = {
        "security_protocol": protocol if settings.sasl or settings.tls else "PLAINTEXT",
        "ssl_context": tls_context(settings.tls) if settings.tls else None,
    }
    if settings.sasl:
        try:
            password = settings.sasl.password.reveal()
        except (OSError, LookupError) as error:
            raise SinkRefused(f"the password for Kafka can't be read: {error}") from error
        chosen |= {
            "sasl_mechanism": settings.sasl.mechanism,
            "sasl_plain_username": settings.sasl.user,
            "sasl_plain_password": password,
        }
    return chosen


def tls_context(tls: TlsSettings) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=str(tls.ca) if tls.ca else None)
        context.check_hostname = tls.verify_hostname
        if tls.cert:
            context.load_cert_chain(str(tls.cert), str(tls.key) if tls.key else None)
    except ssl.SSLError as error:
        named = ", ".join(str(path) for path in (tls.ca, tls.cert, tls.key) if path)
        raise SinkRefused(f"no usable certificates or key in {named}: {error.reason or error}") from error
    except OSError as error:
        raise SinkRefused(
            f"the TLS file {error.filename or tls.cert or tls.ca} can't be read: {error.strerror}"
        ) from error
    return context


async def preflight(settings: KafkaSettings) -> Cluster:
    """One connection to the first bootstrap server that lets us in; else the most telling failure, typed."""
    failures: list[SinkUnavailable] = []
    for server in settings.bootstrap_servers:
        try:
            return await ask(server, settings)
        except SinkUnavailable as failure:
            failures.append(failure)
    refusals = [failure for failure in failures if isinstance(failure, SinkRefused)]
    if refusals:
        raise refusals[0]
    raise SinkUnavailable("; ".join(str(failure) for failure in failures)) from failures[0]


async def ask(server: str, settings: KafkaSettings) -> Cluster:
    chosen = options(settings)
    host, port = split(server)
    connection: AIOKafkaConnection | None = None
    try:
        connection = await create_conn(
            host, port, client_id="tidegate", request_timeout_ms=int(CONNECT_TIMEOUT_S * 1000), **chosen
        )
        metadata = await connection.send(MetadataRequest([]))
    except (OSError, TimeoutError, EOFError, errors.KafkaError) as error:
        raise explain(error, server, settings) from error
    finally:
        if connection is not None:
            connection.close()
    return Cluster(metadata.cluster_id or "", len(metadata.brokers), server)


def split(server: str) -> tuple[str, int]:
    host, _, port = server.rpartition(":")
    return host.strip("[]"), int(port)


def explain(error: BaseException, server: str, settings: KafkaSettings) -> SinkUnavailable:
    """The error of a connection attempt as one of ours, with a sentence that names the cause."""
    for cause in _causes(error):
        explained = _explain_one(cause, server, settings)
        if explained is not None:
            return explained
    return SinkUnavailable(f"{server}: {error or type(error).__name__}")


def _causes(error: BaseException | None) -> list[BaseException]:
    """The error and what caused it, innermost first."""
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found[::-1]


def _explain_one(error: BaseException, server: str, settings: KafkaSettings) -> SinkUnavailable | None:
    if isinstance(error, ssl.SSLCertVerificationError):
        return SinkRefused(f"{server}: {_certificate(error, server)}")
    if isinstance(error, ssl.SSLError):
        return SinkRefused(f"{server}: {_handshake(error, settings)}")
    if isinstance(error, socket.gaierror):
        return SinkUnavailable(
            f"{server}: the name doesn't resolve ({error.strerror}): wrong name, or no DNS"
        )
    if isinstance(error, ConnectionRefusedError) or "Connect call failed" in str(error):
        return SinkUnavailable(f"{server}: connection refused: no broker listens there")
    if isinstance(error, TimeoutError | errors.RequestTimedOutError):
        return SinkUnavailable(f"{server}: no answer within {CONNECT_TIMEOUT_S:.0f} s")
    if isinstance(error, errors.IllegalSaslStateError):
        return SinkRefused(
            f"{server}: this port wants no login (SASL): remove [kafka.sasl], or name the port that does"
        )
    if isinstance(error, errors.UnsupportedSaslMechanismError) and settings.sasl:
        return SinkRefused(
            f"{server}: this port doesn't take the mechanism {settings.sasl.mechanism}: set "
            "kafka.sasl.mechanism to one of the broker's sasl.enabled.mechanisms"
        )
    if isinstance(error, errors.SaslAuthenticationFailed):
        user = settings.sasl.user if settings.sasl else ""
        return SinkRefused(f"{server}: wrong user or password for user {user!r}")
    if (
        isinstance(error, errors.KafkaConnectionError | EOFError | ConnectionError)
        and error.__cause__ is None
    ):
        wants = (
            "user and password, or TLS"
            if settings.sasl is None and settings.tls is None
            else "no TLS"
            if settings.tls is not None
            else "another login, or TLS"
        )
        return SinkUnavailable(
            f"{server}: the connection was closed during the first exchange; perhaps this port wants {wants}"
        )
    return None


def _certificate(error: ssl.SSLCertVerificationError, server: str) -> str:
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    if error.verify_code == _CERTIFICATE_NOT_YET_VALID:
        return f"its certificate is not yet valid: this clock says {now}"
    if error.verify_code == _CERTIFICATE_EXPIRED:
        return f"its certificate has expired (this clock says {now})"
    if error.verify_code in _HOSTNAME_MISMATCH:
        return f"its certificate is for another name than {split(server)[0]}"
    if error.verify_code in _UNKNOWN_AUTHORITY:
        return "its certificate was not signed by an authority in kafka.tls.ca (or, without it, the system's)"
    return f"its certificate is refused: {error.verify_message}"


def _handshake(error: ssl.SSLError, settings: KafkaSettings) -> str:
    reason = error.reason or str(error)
    shown = settings.tls is not None and settings.tls.cert is not None
    if "CERTIFICATE_REQUIRED" in reason or "HANDSHAKE_FAILURE" in reason or ("CERT" in reason and not shown):
        return "it wants a client certificate: set kafka.tls.cert and kafka.tls.key"
    if "UNKNOWN_CA" in reason or "BAD_CERTIFICATE" in reason or "CERTIFICATE_UNKNOWN" in reason:
        return "it doesn't accept our client certificate"
    if "WRONG_VERSION" in reason or "RECORD_LAYER" in reason:
        return "this port doesn't speak TLS"
    with contextlib.suppress(AttributeError):
        reason = reason.lower().replace("_", " ")
    return f"TLS failed: {reason}"
