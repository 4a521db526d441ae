"""`status`: how a running gateway is, or what lies in its queue while none runs."""

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from gateway.cli import words
from gateway.cli.options import Configuration, Json, reached
from gateway.cli.queue import lanes
from gateway.cli.terminal import output, table
from gateway.config import Config
from gateway.control.client import Client
from gateway.control.local import LocalQueue
from gateway.control.wire import to_json
from gateway.errors import CommandError
from gateway.printable import printable
from gateway.queue import UNREAD, Lost, Story, in_use
from gateway.runtime.runtime import QUEUE_FILE
from gateway.runtime.status import DriverStatus, Status, Verification
from gateway.sync import LinkState

DEVICES_SHOWN = 10
LOST_SHOWN = 5
BROKEN = 1

_GOOD, _BAD, _ODD = "green", "red", "yellow"
_LINK = {LinkState.LIVE: _GOOD, LinkState.CONNECTING: _ODD, LinkState.DOWN: _ODD, LinkState.HELD: _BAD}


def status(
    config: Configuration = None,
    as_json: Json = False,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify",
            help="Count both sides of the conservation law anew; reads the whole queue. Exit code 1 if broken.",
        ),
    ] = False,
    devices: Annotated[
        bool, typer.Option("--devices", help="Every device, not only the latest to fail.")
    ] = False,
    alive: Annotated[
        bool,
        typer.Option(
            "--alive",
            help="Only say whether a gateway runs or is starting; opens no queue. Exit code 69 if not.",
        ),
    ] = False,
) -> None:
    """Show drivers, devices, queue, Kafka link, wear and what a power cut may cost."""
    client = reached(config)
    if alive:
        typer.echo(_alive(client))
        return
    if isinstance(client, Config):
        if verify:
            raise CommandError("no gateway runs; only a running one can be verified", os.EX_UNAVAILABLE)
        _without_gateway(client, as_json)
        raise typer.Exit(os.EX_UNAVAILABLE)
    verification = client.verify() if verify else None
    found = client.status()
    if as_json:
        typer.echo(json.dumps({"running": True, **to_json(found), **_verified(verification)}, indent=2))
    else:
        show(output(), found, verification, every_device=devices)
    if verification is not None and not verification.holds:
        raise typer.Exit(BROKEN)


def _alive(client: Client | Config) -> str:
    if isinstance(client, Client):
        return f"gateway {client.status().gateway_id} runs"
    folder = client.gateway.data_dir
    with suppress(OSError):
        if in_use(folder / QUEUE_FILE):
            return "a gateway is opening its queue; after damage that takes its time"
    raise CommandError(f"no gateway runs with data_dir {folder}", os.EX_UNAVAILABLE)


def _verified(verification: Verification | None) -> dict[str, Any]:
    if verification is None:
        return {}
    return {"verification": {"holds": verification.holds, **to_json(verification)}}


def _without_gateway(config: Config, as_json: bool) -> None:
    with LocalQueue(config) as queue:
        contents = queue.contents()
    if as_json:
        typer.echo(json.dumps({"running": False, "queue": to_json(contents)}, indent=2))
        return
    console = output()
    console.print(
        f"No gateway runs with data_dir {config.gateway.data_dir}. Its queue {contents.queue_id} holds:"
    )
    console.print(lanes(contents))
    if contents.stats.salvage:
        console.print(Text(_salvage(contents.stats.salvage), _ODD))


def show(console: Console, status: Status, verification: Verification | None, *, every_device: bool) -> None:
    up = words.span(status.up_s)
    console.print(
        Text.assemble(
            (status.gateway_id, "bold"),
            f"  tidegate {status.version}, up {up}, pid {status.pid}, queue {status.queue_id}",
        )
    )
    console.print()
    _drivers(console, status, every_device)
    for title, lines in (("Queue", _queue(status)), ("Kafka", _kafka(status)), ("Disk", _disk(status))):
        console.print(Text(f"\n{title}", "bold"))
        for line in lines:
            console.print(Text("  ").append_text(line))
    if status.needs_restart:
        console.print(
            Text(f"\nChanged, but only a restart brings it in: {', '.join(status.needs_restart)}", _ODD)
        )
    if verification is not None:
        _conservation(console, verification)


def _drivers(console: Console, status: Status, every_device: bool) -> None:
    listed = table(
        "driver",
        "type",
        "state",
        "devices",
        "stored",
        "accepted",
        "error",
        right=("devices", "stored", "accepted"),
    )
    for name, driver in status.drivers.items():
        health = driver.health
        state = Text("running", _GOOD) if health.running else Text("failed", _BAD)
        if health.restarts:
            state.append(f", restarted {words.count(health.restarts)} times", "default")
        known = words.count(len(driver.devices) + driver.devices_forgotten)
        listed.add_row(
            name,
            driver.type,
            state,
            known,
            words.count(driver.stored),
            words.count(driver.accepted),
            printable(health.error or ""),
        )
    console.print(listed if status.drivers else "No drivers are configured.")
    for name, driver in status.drivers.items():
        if driver.events:
            counted = ", ".join(f"{event} {words.count(times)}" for event, times in driver.events.items())
            console.print(f"{name} counted: {counted}")
    shown = table(
        "device", "driver", "records", "failures", "last record", "error", right=("records", "failures")
    )
    hidden = 0
    for name, driver in status.drivers.items():
        hidden += _devices(shown, name, driver, status.now_ms, None if every_device else DEVICES_SHOWN)
    if shown.row_count:
        console.print()
        console.print(shown)
    if hidden:
        console.print(f"... and {words.count(hidden)} more; --devices shows all")


def _devices(shown: Any, name: str, driver: DriverStatus, now_ms: int, limit: int | None) -> int:
    """Those that fail come first; returns how many were left out."""
    by_failure = sorted(
        driver.devices.items(), key=lambda one: (one[1].error is None, -(one[1].failed_ms or 0), one[0])
    )
    for device, one in by_failure[:limit]:
        seen = "never" if one.seen_ms is None else words.ago(one.seen_ms, now_ms)
        row = (printable(device), name, words.count(one.records), words.count(one.failures), seen)
        shown.add_row(*row, Text(printable(one.error or ""), _BAD))
    return max(0, len(by_failure) - (limit or len(by_failure)))


def _queue(status: Status) -> Iterator[Text]:
    queue, main = status.queue, status.queue.lanes["main"]
    waiting = Text(f"{words.count(main.pending)} records wait, {words.size(main.pending_bytes)}")
    if status.oldest_ms is not None:
        waiting.append(f"; the oldest came {words.ago(status.oldest_ms, status.now_ms)}")
    yield waiting
    if main.pending:
        if status.link.parked:
            yield Text("how long they wait depends on the topics that are not written, see below")
        elif status.drain_s is None:
            yield Text("nothing is being delivered, so no time until they are can be told")
        else:
            rate = f"{status.link.records_per_s:,.0f} records/s"
            yield Text(
                f"delivered in {words.span(status.drain_s)} at the present {rate}, if nothing new came"
            )
    yield Text(
        f"{words.size(queue.used_bytes)} of {words.size(queue.max_bytes)} used, {words.size(queue.disk_free_bytes)} free on the disk"
    )
    beyond = f" ({words.count(status.link.beyond)} of those that wait are in Kafka already)"
    yield Text(
        f"since the queue began: {words.count(main.stored)} stored, {words.count(main.delivered)} delivered"
        f"{beyond if status.link.beyond else ''}, "
        f"{words.count(main.dead)} dead letters, {words.count(main.dropped)} dropped"
    )
    if queue.refusing:
        yield Text(f"devices are refused: {queue.refusing}", _BAD)
    if queue.salvage:
        yield Text(_salvage(queue.salvage), _ODD)


def _salvage(story: Story) -> str:
    main = story.main
    told = f"the database was damaged, found {words.clock(story.time)} ({story.damage}); {words.count(main.records)} "
    told += "waiting records were saved from it"
    if main.position is None:
        told += ", how far it had been delivered could not be read"
    if main.lost:
        bound = "at least" if main.position is not None else "up to"
        told += f", {bound} {words.count(main.lost_records)} are not there: "
        told += ", ".join(map(_lost, main.lost[:LOST_SHOWN]))
        told += " and more" if len(main.lost) > LOST_SHOWN else ""
        told += " (`tidegate audit` knows which of them Kafka had, or were dropped before)"
    later = f" or later than {words.clock(main.end_ms)}" if main.end_ms is not None else ""
    told += f"; what was stored behind number {main.end}{later}, if anything was, is lost without a trace"
    told += "".join(f"; {UNREAD[table]}" for table in story.unread)
    return f"{told}. What is left of it is in {story.quarantine}"


def _lost(lost: Lost) -> str:
    after = "before" if lost.from_ms is None else f"between {words.clock(lost.from_ms)} and"
    return f"numbers {lost.first} to {lost.last}, stored {after} {words.clock(lost.to_ms)}"


def _kafka(status: Status) -> Iterator[Text]:
    link = status.link
    yield Text.assemble(
        (str(link.state), _LINK[link.state]),
        f" since {words.clock(status.now_ms - round(link.since_s * 1000))}, {words.span(link.since_s)} ago",
    )
    if link.error:
        yield Text(printable(f"last error: {link.error}"))
    if link.alarm:
        yield Text(printable(f"needs you: {link.alarm}"), _BAD)
    for topic, reason in link.parked.items():
        yield Text(printable(f"topic {topic} is not written: {reason}"), _BAD)
    delivered = ", ".join(f"{lane} {words.count(number)}" for lane, number in link.delivered.items())
    yield Text(
        f"delivered since the start: {delivered or 0} in {words.count(link.transactions)} transactions, {words.size(link.bytes_sent)} sent"
    )


def _disk(status: Status) -> Iterator[Text]:
    wear, loss = status.wear, status.loss
    if wear.device_mb_per_day is not None:
        yield Text(f"{wear.device_mb_per_day:,.0f} MB/day to {wear.device}, by everything on this machine")
    if wear.process_mb_per_day is not None:
        yield Text(f"{wear.process_mb_per_day:,.0f} MB/day by tidegate itself")
    acknowledged = "nothing" if loss.acknowledged_s == 0 else f"the last {words.span(loss.acknowledged_s)}"
    yield Text(
        f"a power cut loses: of what devices were told is accepted {acknowledged}; of what no device waits for at most "
        f"the last {words.span(loss.unacknowledged_s)}"
    )


def _conservation(console: Console, verification: Verification) -> None:
    console.print(Text("\nConservation", "bold"))
    sums = table("lane", "stored", "= pending", "+ delivered", "+ dead", "+ dropped", "", right=("stored",))
    for lane, law in verification.lanes.items():
        found = law.pending + law.delivered + law.dead + law.dropped
        verdict = Text("holds", _GOOD) if law.holds else Text(f"BROKEN: {found - law.stored:+,}", _BAD)
        sums.add_row(
            lane, *map(words.count, (law.stored, law.pending, law.delivered, law.dead, law.dropped)), verdict
        )
    console.print(sums)
    kept = verification.accepted <= verification.stored
    console.print(
        Text(
            f"devices were told of {words.count(verification.accepted)} accepted records since the start, "
            f"{words.count(verification.stored)} were stored: {'holds' if kept else 'BROKEN'}",
            _GOOD if kept else _BAD,
        )
    )


def add_to(app: typer.Typer) -> None:
    app.command()(status)
