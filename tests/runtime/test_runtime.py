"""A running gateway that is given another configuration."""

import asyncio
import io
import re
from pathlib import Path

from rich.console import Console

from gateway.cli.status import show
from gateway.clock import SystemClock
from gateway.config import Config, load
from gateway.runtime.runtime import Runtime

FIRST = """
[gateway]
id = "plant-7"
data_dir = "{folder}/data"
[queue]
unacked_interval = "5 s"
[kafka]
bootstrap_servers = ["127.0.0.1:1"]
"""


def configuration(folder: Path, *changes: tuple[str, str]) -> Config:
    text = FIRST.format(folder=folder)
    for old, new in changes:
        text = text.replace(old, new)
    file = folder / "tidegate.toml"
    file.write_text(text)
    return load(file)


class SetClock(SystemClock):
    """A board without a battery: 1970 until NTP comes."""

    def __init__(self) -> None:
        self.knows = False

    def wall_ms(self) -> int:
        return super().wall_ms() if self.knows else 60_000


async def test_ages_are_right_though_the_clock_was_set_in_between(tmp_path: Path) -> None:
    clock = SetClock()
    simulated = ("[kafka]", '[drivers.sim]\ntype = "simulated"\n[kafka]')
    topic = ('"plant-7"', '"plant-7"\ndefault_topic = "all"')
    runtime = await Runtime.start(configuration(tmp_path, topic, simulated), clock)
    async with asyncio.timeout(20):
        while not runtime.drivers["sim"].health.running:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    clock.knows = True
    told = await runtime.status()
    for age_s in (told.up_s, told.link.since_s, told.drivers["sim"].health.since_s):
        assert 0 <= age_s < 3600
    said = io.StringIO()
    show(Console(file=said, width=160), told, None, every_device=False)
    assert re.search(r", up \d+ (ms|s), ", said.getvalue())
    await runtime.stop()


async def test_what_needs_a_restart_stays_as_it_was_until_then(tmp_path: Path) -> None:
    runtime = await Runtime.start(configuration(tmp_path), SystemClock())
    await runtime.reconfigure(
        configuration(
            tmp_path, ("plant-7", "plant-9"), ('"5 s"', '"1 h"'), ("[kafka]", '[kafka]\nlinger = "9 s"')
        )
    )
    told = await runtime.status()
    assert told.needs_restart == ("gateway.id", "queue.unacked_interval")
    assert told.gateway_id == runtime.config.gateway.id == "plant-7"
    assert told.loss.unacknowledged_s < 60
    assert runtime.config.kafka.linger == 9.0
    await runtime.reconfigure(configuration(tmp_path))
    assert (await runtime.status()).needs_restart == ()
    await runtime.stop()
