"""`password`: the hash that an MQTT user's password is configured as."""

import getpass
import os
import sys

import typer

from gateway.errors import CommandError


def password() -> None:
    """Hash a password for a user of an mqtt driver; asked for twice, or one line of a pipe."""
    from drivers.mqtt.passwords import hashed

    if sys.stdin.isatty():
        entered = getpass.getpass("Password: ")
        if getpass.getpass("Once more: ") != entered:
            raise CommandError("the two are not the same", os.EX_DATAERR)
    else:
        entered = sys.stdin.readline().rstrip("\r\n")
    if not entered:
        raise CommandError("an empty password is none", os.EX_DATAERR)
    typer.echo(hashed(entered))


def add_to(app: typer.Typer) -> None:
    app.command()(password)
