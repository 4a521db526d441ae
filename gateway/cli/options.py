"""What several commands take, and what they begin with."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.location import RULE, configuration_path, configured
from gateway.config import Config, DriverConfig, gateway_section
from gateway.control.client import Client, running
from gateway.control.local import LocalQueue
from gateway.errors import CommandError, ConfigError

Configuration = Annotated[
    Path | None,
    # Whether it can be read is told as for every other way to name one, not by typer as a mistake in the command.
    typer.Option(
        "--config", "-c", metavar="FILE", help=f"Configuration. {RULE}", show_default=False, readable=False
    ),
]
Json = Annotated[bool, typer.Option("--json", help="JSON instead of text for people.")]


def driver_of(config: Config, name: str) -> DriverConfig:
    """Raises CommandError."""
    found = config.drivers.get(name)
    if found is None:
        known = ", ".join(config.drivers) or "none"
        raise CommandError(f"no driver {name!r} in the configuration; there are: {known}", os.EX_USAGE)
    return found


def reached(given: Path | None) -> Client | Config:
    """The gateway that runs, or the configuration of one that doesn't. A mistake that came into the file since the start keeps
    nobody from looking. Raises ConfigError, CommandError."""
    try:
        config = configured(given)
    except ConfigError:
        path = configuration_path(given)
        section = gateway_section(path)
        client = None if section is None else running(section.id, section.data_dir)
        if client is None:
            raise
        told = f"{path} has mistakes, see `tidegate check`; the gateway runs on with the configuration that it has"
        print(told, file=sys.stderr)
        return client
    return running(config.gateway.id, config.gateway.data_dir) or config


def live(given: Path | None) -> Client:
    """Raises ConfigError, CommandError, also if no gateway runs."""
    found = reached(given)
    if isinstance(found, Config):
        raise CommandError(f"no gateway runs with data_dir {found.gateway.data_dir}", os.EX_UNAVAILABLE)
    return found


@contextmanager
def queue_of(given: Path | None) -> Iterator[Client | LocalQueue]:
    """By the running gateway, or else opened here. Raises ConfigError, CommandError."""
    found = reached(given)
    if isinstance(found, Client):
        yield found
        return
    with LocalQueue(found) as queue:
        yield queue
