"""`audit`: is what gateways delivered to Kafka complete?"""

import asyncio
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from gateway.cli import words
from gateway.cli.location import configured
from gateway.cli.options import Configuration, Json
from gateway.cli.terminal import counting, output, table
from gateway.control.wire import to_json
from gateway.printable import printable

if TYPE_CHECKING:
    from gateway.audit import Lane, Report

RANGES_SHOWN = 20


def audit(
    topics: Annotated[
        list[str] | None,
        typer.Argument(metavar="[TOPIC]...", help="Topics to read beside those that the ledger names."),
    ] = None,
    config: Configuration = None,
    as_json: Json = False,
) -> None:
    r"""Read Kafka and check every gateway's sequence numbers: continuous, none twice, gaps explained.

    Only the \[kafka] part of the configuration is used, so it need not be a gateway's. Exit code 1 if something is not
    explained.
    """
    # The Kafka client is imported only here: it takes longer than everything else.
    from gateway import audit as auditor

    settings = configured(config).kafka
    with counting("reading Kafka", None) as progress:

        def told(now: auditor.Progress) -> None:
            progress(now.done, now.total)

        report = asyncio.run(auditor.audit(settings, topics or (), told))
    if as_json:
        typer.echo(json.dumps({"sound": report.sound, **to_json(report)}, indent=2))
    else:
        show(output(), report)
    raise typer.Exit(report.exit_code)


def show(console: Console, report: "Report") -> None:
    lanes = table(
        "gateway",
        "queue",
        "lane",
        "up to",
        "records",
        "missing",
        "twice",
        "",
        right=("up to", "records", "missing", "twice"),
    )
    for lane in report.lanes:
        missing = ", ".join(f"{words.count(number)} {cause}" for cause, number in lane.counts.items()) or "0"
        verdict = (
            Text("complete", "green")
            if lane.sound and lane.complete
            else Text("explained", "yellow")
            if lane.sound
            else Text("NOT EXPLAINED", "red")
        )
        lanes.add_row(
            *map(printable, (lane.gateway, lane.queue, lane.lane)),
            words.count(lane.judged),
            words.count(lane.records),
            missing,
            words.count(lane.twice_records),
            verdict,
        )
    console.print(lanes if report.lanes else "Kafka knows of no gateway.")
    for lane in report.lanes:
        for line in _details(lane):
            console.print(printable(f"{lane.gateway} {lane.queue} {lane.lane}: {line}"), soft_wrap=True)
    for problem in report.problems:
        console.print(Text(printable(f"not seen: {problem}"), "red"), soft_wrap=True)
    foreign = f", {words.count(report.foreign)} of them from no gateway" if report.foreign else ""
    console.print(
        f"{words.count(report.records)} records read{foreign}; at most {words.count(report.intervals)} ranges of numbers in memory, {words.size(report.interval_bytes)}"
    )


def _details(lane: "Lane") -> Iterator[str]:
    for gap in lane.missing[:RANGES_SHOWN]:
        yield f"{_range(gap.first, gap.last)} missing, {gap.cause}: {gap.reason}"
    for first, last in lane.twice[:RANGES_SHOWN]:
        yield f"{_range(first, last)} twice"
    hidden = max(0, len(lane.missing) - RANGES_SHOWN) + max(0, len(lane.twice) - RANGES_SHOWN)
    if hidden:
        yield f"and {words.count(hidden)} more ranges; --json has them"
    for clash in lane.clashes:
        yield f"runs {clash.run} and {clash.other} both gave {_range(*clash.numbers)}: the queue's database was copied"
    yield from lane.notes


def _range(first: int, last: int) -> str:
    return f"record {first}" if first == last else f"records {first} to {last}"


def add_to(app: typer.Typer) -> None:
    app.command()(audit)
