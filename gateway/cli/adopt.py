"""`adopt`: an operator decides what the gateway may not decide by itself."""

from typing import Annotated, Literal

import typer

from gateway.cli.options import Configuration, configured, queue_of
from gateway.control.client import Client

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
    with queue_of(configured(config)) as queue:
        queue.adopt(assume)
        when = "now" if isinstance(queue, Client) else "when the gateway runs again"
        typer.echo(f"Agreed; it counts {when}.")


def add_to(app: typer.Typer) -> None:
    app.command()(adopt)
