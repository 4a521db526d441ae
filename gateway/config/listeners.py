"""What only one part of the gateway can have: addresses it listens on (by convention the `listen` and `listen_...` fields
of settings classes), and serial ports.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from typing import Any, NamedTuple

from gateway.port import PortSettings
from gateway.settings import Address


def clashes(parts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Two parts that want the same, as (path of the later, message). `parts` are settings by their path."""
    taken: list[_Listener] = []
    ports: dict[str, str] = {}
    for path, settings in parts.items():
        for where, port in _ports(path, settings):
            if ports.setdefault(port, where) != where:
                yield where, f"is the same as {ports[port]}; a serial port is for one driver"
        for one in _listeners(path, settings):
            for other in taken:
                if _clash(one, other):
                    yield (
                        one.where,
                        f"listens on the same address as {other.where}; give one of them another port",
                    )
                    break
            taken.append(one)


class _Listener(NamedTuple):
    where: str
    transport: str
    dual_stack: bool
    address: Address

    def covers(self, host: str) -> bool:
        ours = self.address.host
        return _is_every(ours) and ((":" in ours) == (":" in host) or (":" in ours and self.dual_stack))


def _listeners(path: str, settings: Any) -> Iterator[_Listener]:
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        where = f"{path}.{field.name.rstrip('_')}"
        if isinstance(value, Address) and field.name.startswith("listen"):
            yield _Listener(where, field.metadata["transport"], field.metadata["dual_stack"], value)
        elif dataclasses.is_dataclass(value):
            yield from _listeners(where, value)


def _ports(path: str, settings: Any) -> Iterator[tuple[str, str]]:
    if isinstance(settings, PortSettings):
        yield f"{path}.port", settings.port
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            yield from _ports(f"{path}.{field.name.rstrip('_')}", value)


def _clash(one: _Listener, other: _Listener) -> bool:
    host, port = one.address
    theirs, their_port = other.address
    if one.transport != other.transport or port != their_port or port == 0:
        return False
    return host == theirs or one.covers(theirs) or other.covers(host)


def _is_every(host: str) -> bool:
    try:
        return ip_address(host).is_unspecified
    except ValueError:
        return False
