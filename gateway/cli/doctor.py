"""`doctor`: is this a place where a gateway can keep its promise?"""

import os
import sys
import time
from collections.abc import Iterable
from typing import Annotated

import typer
from rich.text import Text

from gateway.cli.location import configuration_path, configured
from gateway.cli.options import Configuration
from gateway.cli.terminal import output
from gateway.doctor import Finding, Verdict, clock, disk, flush, kafka, look, pull
from gateway.errors import CommandError
from gateway.runtime.runtime import QUEUE_FILE

FOUND_FAILURES = 1
PULL_S = 600
"""Long enough to walk to the plug; each second wears the card."""

_COLOURS = {Verdict.OK: "green", Verdict.WARNING: "yellow", Verdict.FAILURE: "red"}

doctor = typer.Typer(
    invoke_without_command=True,
    help="Check the clock, the disk and the way to Kafka; two commands for a power cut.",
)


@doctor.callback()
def examine(
    context: typer.Context,
    config: Configuration = None,
    offline: Annotated[bool, typer.Option("--offline", help="Leave Kafka out.")] = False,
) -> None:
    if context.invoked_subcommand is not None:
        return
    loaded = configured(config)
    folder = loaded.gateway.data_dir
    failed = _show(clock([configuration_path(config), folder / QUEUE_FILE]))
    failed |= _show(disk(folder, loaded.queue))
    if folder.is_dir():
        failed |= _show(flush(folder))
    if not offline:
        failed |= _show(kafka(loaded.kafka))
    if failed:
        raise typer.Exit(FOUND_FAILURES)


def _show(findings: Iterable[Finding]) -> bool:
    """Each as soon as it is found; says whether there was a failure."""
    console, failed = output(), False
    for subject, verdict, text in findings:
        console.print(
            Text.assemble((f"{verdict:8}", _COLOURS[verdict]), f"{subject}: {text}"), soft_wrap=True
        )
        failed |= verdict is Verdict.FAILURE
    return failed


@doctor.command("pull-plug")
def pull_plug(config: Configuration = None) -> None:
    """Step one: write numbered blocks and show the last one that the disk has acknowledged; then pull the plug.

    Watch it over ssh, so that the number outlives this machine. Stop a running gateway before.
    """
    folder = configured(config).gateway.data_dir
    end = time.monotonic() + PULL_S
    print(
        "Pull the plug now, and remember the last number. After power-up: tidegate doctor after-plug NUMBER",
        flush=True,
    )
    try:
        for number in pull(folder):
            print(
                f"\r{number}" if sys.stdout.isatty() else number,
                end="" if sys.stdout.isatty() else "\n",
                flush=True,
            )
            if time.monotonic() > end:
                break
    except OSError as error:
        raise CommandError(f"{folder}: {error.strerror}", os.EX_IOERR) from error
    print(f"\nNobody pulled the plug in {PULL_S // 60} minutes; nothing is shown by that.")


@doctor.command("after-plug")
def after_plug(
    number: Annotated[int, typer.Argument(min=1, help="The last number that step one showed.")],
    config: Configuration = None,
) -> None:
    """Step two, after power-up: is what the disk had acknowledged on it?"""
    folder = configured(config).gateway.data_dir
    try:
        kept = look(folder)
    except (OSError, ValueError) as error:
        raise CommandError(
            f"{folder}: nothing of step one is here ({error}); run `tidegate doctor pull-plug`", os.EX_NOINPUT
        ) from error
    if kept.last < number:
        lost = number - kept.last
        print(f"The disk LOST the last {lost} of {number} blocks that it had acknowledged: it doesn't flush.")
        print("Acknowledged records would be lost in a power cut: use another card or disk.")
        raise typer.Exit(FOUND_FAILURES)
    if not kept.rebooted:
        raise CommandError(
            "this machine has not been off since step one: the disk has not been put to the test",
            os.EX_NOINPUT,
        )
    print(f"Number {number} is on the disk (the last is {kept.last}): it kept all that it had acknowledged.")


def add_to(app: typer.Typer) -> None:
    app.add_typer(doctor, name="doctor")
