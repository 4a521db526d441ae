"""What several commands take, and what they begin with."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.location import RULE, VARIABLE, configuration_path
from gateway.config import Config, DriverConfig, load
from gateway.control.client import Client, running
from gateway.control.local import LocalQueue
from gateway.errors import CommandError

Configuration = Annotated[
    Path | None,
    typer.Option("--config", "-c", metavar="FILE", help=f"Configuration. {RULE}", show_default=False),
]
Json = Annotated[bool, typer.Option("--json", help="JSON instead of text for people.")]


def configured(given: Path | None) -> Config:
    """Raises ConfigError, CommandError."""
    path = configuration_path(given)
    if given is None and not path.exists():
        raise CommandError(
            f"no configuration: neither ./tidegate.toml nor {path} is there; name one with -c or ${VARIABLE}, "
            "or write one with `tidegate init`",
            os.EX_NOINPUT,
        )
    return load(path)


def driver_of(config: Config, name: str) -> DriverConfig:
    """Raises CommandError."""
    found = config.drivers.get(name)
    if found is None:
        known = ", ".join(config.drivers) or "none"
        raise CommandError(f"no driver {name!r} in the configuration; there are: {known}", os.EX_USAGE)
    return found


def live(config: Config) -> Client:
    """Raises CommandError if no gateway runs."""
    client = running(config.gateway.id, config.gateway.data_dir)
    if client is None:
        raise CommandError(f"no gateway runs with data_dir {config.gateway.data_dir}", os.EX_UNAVAILABLE)
    return client


@contextmanager
def queue_of(config: Config) -> Iterator[Client | LocalQueue]:
    """By the running gateway, or else opened here. Raises CommandError."""
    client = running(config.gateway.id, config.gateway.data_dir)
    if client is not None:
        yield client
        return
    with LocalQueue(config) as queue:
        yield queue
