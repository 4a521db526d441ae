"""All commands."""

from collections.abc import Sequence
from typing import Annotated

import typer

from gateway import __version__
from gateway.cli import (
    adopt,
    audit,
    configuration,
    doctor,
    drivers,
    modbus,
    password,
    ports,
    queue,
    run,
    status,
    tail,
    trial,
)
from gateway.cli.options import Configuration

EXIT_CODES = """\
Exit codes: 0 done; 1 something is not as it should be (status --verify, check --kafka, audit, doctor,
modbus); 2 no such command or option;
64 to 78 as in sysexits.h: 64 usage, 65 bad data, 66 no such input, 69 no gateway runs, 73 can't write a file or standard output,
74 the queue can't be used (its disk failed, another gateway has it, or it is another user's), 75 try again later, 77 not permitted,
78 mistakes in the configuration; 130 and 141 as a shell says it: ended by Ctrl-C, or nobody reads on."""

app = typer.Typer(
    name="tidegate",
    help="Edge gateway: devices to Apache Kafka, exactly once.",
    epilog=EXIT_CODES.replace("\n", " "),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="rich",
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tidegate {__version__}")
        raise typer.Exit


@app.callback()
def _global(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


@app.command("run")
def _run(config: Configuration = None) -> None:
    """Run the gateway until SIGTERM; SIGHUP reads the configuration again.

    Under systemd it doesn't end with 74 or 78 for what only an operator can mend, but waits.
    """
    arguments = ["run", *(["--config", str(config)] if config is not None else [])]
    raise typer.Exit(run.command(arguments))


configuration.add_to(app)
status.add_to(app)
tail.add_to(app)
queue.add_to(app)
drivers.add_to(app)
ports.add_to(app)
trial.add_to(app)
modbus.add_to(app)
doctor.add_to(app)
adopt.add_to(app)
audit.add_to(app)
password.add_to(app)


def command(arguments: Sequence[str]) -> int:
    try:
        app(list(arguments), prog_name="tidegate")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    return 0
