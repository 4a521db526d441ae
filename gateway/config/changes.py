"""What a new configuration asks of a gateway that runs with an old one."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gateway.config.drivers import DriverConfig
from gateway.config.model import Config


@dataclass(frozen=True, kw_only=True)
class Changes:
    """Names of drivers, and which other parts must be made anew; `needs_restart` are settings of the whole process."""

    drivers_added: frozenset[str]
    drivers_removed: frozenset[str]
    drivers_changed: frozenset[str]
    routes: bool
    restart_sync: bool
    log: bool
    metrics: bool
    needs_restart: tuple[str, ...]

    def __bool__(self) -> bool:
        return any(getattr(self, field.name) for field in dataclasses.fields(self))


def changes(old: Config, new: Config) -> Changes:
    before, after = old.drivers.keys(), new.drivers.keys()
    kept = kept_until_restart(old, new)
    return Changes(
        drivers_added=frozenset(after - before),
        drivers_removed=frozenset(before - after),
        drivers_changed=frozenset(
            name for name in before & after if _differs(old.drivers[name], new.drivers[name])
        ),
        routes=old.routes != new.routes or old.gateway.default_topic != new.gateway.default_topic,
        restart_sync=old.kafka != new.kafka,
        log=old.log != new.log,
        metrics=old.metrics != new.metrics,
        needs_restart=(
            *_differing("gateway", kept.gateway, new.gateway),
            *_differing("queue", kept.queue, new.queue),
            *_differing("kafka", kept.kafka, new.kafka),
        ),
    )


def kept_until_restart(started: Config, new: Config) -> Config:
    """The new one, but for what only a restart of the process can change."""
    return dataclasses.replace(
        new,
        gateway=dataclasses.replace(started.gateway, default_topic=new.gateway.default_topic),
        queue=started.queue,
        # The queue writes to the ledger lane too, and was opened with its topic.
        kafka=dataclasses.replace(new.kafka, ledger_topic=started.kafka.ledger_topic),
    )


def _differs(one: DriverConfig, other: DriverConfig) -> bool:
    return one.manifest.name != other.manifest.name or one.settings != other.settings


def _differing(path: str, old: Any, new: Any) -> Iterator[str]:
    for field in dataclasses.fields(old):
        if getattr(old, field.name) != getattr(new, field.name):
            yield f"{path}.{field.name}"
