"""`adopt` and `fork`: an operator decides what the gateway may not decide by itself."""

from typing import Annotated, Literal

import typer

from gateway.cli.options import Configuration, queue_of
from gateway.control.client import Client
from gateway.control.local import LocalQueue

Choice = Literal["delivered", "lost"]


def adopt(
    config: Configuration = None,
    assume: Annotated[
        Choice | None,
        typer.Option(
            help="What to take records for whose delivery nobody can know: delivered (skip them) or lost (send them)."
        ),
    ] = None,
) -> None:
    """Agree to what the gateway found (another cluster, id or board, lost positions) and let it send again.

    `tidegate status` says what it waits for.
    """
    with queue_of(config) as queue:
        queue.adopt(assume)
        typer.echo(f"Agreed; it counts {_when(queue)}.")


def fork(config: Configuration = None) -> None:
    """This card is a copy, the original runs on: let this board be a gateway of its own.

    What waited when the card was copied is left to the original; what this board collected since is sent under its own
    gateway.id, which must be set before.
    """
    with queue_of(config) as queue:
        queue.adopt("fork")
        typer.echo(f"This gateway is its own; it counts {_when(queue)}.")


def _when(queue: Client | LocalQueue) -> str:
    return "now" if isinstance(queue, Client) else "when the gateway runs again"


def add_to(app: typer.Typer) -> None:
    app.command()(adopt)
    app.command()(fork)
