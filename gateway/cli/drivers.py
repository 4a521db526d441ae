"""`drivers`: what there is, and how each is configured."""

import os
from typing import Annotated

import typer

from gateway.cli.terminal import output, table
from gateway.config import driver_reference, driver_types, load_manifest, sample
from gateway.errors import CommandError


def drivers(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[TYPE]", help="Print this driver's sample configuration.", autocompletion=driver_types
        ),
    ] = None,
    reference: Annotated[
        bool, typer.Option("--reference", help="Every setting of the driver, in Markdown.")
    ] = False,
) -> None:
    """List the drivers, or print the sample configuration of one."""
    if name is None:
        if reference:
            raise CommandError(
                "--reference needs a driver's type; `tidegate reference` prints all", os.EX_USAGE
            )
        listed = table("type", "")
        for driver_type in driver_types():
            listed.add_row(driver_type, _summary(driver_type))
        output().print(listed)
        return
    try:
        typer.echo(driver_reference(name) if reference else sample(name), nl=False)
    except LookupError as error:
        known = ", ".join(driver_types())
        raise CommandError(f"no driver of type {name!r}; the types are {known}", os.EX_USAGE) from error
    except (ImportError, OSError) as error:
        raise CommandError(f"driver {name!r} can't be loaded: {error}", os.EX_SOFTWARE) from error


def _summary(driver_type: str) -> str:
    try:
        return load_manifest(driver_type).summary
    except ImportError as error:
        return f"can't be loaded: {error}"


def add_to(app: typer.Typer) -> None:
    app.command()(drivers)
