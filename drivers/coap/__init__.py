"""Devices that speak CoAP: they send to the gateway, answered after the fsync, or the gateway polls and observes them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

from drivers.coap import protocol
from drivers.coap.protocol import Problem
from gateway.driver import Manifest
from gateway.limits import MARKS_PER_SCOPE_MAX, RECORD_BYTES_MAX
from gateway.pattern import Pattern
from gateway.settings import Address, Duration, Form, Secret, Size, setting

RESOURCES_MAX = 1000
HEX = Form("([0-9a-fA-F]{2})*", "hexadecimal digits, two of each byte")
SECRET_BYTES_MIN = 16
ID_BYTES_MAX = 7
"""With AES-CCM-16-64-128 (RFC 8613, 3.3)."""

OSCORE_LIBRARIES = ("cbor2", "cryptography", "filelock")


@dataclass(frozen=True, kw_only=True)
class Oscore:
    secret: Secret = setting(
        doc=f"Master secret, hexadecimal, at least {SECRET_BYTES_MIN} bytes.",
        form=Form(
            rf"\s*([0-9a-fA-F]{{2}}\s*){{{SECRET_BYTES_MIN},}}",
            f"hexadecimal digits, two of each of at least {SECRET_BYTES_MIN} bytes",
        ),
        example='{ env = "PRESS_SECRET" }',
    )
    salt: str = setting("", doc="Master salt, hexadecimal.", form=HEX)
    sender_id: str = setting(doc="Id that the gateway sends with, hexadecimal.", form=HEX, example='"01"')
    recipient_id: str = setting(doc="Id that the device sends with, hexadecimal.", form=HEX, example='"02"')
    id_context: str | None = setting(None, doc="ID Context, hexadecimal.", form=HEX)
    short_numbers: bool = setting(
        False,
        doc="For a device that reads no Partial IV of more than four bytes (Eclipse Californium): see the README first.",
    )
    channels: list[str] = setting(
        factory=list,
        doc="Channels that its device may send to, MQTT wildcards allowed.",
        example='["press/4/#"]',
    )


@dataclass(frozen=True, kw_only=True)
class Resource:
    uri: str = setting(doc="What is read.", example='"coap://192.0.2.7/sensors/temp"')
    device: str = setting(doc="The device of its records.", example='"press-4"')
    channel: str | None = setting(None, doc="The channel of its records; without it the path of the URI.")
    interval: Duration | None = setting(
        None, doc="It is polled once in this time.", minimum=0.01, example='"10 s"'
    )
    observe: bool = setting(False, doc="Instead of `interval`: the device tells every change (RFC 7641).")
    oscore: str | None = setting(None, doc="The OSCORE context that protects it.", example='"press-4"')


@dataclass(frozen=True, kw_only=True)
class Config:
    listen: Address | None = setting(
        None, doc="UDP address and port to listen on.", example='"0.0.0.0:5683"', transport="UDP"
    )
    anonymous: bool = setting(
        False, doc="Take requests that are not protected, from anybody, to any channel."
    )
    body_bytes_max: Size = setting(
        64 << 10,
        doc="Largest body of a request or of a device's resource, all blocks together.",
        minimum=16,
        maximum=RECORD_BYTES_MAX,
        example='"64 KiB"',
    )
    buffer_bytes_max: Size = setting(
        4 << 20,
        doc="All bodies that are being received or stored; a request beyond it gets 5.03, a block 4.13.",
        minimum=16,
        example='"4 MiB"',
    )
    transfers_max: int = setting(
        32, doc="Block-wise transfers at a time; another one gets 4.13.", minimum=1, maximum=10_000
    )
    exchanges_max: int = setting(
        20_000,
        doc="Answers kept for devices that send a message again.",
        minimum=1,
        maximum=MARKS_PER_SCOPE_MAX,
    )
    oscore: dict[str, Oscore] = setting(factory=dict, doc="OSCORE contexts by name (RFC 8613).")
    timeout: Duration = setting(
        10.0,
        doc="For a device's answer, once it is asked; beyond Max-Age, for a notification; and before an observation is begun again.",
        minimum=0.01,
        example='"10 s"',
    )
    max_age_max: Duration = setting(
        3600.0,
        doc="A longer Max-Age of an observed resource counts as this.",
        minimum=0.01,
        example='"1 h"',
    )
    resources: list[Resource] = setting(
        factory=list, doc="Resources of devices that the gateway polls or observes."
    )


def problems(config: Config) -> Sequence[tuple[str, str]]:
    found = []
    if config.listen is None and not config.resources:
        found.append(("listen", "there is nothing to do: name an address to listen on, or resources"))
    if config.listen is not None and not config.anonymous and not config.oscore:
        found.append(("anonymous", "nobody may send: name an OSCORE context, or set anonymous = true"))
    if config.buffer_bytes_max < config.body_bytes_max:
        found.append(("buffer_bytes_max", "is less than body_bytes_max"))
    if len(config.resources) > RESOURCES_MAX:
        found.append(("resources", f"{len(config.resources)} are more than {RESOURCES_MAX}"))
    for index, resource in enumerate(config.resources):
        found += [(f"resources[{index}].{field}", message) for field, message in _wrong(resource)]
        if resource.oscore is not None and resource.oscore not in config.oscore:
            known = ", ".join(config.oscore) or "none"
            found.append(
                (f"resources[{index}].oscore", f"no OSCORE context {resource.oscore!r}; there are: {known}")
            )
    return [*found, *_wrong_oscore(config.oscore)]


def _wrong_oscore(contexts: Mapping[str, Oscore]) -> Iterator[tuple[str, str]]:
    missing = [library for library in OSCORE_LIBRARIES if find_spec(library) is None]
    if contexts and missing:
        yield "oscore", f"needs {', '.join(missing)}: pip install 'tidegate[oscore]'"
    known: dict[tuple[str, str | None], str] = {}
    for name, one in contexts.items():
        if max(len(one.sender_id), len(one.recipient_id)) > 2 * ID_BYTES_MAX:
            yield f"oscore.{name}", f"an id has at most {ID_BYTES_MAX} bytes"
        if one.sender_id.lower() == one.recipient_id.lower():
            yield f"oscore.{name}.recipient_id", "is the gateway's own sender_id"
        other = known.setdefault((one.recipient_id.lower(), one.id_context), name)
        if other != name:
            yield f"oscore.{name}.recipient_id", f"is that of {other}; nothing tells their devices apart"
        for text in one.channels:
            try:
                Pattern(text)
            except ValueError as error:
                yield f"oscore.{name}.channels", f"{text!r}: {error}"


def _wrong(resource: Resource) -> Iterator[tuple[str, str]]:
    if (resource.interval is None) != resource.observe:
        yield "interval", "needs one of interval and observe = true"
    try:
        channel(resource)
    except ValueError as error:
        yield "uri", str(error)
    except Problem as problem:
        yield "channel", problem.detail
    try:
        protocol.name(resource.device, "device")
    except Problem as problem:
        yield "device", problem.detail


def channel(resource: Resource) -> str:
    """Raises ValueError for a URI that can't be read from, Problem for a channel that is none."""
    path = protocol.path(resource.uri)
    return protocol.name(path if resource.channel is None else resource.channel, "channel")


def channels(config: Config) -> Sequence[str] | None:
    return None if config.listen else sorted({channel(resource) for resource in config.resources})


DRIVER = Manifest(
    name="coap",
    summary="Devices that send by CoAP, 2.04 after the fsync; or are polled and observed",
    config=Config,
    factory="drivers.coap.driver:CoapDriver",
    channels=channels,
    problems=problems,
)
