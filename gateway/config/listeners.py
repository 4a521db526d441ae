"""What only one part of the gateway can have: addresses it listens on (by convention the `listen` and `listen_...` fields
of settings classes), and serial ports.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from typing import Any

from gateway.port import PortSettings
from gateway.settings import Address


def clashes(parts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Two parts that want the same, as (path of the later, message). `parts` are settings by their path."""
    taken: list[tuple[str, str, Address]] = []
    ports: dict[str, str] = {}
    for path, settings in parts.items():
        for where, port in _ports(path, settings):
            if ports.setdefault(port, where) != where:
                yield where, f"is the same as {ports[port]}; a serial port is for one driver"
        for where, transport, address in _listeners(path, settings):
            for other, used, theirs in taken:
                if transport == used and _clash(address, theirs):
                    yield where, f"listens on the same address as {other}; give one of them another port"
                    break
            taken.append((where, transport, address))


def _listeners(path: str, settings: Any) -> Iterator[tuple[str, str, Address]]:
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        where = f"{path}.{field.name.rstrip('_')}"
        if isinstance(value, Address) and field.name.startswith("listen"):
            yield where, field.metadata["transport"], value
        elif dataclasses.is_dataclass(value):
            yield from _listeners(where, value)


def _ports(path: str, settings: Any) -> Iterator[tuple[str, str]]:
    if isinstance(settings, PortSettings):
        yield f"{path}.port", settings.port
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            yield from _ports(f"{path}.{field.name.rstrip('_')}", value)


def _clash(one: Address, other: Address) -> bool:
    if one.port != other.port or one.port == 0:
        return False
    covers = _is_every(one.host) or _is_every(other.host)
    return one.host == other.host or (covers and (":" in one.host) == (":" in other.host))


def _is_every(host: str) -> bool:
    try:
        return ip_address(host).is_unspecified
    except ValueError:
        return False
