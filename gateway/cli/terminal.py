"""Standard output and error as rich sees them."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

WIDTH_IN_FILE = 160
"""Where no terminal says how wide it is."""


def output() -> Console:
    return Console(
        width=None if sys.stdout.isatty() else WIDTH_IN_FILE, highlight=False, emoji=False, markup=False
    )


def table(*columns: str, right: tuple[str, ...] = ()) -> Table:
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return made


class Counting:
    """Shows how far a long work is, on a terminal; elsewhere nothing."""

    def __init__(self, progress: Progress, total: int | None, doing: str) -> None:
        self._progress = progress
        self._task = progress.add_task(doing, total=total)

    def __call__(self, done: int, total: int | None = None) -> None:
        self._progress.update(self._task, completed=done, total=total)


@contextmanager
def counting(doing: str, total: int | None) -> Iterator[Counting]:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not sys.stderr.isatty(), transient=True) as progress:
        yield Counting(progress, total, doing)
