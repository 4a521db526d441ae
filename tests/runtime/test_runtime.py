"""A running gateway that is given another configuration."""

from pathlib import Path

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
