"""The contract between a driver and the runtime."""

import importlib
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, cast

from gateway.clock import Clock
from gateway.errors import DeviceError
from gateway.record import Record
from gateway.settings import Address


class MarkKey(NamedTuple):
    """`scope` names the kind and the owner of a mark, e.g. "mqtt/floor/qos2"; `key` is unique in it."""

    scope: str
    key: bytes


class Mark(NamedTuple):
    """Something to remember in the same transaction as records; gone after `lifetime_s` or past its scope's cap."""

    scope: str
    key: bytes
    value: bytes
    lifetime_s: int


class Emit(Protocol):
    """Where a driver's records go. Bound to one driver by the runtime."""

    def __call__(
        self,
        records: Sequence[Record],
        *,
        remember: Sequence[Mark] = (),
        forget: Sequence[MarkKey] = (),
        waits: bool = True,
    ) -> Awaitable[None]:
        """Store records and marks in one transaction; the awaitable resolves once they are on disk.

        Admission is synchronous: QueueFull, TooLarge or StorageFailing is raised at once, before anything joined a
        group; after that only a failing or a full disk can fail the awaitable (StorageFailing, QueueFull). Each call
        has its own awaitable, which may be left unawaited. `waits` says whether a device waits for the
        acknowledgement: if not, the records ride along with others or are committed after `unacked_interval`.
        """

    def recall(self, scope: str) -> Mapping[bytes, bytes]:
        """The marks of a scope that are alive, as they were when the driver started."""

    def accepted(self, count: int) -> None:
        """Count records whose device was told that they are accepted (or, with no one to tell, that are stored)."""

    def device_failed(self, device: str, reason: str) -> None:
        """Show in status that a device failed; its next record clears it."""

    def count(self, event: str, amount: int = 1) -> None:
        """Count something beside records that an operator may look for, e.g. "frames with a wrong checksum".

        In status and metrics under this very name; a driver has few of them, all written in its source.
        """


class Driver(Protocol):
    async def run(self, emit: Emit) -> None:
        """Serve until cancelled. Raise DeviceError to be restarted with back-off."""


class Context(NamedTuple):
    """What a driver is made with: its name in the configuration and the clock."""

    name: str
    clock: Clock


def cannot_listen(address: Address, error: OSError) -> DeviceError:
    """Python's own text may have the address, and the error's number, once more."""
    number = error.errno or 0  # of names that nobody knows it is negative
    why = os.strerror(number) if number > 0 else error.strerror or str(error)
    return DeviceError(f"can't listen on {address}: {why}")


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """`config` is a frozen dataclass of gateway.settings fields; `factory` is "module:class", imported only to run.

    The class is called as `cls(config, context)`. `channels` tells `check` which channels a configuration will emit,
    None if devices choose them; `problems` finds what no single field can, each (path below the driver, message);
    `notes` are sentences that `check` prints about a sound configuration, such as the load of a bus.
    """

    name: str
    summary: str
    config: type[Any]
    factory: str
    channels: Callable[[Any], Sequence[str] | None] = lambda config: None
    problems: Callable[[Any], Sequence[tuple[str, str]]] = lambda config: ()
    notes: Callable[[Any], Sequence[str]] = lambda config: ()

    def load(self) -> Callable[[Any, Context], Driver]:
        module, _, name = self.factory.partition(":")
        return cast(Callable[[Any, Context], Driver], getattr(importlib.import_module(module), name))
