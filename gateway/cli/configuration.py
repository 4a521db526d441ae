"""`init`, `check`, `schema`, `reference`: what is written before a gateway runs."""

import asyncio
import json
import os
import re
import secrets
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli import words
from gateway.cli.location import HERE, configuration_path, configured
from gateway.cli.options import Configuration
from gateway.config import (
    Config,
    describe,
    driver_types,
    reference,
    schema,
    template,
    unreadable_secrets,
    unusable_certificates,
)
from gateway.errors import CommandError
from gateway.routing import hidden

FIRST_DRIVERS = ["mqtt"]
LACKING = 1


def _known_type(name: str) -> str:
    if name not in driver_types():
        raise typer.BadParameter(f"no driver of type {name!r}; the types are {', '.join(driver_types())}")
    return name


def init(
    path: Annotated[
        Path, typer.Argument(metavar="FILE", help='Where to write it; "-" is standard output.')
    ] = HERE,
    driver: Annotated[
        list[str] | None,
        typer.Option(
            "--driver",
            "-d",
            metavar="TYPE",
            help="Add a sample of this driver; may be given again. `tidegate drivers` lists them.",
            callback=lambda names: [_known_type(name) for name in names or []],
            autocompletion=driver_types,
        ),
    ] = None,
    gateway_id: Annotated[
        str | None,
        typer.Option("--id", help="The gateway's id.", show_default="this host's name and a random number"),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
) -> None:
    """Write a commented configuration to begin with."""
    # Boards of a fleet often have one host name, and two gateways with one id stop each other.
    host = re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())[:50] or "gateway"
    name = f"{host}-{secrets.token_hex(2)}" if gateway_id is None else gateway_id
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", name):
        raise CommandError(
            f"--id {name!r} must be 1 to 64 letters, digits, dots, dashes or underscores", os.EX_USAGE
        )
    text = template(driver or FIRST_DRIVERS, name)
    if str(path) == "-":
        typer.echo(text, nl=False)
        return
    try:
        with path.open("w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise CommandError(f"{path} exists; --force writes over it", os.EX_CANTCREAT) from error
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}", os.EX_CANTCREAT) from error
    typer.echo(f"Wrote {path}. Now name your Kafka brokers in it, then: tidegate check -c {path}")


def check(
    config: Configuration = None,
    show: Annotated[
        bool, typer.Option("--show", help="Print the settings in force, defaults included.")
    ] = False,
    kafka: Annotated[
        bool,
        typer.Option(
            "--kafka",
            help="Also ask the brokers: names, TLS, login, ACLs, topics, and how to put right what is not. "
            "Changes nothing. Exit code 1 if something is lacking.",
        ),
    ] = False,
) -> None:
    """Find every mistake in a configuration, without touching devices or (but for --kafka) the network."""
    loaded = configured(config)
    for path, why in _warnings(loaded):
        print(f"warning: {path}: {why}", file=sys.stderr)
    if show:
        typer.echo(describe(loaded), nl=False)
        return
    drivers, routes = words.counted(len(loaded.drivers), "driver"), words.counted(len(loaded.routes), "route")
    typer.echo(f"{configuration_path(config)}: no mistakes; {drivers}, {routes}")
    for name, driver in loaded.drivers.items():
        for note in driver.manifest.notes(driver.settings):
            typer.echo(f"drivers.{name}: {note}")
    if kafka and not asyncio.run(_ask_kafka(loaded)):
        raise typer.Exit(LACKING)


def _warnings(config: Config) -> Iterator[tuple[str, str]]:
    """What may be meant, or be otherwise on the gateway."""
    yield from unreadable_secrets(config)
    yield from unusable_certificates(config)
    if not config.drivers:
        yield "drivers", "there are none, so no records will come"
    yield from hidden(config.routes, list(config.drivers))


async def _ask_kafka(config: Config) -> bool:
    """Topics whose names come from the records can't be asked for."""
    # The Kafka client is imported only here: it takes longer than all the rest.
    from gateway.sync.kafka.probe import probe

    topics = {route.topic for route in config.routes if "{" not in route.topic}
    if config.gateway.default_topic is not None:
        topics.add(config.gateway.default_topic)
    good = True
    async for finding in probe(config.kafka, config.gateway.id, topics):
        good = good and finding.good
        typer.echo(f"{'ok' if finding.good else 'LACKING':8} {finding.text}")
        if finding.command is not None:
            typer.echo(f"         {finding.command}")
    return good


def print_schema() -> None:
    """Print the configuration's JSON Schema, for completion and checks in editors."""
    typer.echo(json.dumps(schema(), indent=2))


def print_reference() -> None:
    """Print every setting with its values, default and meaning, in Markdown."""
    typer.echo(reference(), nl=False)


def add_to(app: typer.Typer) -> None:
    app.command()(init)
    app.command()(check)
    app.command("schema")(print_schema)
    app.command("reference")(print_reference)
