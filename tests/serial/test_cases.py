"""What cases/ says: a configuration, the bytes on the wire, the records and counts they become."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

import drivers.serial
from drivers.serial import Config
from gateway.config import load
from gateway.record import Record
from tests.serial.rig import bench

CASES = sorted((Path(drivers.serial.__file__).parent / "cases").iterdir())
REST = """
[gateway]
id = "bench"
default_topic = "all"
data_dir = "/tmp"
[kafka]
bootstrap_servers = ["localhost:9092"]
"""


def configured(text: str, folder: Path) -> Config:
    file = folder / "tidegate.toml"
    file.write_text(REST + text)
    settings = load(file).drivers["bench"].settings
    assert isinstance(settings, Config)
    return settings


def wire(case: Path) -> bytes:
    if (case / "wire").exists():
        return (case / "wire").read_bytes()
    return bytes.fromhex((case / "wire.hex").read_text())


def shown(record: Record) -> dict[str, Any]:
    line: dict[str, Any] = {"channel": record.channel, "device": record.device}
    if record.content_type != "application/json":
        return {**line, "body": record.body.decode("latin-1")}
    body = json.loads(record.body)
    assert body["device"] == record.device
    return {**line, "values": body["values"], "quality": body["quality"]}


@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "byte by byte"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_case(case: Path, at_once: bool, tmp_path: Path) -> None:
    *records, counted = map(json.loads, (case / "expected.jsonl").read_text().splitlines())
    config = configured((case / "config.toml").read_text(), tmp_path)
    settings = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    async with bench(tmp_path, **{**settings, "pause_max": 0.05}) as one:
        data = wire(case)
        for piece in [data] if at_once else [data[at : at + 1] for at in range(len(data))]:
            one.device.send(piece)
        await one.emit.until(lambda: one.emit.events == counted["counted"])
        assert [shown(record) for record in await one.records(len(records))] == records
