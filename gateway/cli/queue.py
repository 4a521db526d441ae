"""`queue`: what waits for Kafka; its way out of one gateway and into another."""

import json
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.table import Table

from gateway.cli import words
from gateway.cli.options import Configuration, Json, queue_of
from gateway.cli.terminal import counting, output, table
from gateway.control.contents import Contents
from gateway.control.transfer import LANE
from gateway.control.wire import StoredRecord, record_to_json, to_json
from gateway.errors import CommandError
from gateway.printable import printable
from gateway.sync import family

RETRY_AT_ONCE = 8
"""Dead letters may each be as large as a record may be, and one transaction takes them all."""

TWICE = (
    "tidegate: if a topic can't be written or a transaction is in doubt, Kafka may have some of them already: imported "
    "into another gateway these arrive twice"
)

VALUE_CHARACTERS = 100
"""Of a value that `peek` shows: a table with more is hard to read."""

FORMATS = Literal["sqlite", "csv", "jsonl"]

queue = typer.Typer(no_args_is_help=True, help="What waits for Kafka.")
dead = typer.Typer(no_args_is_help=True, help="Records that Kafka refused for good.")
queue.add_typer(dead, name="dead")

Format = Annotated[
    FORMATS | None, typer.Option("--format", help="What the file is.", show_default="by the file's name")
]


@queue.command("ls")
def ls(config: Configuration = None, as_json: Json = False) -> None:
    """List the lanes: how much waits, since when."""
    with queue_of(config) as opened:
        found = opened.contents()
    if as_json:
        typer.echo(json.dumps(to_json(found), indent=2))
    else:
        output().print(lanes(found))


def lanes(contents: Contents) -> Table:
    numbers = ("waiting", "bytes", "stored", "delivered", "dead", "dropped")
    listed = table("lane", *numbers, "oldest", right=numbers)
    for lane, stats in contents.stats.lanes.items():
        oldest = contents.oldest_ms[lane]
        listed.add_row(
            lane,
            words.count(stats.pending),
            words.size(stats.pending_bytes),
            *map(words.count, (stats.stored, stats.delivered, stats.dead, stats.dropped)),
            "-" if oldest is None else words.clock(oldest),
        )
    return listed


@queue.command()
def peek(
    config: Configuration = None,
    limit: Annotated[int, typer.Option("-n", "--limit", min=1, max=1000, help="How many records.")] = 10,
    after: Annotated[int | None, typer.Option(min=0, help="Begin behind this number.")] = None,
    lane: Annotated[Literal["main", "ledger"], typer.Option(help="Which lane.")] = "main",
    full: Annotated[bool, typer.Option("--full", help="Whole values, however long.")] = False,
    as_json: Json = False,
) -> None:
    """Show the first records that wait, without taking them."""
    with queue_of(config) as opened:
        found = opened.peek(lane, after, limit)
    if as_json:
        for record in found:
            typer.echo(json.dumps(record_to_json(record)))
    else:
        output().print(_records(found, None if full else VALUE_CHARACTERS))


def _records(found: Iterable[StoredRecord], value_characters: int | None) -> Table:
    listed = table("number", "time", "topic", "key", "value", right=("number",))
    for record in found:
        listed.add_row(
            str(record.seq), words.clock(record.entry.time_ms), *_content(record, value_characters)
        )
    return listed


def _content(record: StoredRecord, value_characters: int | None) -> tuple[str, str, str]:
    topic, key, _ = record.entry.shape
    return topic, words.content(key), words.shortened(record.entry.value, value_characters)


@queue.command("export")
def export_(
    file: Annotated[Path, typer.Argument(help="A new file: .db or .sqlite, .csv, .jsonl.")],
    config: Configuration = None,
    kind: Format = None,
) -> None:
    """Copy what waits into a new file, one row a record. The queue keeps it.

    Devices may go on sending meanwhile; records that are delivered meanwhile are left out. What is not known to be
    delivered is in it: records behind one whose topic can't be written, or of a transaction whose outcome is unknown,
    may be in Kafka already. This gateway finds out before it sends; imported into another one they arrive twice.
    """
    from gateway import export

    chosen = kind or export.format_of(file)
    with queue_of(config) as opened:
        waiting = opened.contents().stats.lanes[LANE].pending
        with counting("exporting", waiting) as progress:
            count = export.write(file, chosen, opened.export(), progress)
    typer.echo(f"{words.count(count)} records in {file}")
    if count:
        print(TWICE, file=sys.stderr)


@queue.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="A file that `queue export` wrote.")],
    config: Configuration = None,
    kind: Format = None,
) -> None:
    """Put the records of an exported file into this gateway's queue.

    They keep topic, key, headers, value and time; a header tg.imported says where they came from. A file goes in once:
    after an interruption, or by mistake, the same command adds only what isn't in yet.
    """
    from gateway import export

    chosen = kind or export.format_of(file)
    with counting("reading", None) as progress:
        content = export.inspect(file, chosen, progress)
    with queue_of(config) as opened:
        if family(opened.contents().queue_id) in map(family, content.queues):
            raise CommandError(
                f"{file} came out of this very queue, or a copy of it; importing it would deliver its records twice",
                os.EX_USAGE,
            )
        with counting("importing", content.records) as progress:
            added = export.send(file, chosen, content, opened, progress)
    before = content.records - added
    had = f"; {words.count(before)} were in already" if before else ""
    typer.echo(f"{words.count(added)} records imported from {file}{had}")


@dead.command("ls")
def dead_ls(
    config: Configuration = None,
    limit: Annotated[
        int, typer.Option("-n", "--limit", min=1, max=10_000, help="How many, oldest first.")
    ] = 1000,
    as_json: Json = False,
) -> None:
    """List dead letters and why Kafka refused them."""
    with queue_of(config) as opened:
        letters = opened.dead(limit)
    if as_json:
        for one in letters:
            typer.echo(json.dumps(to_json(one)))
        return
    listed = table("id", "given up", "lane", "number", "bytes", "reason", right=("id", "number", "bytes"))
    for one in letters:
        listed.add_row(
            str(one.id),
            words.clock(one.time_ms),
            one.lane,
            str(one.seq),
            words.count(one.size),
            printable(one.reason),
        )
    output().print(listed if letters else "No dead letters.")


@dead.command("show")
def dead_show(
    row_id: Annotated[int, typer.Argument(metavar="ID", min=0, help="As `queue dead ls` lists it.")],
    config: Configuration = None,
) -> None:
    """Show what a dead letter holds, as JSON."""
    with queue_of(config) as opened:
        typer.echo(json.dumps(record_to_json(opened.dead_record(row_id))))


@dead.command("retry")
def dead_retry(
    ids: Annotated[
        list[int] | None, typer.Argument(metavar="[ID]...", help="As `queue dead ls` lists them.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    config: Configuration = None,
) -> None:
    """Send dead letters again, as new records that name the old ones in a header tg.retry."""
    if bool(ids) == every:
        raise CommandError("say which dead letters: their ids, or --all", os.EX_USAGE)
    with queue_of(config) as opened:
        chosen = ids or [one.id for one in opened.dead(10_000)]
        retried = sum(opened.retry(part) for part in _parts(chosen))
    typer.echo(f"{words.count(retried)} records wait for Kafka again")
    missing = len(set(chosen)) - retried
    if missing:
        print(
            f"tidegate: {missing} dead letters could not be sent again: no such id, or records before it still wait, perhaps for a "
            "topic that is not written (see tidegate status)",
            file=sys.stderr,
        )
        raise typer.Exit(os.EX_NOINPUT)


def _parts(ids: list[int]) -> Iterator[list[int]]:
    for start in range(0, len(ids), RETRY_AT_ONCE):
        yield ids[start : start + RETRY_AT_ONCE]


def add_to(app: typer.Typer) -> None:
    app.add_typer(queue, name="queue")
