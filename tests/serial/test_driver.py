"""Devices on pseudo-terminals, as an operator sees them: records, counts, log lines."""

import json
from pathlib import Path

from drivers.serial import Field
from tests.serial.rig import bench

WEIGHT = {"pattern": r"(?P<weight>[-+. 0-9]+) kg", "fields": {"weight": Field()}}


async def test_a_line_becomes_a_reading(tmp_path: Path) -> None:
    async with bench(tmp_path, check=None, **WEIGHT) as one:
        one.device.send(b" +12.50 kg\r\n" * 2)
        (record,) = await one.records(1)
        assert (record.channel, record.device, record.content_type) == (
            "serial/scale",
            "scale",
            "application/json",
        )
        assert json.loads(record.body) == {
            "device": "scale",
            "time": record.time_ms,
            "values": {"weight": 12.5},
            "quality": {},
        }
        await one.emit.until(lambda: one.emit.told == 1)
        assert one.emit.events == {"half frames": 1}, "the first line may have begun before the port was open"
