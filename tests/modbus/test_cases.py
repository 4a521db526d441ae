"""drivers/modbus/cases: the bus's table, what its unit answers to which request, and the records that come of it.

`wire` has a line for each request: its PDU and the answer's, in hexadecimal; requests that are not there are refused.
"""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from drivers import modbus
from drivers.modbus import Config
from gateway.config.report import Place, Report
from gateway.config.source import Source
from gateway.config.tables import TableKind
from gateway.testing.emit import FakeEmit
from gateway.testing.modbus_slave import ModbusUnit, TcpSlave
from tests.modbus.rig import running

CASES = sorted((Path(modbus.__path__[0]) / "cases").iterdir())


class Scripted(ModbusUnit):
    def __init__(self, wire: str) -> None:
        super().__init__()
        self.script: dict[bytes, bytes] = {}
        for line in wire.splitlines():
            if not line.startswith("#"):
                request, answer = line.split("|")
                self.script[bytes.fromhex(request)] = bytes.fromhex(answer)
        self.unknown: list[bytes] = []

    def answer(self, pdu: bytes) -> bytes:
        if pdu not in self.script:
            self.unknown.append(pdu)
        return self.script.get(pdu, bytes((pdu[0] | 0x80, 2)))


def config(path: Path, port: int) -> Config:
    report = Report(Source(path))
    made = TableKind(Config).read({"tcp": f"127.0.0.1:{port}", **report.source.data}, Place(report))
    assert report.problems == []
    assert modbus.problems(made) == []
    assert isinstance(made, Config)
    return made


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_case(case: Path) -> None:
    unit = Scripted((case / "wire").read_text())
    slave = TcpSlave({tomllib.loads((case / "bus.toml").read_text())["units"][0]["address"]: unit})
    emit = FakeEmit()
    expected = [json.loads(line) for line in (case / "expected.jsonl").read_text().splitlines()]
    await slave.listen()
    async with running(config(case / "bus.toml", slave.port), emit):
        records = await emit.stored(len(expected))
    await slave.close()
    found: list[dict[str, Any]] = []
    for record in records[: len(expected)]:
        body = json.loads(record.body)
        assert body.pop("time") == record.time_ms
        found.append({"channel": record.channel, **body})
    assert found == expected
    assert unit.unknown == []
