"""Devices that exist only here: readings of sine, walk and counter shapes, for trying things out and for tests."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from gateway.driver import Manifest
from gateway.settings import Duration, Output, setting

COUNT = "count"


@dataclass(frozen=True, kw_only=True)
class Signal:
    shape: Literal["sine", "walk", "counter"] = setting(
        doc="sine swings between low and high, walk wanders between them, counter rises by one from low and starts again after high.",
        example='"sine"',
    )
    low: float = setting(0.0, doc="Lowest value.")
    high: float = setting(100.0, doc="Highest value.")
    period: Duration = setting(600.0, doc="Time of one swing of a sine.", minimum=0.001, example='"10 min"')


def signals() -> dict[str, Signal]:
    return {
        "temperature": Signal(shape="sine", low=18.0, high=24.0),
        "pressure": Signal(shape="walk", low=990.0, high=1030.0),
    }


@dataclass(frozen=True, kw_only=True)
class Config:
    devices: int = setting(
        3,
        doc="How many devices: <driver>-1, <driver>-2 ..., on channels simulated/1, simulated/2 ...",
        minimum=1,
        maximum=10_000,
    )
    interval: Duration = setting(
        1.0, doc="Every device is read once in this time.", minimum=0.001, example='"1 s"'
    )
    seed: int = setting(1, doc="The same seed gives the same values.")
    dropouts: float = setting(
        0.0, doc="Share of values that could not be read, named in `quality`.", minimum=0.0, maximum=1.0
    )
    signals: dict[str, Signal] = setting(factory=signals, doc="What each device measures, by name.")
    journal: Output | None = setting(
        None,
        doc="File to append every record to once it is stored, one a line.",
        example='"/tmp/journal.jsonl"',
    )


def channels(config: Config) -> Sequence[str]:
    return [f"simulated/{number}" for number in range(1, config.devices + 1)]


def problems(config: Config) -> Sequence[tuple[str, str]]:
    found = []
    for name, signal in config.signals.items():
        if name == COUNT:
            found.append((f"signals.{name}", "every record has a count of its own; take another name"))
        if signal.low >= signal.high:
            found.append((f"signals.{name}", "low must be less than high"))
    return found


DRIVER = Manifest(
    name="simulated",
    summary="Devices that exist only in the gateway, to try it out and to test it",
    config=Config,
    factory="drivers.simulated.driver:SimulatedDriver",
    channels=channels,
    problems=problems,
)
