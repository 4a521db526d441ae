"""`password`: the hash that an MQTT user's password is configured as."""

import getpass
import sys

import typer

from gateway.errors import CommandError

DATA_ERROR = 65


def password() -> None:
    """Hash a password for [drivers.NAME.users.USER] of an mqtt driver; asked for twice, or one line of a pipe."""
    from drivers.mqtt.access import hashed

    if sys.stdin.isatty():
        entered = getpass.getpass("Password: ")
        if getpass.getpass("Once more: ") != entered:
            raise CommandError("the two are not the same", DATA_ERROR)
    else:
        entered = sys.stdin.readline().rstrip("\r\n")
    if not entered:
        raise CommandError("an empty password is none", DATA_ERROR)
    typer.echo(hashed(entered))


def add_to(app: typer.Typer) -> None:
    app.command()(password)
