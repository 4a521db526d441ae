"""What the demo shows: a live table on a terminal, a line now and then anywhere else."""

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

from rich.console import Console
from rich.live import Live
from rich.table import Table

from gateway.audit import Report

PLAIN_INTERVAL_S = 2.0
PLAIN_WIDTH = 120
VERDICT = {
    "accepted": "accepted, served",
    "in_kafka": "in Kafka",
    "lost": "lost",
    "in_window": "in the window",
    "wrong": "wrong",
    "twice": "twice",
    "again": "sent again",
    "out_of_order": "out of order",
    "drain_s": "drained in",
}


class Counts(NamedTuple):
    """Of one driver: told to devices, or served by them, and distinct messages that a read_committed consumer has seen.

    `waiting` is None for what devices only served: some of it may have gone with the gateway.
    """

    accepted: int
    in_kafka: int
    served: bool = False

    @property
    def waiting(self) -> int | None:
        return None if self.served else max(0, self.accepted - self.in_kafka)

    def __str__(self) -> str:
        if self.served:
            return f"{self.accepted} served, {self.in_kafka} in Kafka"
        return f"{self.accepted} accepted, {self.waiting} waiting, {self.in_kafka} in Kafka"


def in_words(drivers: Mapping[str, Counts]) -> str:
    return "; ".join(f"{name} {one}" for name, one in drivers.items())


class Screen:
    def __init__(self, plain_interval_s: float = PLAIN_INTERVAL_S) -> None:
        self._plain_interval_s = plain_interval_s
        self._console = Console(highlight=False)
        if not self._console.is_terminal:
            self._console = Console(width=PLAIN_WIDTH, highlight=False)
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._started = self._shown = time.monotonic()

    def live(self) -> AbstractContextManager[object]:
        return self._live if self._console.is_terminal else nullcontext()

    def say(self, text: str, style: str = "bold") -> None:
        self._console.print(f"{self._elapsed():5.1f} s  {text}", style=style, soft_wrap=True)

    def show(self, state: str, drivers: Mapping[str, Counts]) -> None:
        if self._console.is_terminal:
            self._live.update(self._table(state, drivers), refresh=True)
        elif time.monotonic() - self._shown >= self._plain_interval_s:
            self._shown = time.monotonic()
            self._console.print(f"{self._elapsed():5.1f} s  {state}: {in_words(drivers)}", soft_wrap=True)

    def verdict(self, verdict: Mapping[str, Any], audited: Report) -> None:
        table = Table(title="The judge: devices' journals against a read_committed consumer")
        table.add_column("driver")
        for heading in VERDICT.values():
            table.add_column(heading, justify="right")
        for driver, account in sorted(verdict["drivers"].items()):
            table.add_row(driver, *(_cell(key, account[key]) for key in VERDICT))
        self._console.print(table)
        missing = sum(account["in_window"] for account in verdict["drivers"].values())
        self._console.print(
            f"{missing:,} readings that nobody was told of are missing from the window, {verdict['window_s']:.1f} s "
            "before and during the kill"
        )
        for lane in audited.lanes:
            missing = ", ".join(f"{count:,} missing ({cause})" for cause, count in lane.counts.items())
            self._console.print(
                f"audit of gateway {lane.gateway}, lane {lane.lane}: numbers 1 to {lane.judged:,}, "
                f"{missing or 'complete'}, {lane.twice_records:,} twice"
            )
        if verdict["clean"] and audited.sound:
            self._console.print("CLEAN: nothing lost, nothing twice, all in order", style="bold green")
        else:
            self._console.print("NOT CLEAN", style="bold red")

    def _elapsed(self) -> float:
        return time.monotonic() - self._started

    def _table(self, state: str, drivers: Mapping[str, Counts]) -> Table:
        table = Table(title=f"{self._elapsed():.0f} s · {state}", min_width=60)
        table.add_column("driver")
        for heading in ("accepted, served", "waiting", "in Kafka"):
            table.add_column(heading, justify="right")
        for name, one in drivers.items():
            waiting = "" if one.waiting is None else f"{one.waiting:,}"
            table.add_row(name, f"{one.accepted:,}", waiting, f"{one.in_kafka:,}")
        return table


def _cell(key: str, value: float | None) -> str:
    if key == "drain_s":
        return "never" if value is None else f"{value:.1f} s"
    return f"{value:,}"
