"""Devices that speak CoAP: they send to the gateway, answered after the fsync, or the gateway polls and observes them."""

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.driver import Manifest
from gateway.limits import MARKS_PER_SCOPE_MAX, RECORD_BYTES_MAX
from gateway.settings import Address, Size, setting


@dataclass(frozen=True, kw_only=True)
class Config:
    listen: Address | None = setting(None, doc="UDP address and port to listen on.", example='"0.0.0.0:5683"')
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


def problems(config: Config) -> Sequence[tuple[str, str]]:
    found = []
    if config.listen is not None and not config.anonymous:
        found.append(("anonymous", "nobody may send: set anonymous = true"))
    if config.buffer_bytes_max < config.body_bytes_max:
        found.append(("buffer_bytes_max", "is less than body_bytes_max"))
    return found


DRIVER = Manifest(
    name="coap",
    summary="Devices that send by CoAP, 2.04 after the fsync; or are polled and observed",
    config=Config,
    factory="drivers.coap.driver:CoapDriver",
    problems=problems,
)
