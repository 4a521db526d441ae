"""`tidegate run`. Imports neither typer nor rich: on a small board that is a fifth of the start, and 10 MB."""

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from gateway.cli.location import RULE, configuration_path, configured
from gateway.control.server import attached
from gateway.runtime.process import run


def command(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser("tidegate")
    parser.add_argument("run")
    parser.add_argument("-c", "--config", type=Path, help=f"Configuration. {RULE}")
    given = parser.parse_args(arguments).config
    return run(configuration_path(given), partial(configured, given), attached)
