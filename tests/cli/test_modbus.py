"""`modbus` finds units, reads and writes them, by the configuration or without one."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.testing.modbus_slave import ModbusUnit, Part, SerialSlave, TcpAsked, TcpSlave, tcp_frame
from tests.cli.conftest import Run

pytestmark = pytest.mark.slow

DRIVERS = """
[drivers.hall]
type = "modbus"
tcp = "127.0.0.1:{port}"
answer_timeout = "200 ms"
[[drivers.hall.units]]
address = 7
device = "dryer"
[drivers.hall.units.registers]
temperature = {{ at = 0, type = "int16", scale = 0.1, unit = "°C" }}
setpoint = {{ at = 1, type = "float32" }}
state = {{ at = 3, names = {{ 0 = "off", 1 = "on" }} }}
missing = {{ at = 90 }}
fan = {{ at = 4, bits = "2" }}
pump = {{ at = 5, table = "coil" }}
[[drivers.hall.units]]
address = 8
device = "meter"
profile = "abb-b23"
only = ["frequency"]
"""


@pytest.fixture
async def slave(site: Path) -> AsyncIterator[TcpSlave]:
    dryer = ModbusUnit({0: 215, 1: 0x41A0, 2: 0, 3: 0, 4: 0xFF00}, coils={5: False})
    made = TcpSlave({7: dryer, 8: ModbusUnit({0x5B2C: 4998}), 9: ModbusUnit(inputs={4: 0xFFFE, 5: 2, 6: 3})})
    with (site / "tidegate.toml").open("a") as file:
        await made.listen()
        file.write(DRIVERS.format(port=made.port))
    yield made
    await made.close()


async def test_read_by_the_configuration(tidegate: Run, slave: TcpSlave) -> None:
    everything = await tidegate("modbus", "read", "hall")
    assert everything.code == 1
    rows = [line.split() for line in everything.out.splitlines()[1:]]
    assert ["dryer", "temperature", "21.5", "°C"] in rows
    assert ["dryer", "missing", "-", "refused:", "illegal", "data", "address"] in rows
    assert ["meter", "frequency", "49.98", "Hz"] in rows
    some = await tidegate("modbus", "read", "hall", "dryer", "setpoint", "state", "--json")
    assert (some.code, some.err) == (0, "")
    assert json.loads(some.out) == {
        "unit": 7,
        "device": "dryer",
        "values": {"setpoint": 20.0, "state": "off"},
        "quality": {},
    }


async def test_read_without_one(tidegate: Run, slave: TcpSlave) -> None:
    bus = f"127.0.0.1:{slave.port}"
    done = await tidegate(
        *(
            "modbus",
            "read",
            bus,
            "--unit",
            9,
            "--at",
            4,
            "--count",
            3,
            "--table",
            "input",
            "--type",
            "int16",
            "--json",
        )
    )
    assert json.loads(done.out)["values"] == {"4": -2, "5": 2, "6": 3}
    done = await tidegate("modbus", "read", bus, "--unit", 8, "--profile", "abb-b23")
    assert done.code == 1
    assert "frequency" in done.out


async def test_write_shows_what_it_did(tidegate: Run, slave: TcpSlave) -> None:
    done = await tidegate("modbus", "write", "hall", "dryer", "setpoint", "21.5")
    assert (done.code, done.out) == (0, "setpoint: 20.0 -> 21.5\n")
    assert slave.units[7].holding[1] == 0x41AC
    done = await tidegate("modbus", "write", "hall", "dryer", "state", "on", "--json")
    assert json.loads(done.out) == {"unit": 7, "device": "dryer", "before": "off", "after": "on"}
    done = await tidegate("modbus", "write", "hall", "dryer", "pump", "on")
    assert done.out == "pump: False -> True\n"
    assert slave.units[7].coils[5]
    done = await tidegate("modbus", "write", "hall", "dryer", "fan", "on")
    assert (done.out, slave.units[7].holding[4]) == ("fan: False -> True\n", 0xFF04)
    bus = f"127.0.0.1:{slave.port}"
    done = await tidegate("modbus", "write", bus, "--unit", 7, "--at", 0, "--type", "int16", "--", "-5")
    assert done.out == "0: 215 -> -5\n"
    done = await tidegate("modbus", "write", "hall", "dryer", "temperature", "-12.5", "--json")
    assert json.loads(done.out)["after"] == -12.5
    done = await tidegate("modbus", "write", bus, "-7", "--unit", 7, "--at", 0, "--type", "int16")
    assert done.out == "0: -125 -> -7\n"


async def test_a_unit_that_knows_only_function_16(tidegate: Run, slave: TcpSlave) -> None:
    def behave(asked: TcpAsked) -> list[Part]:
        refusal = tcp_frame(asked.transaction, asked.unit, b"\x86\x01")
        return [Part(0.0, refusal if asked.pdu[0] == 6 else asked.answer)]

    slave.behave = behave
    done = await tidegate("modbus", "write", f"127.0.0.1:{slave.port}", "--unit", "7", "--at", "1", "5")
    assert done.out == "1: 16800 -> 5\n"


async def test_a_write_that_the_unit_ignores_is_told(tidegate: Run, slave: TcpSlave) -> None:
    def behave(asked: TcpAsked) -> list[Part]:
        slave.units[7].holding[3] = 0
        return [Part(0.0, asked.answer)]

    slave.behave = behave
    done = await tidegate("modbus", "write", "hall", "dryer", "state", "on")
    assert (done.code, done.err) == (1, "tidegate: state: on was accepted, but it is off\n")


async def test_scan(tidegate: Run, slave: TcpSlave, tmp_path: Path) -> None:
    done = await tidegate("modbus", "scan", "hall", "--units", "6-10", "--timeout", "0.5")
    assert (done.code, done.err) == (0, "")
    assert [line.split()[0] for line in done.out.splitlines()[1:]] == ["7", "8", "9"]
    assert "holding register 0 is 215" in done.out
    assert "refuses holding register 0: illegal data address" in done.out
    line = SerialSlave({3: ModbusUnit({0: 5})}, tmp_path / "port")
    done = await tidegate(
        "modbus", "scan", line.path, "--units", "1-4", "--timeout", "0.5", "--mode", "115200-8E1", "--json"
    )
    line.close()
    assert json.loads(done.out) == {"unit": 3, "answer": "holding register 0 is 5"}


async def test_an_answer_in_another_units_name_is_told(tidegate: Run, slave: TcpSlave) -> None:
    slave.behave = lambda asked: [Part(0.0, tcp_frame(asked.transaction, 255, asked.answer[7:]))]
    told = "no answer, but one of unit 255"
    read, scanned, written = await asyncio.gather(
        tidegate("modbus", "read", "hall", "dryer", "setpoint"),
        tidegate("modbus", "scan", "hall", "--units", "7"),
        tidegate("modbus", "write", "hall", "dryer", "setpoint", "1"),
    )
    assert f"setpoint  -  {told}" in read.out
    assert [line.split(maxsplit=1) for line in scanned.out.splitlines()[1:]] == [["7", told]]
    assert (written.code, written.err) == (1, f"tidegate: setpoint: {told}; it was {told}\n")


async def test_without_a_configuration_the_form_of_a_bus_is_told(tidegate: Run, site: Path) -> None:
    (site / "tidegate.toml").unlink()
    done = await tidegate("modbus", "read", "ttyUSB0", "--at", "0")
    assert done.code == 66
    assert done.err.endswith("is HOST:PORT, rtu:HOST:PORT or a port such as /dev/ttyUSB0\n")


async def test_check_and_try(tidegate: Run, slave: TcpSlave) -> None:
    checked, tried = await asyncio.gather(tidegate("check"), tidegate("try", "hall", "-n", "2", "--json"))
    assert "drivers.hall: 2 units, 7 values, 4 requests a second" in checked.out
    records = [json.loads(json.loads(line)["body"]) for line in tried.out.splitlines()]
    assert {record["device"] for record in records} == {"dryer", "meter"}
    assert records[0]["values"]["temperature"] == 21.5


IMPOSSIBLE = [
    (("read", "halle"), 64, "no bus 'halle' in the configuration; there are: hall"),
    (("read", "ttyUSB0", "--at", "0"), 64, "is HOST:PORT, rtu:HOST:PORT or a port such as /dev/ttyUSB0"),
    (("read", "127.0.0.1", "--at", "0"), 64, "is HOST:PORT, rtu:HOST:PORT or a port such as /dev/ttyUSB0"),
    (("write", "hall", "dryer", "setpoint", "--jsn"), 64, "no such option: --jsn"),
    (("read", "hall", "drier"), 64, "no device 'drier' on the bus; there are: dryer, meter"),
    (("read", "hall", "dryer", "x"), 64, "dryer has no 'x'; there are: temperature, setpoint"),
    (("read", "127.0.0.1:1"), 64, "needs --at or --profile"),
    (
        ("read", "127.0.0.1:99999", "--at", "0"),
        64,
        "is neither HOST:PORT, rtu:HOST:PORT nor a serial port",
    ),
    (("read", "127.0.0.1:1", "--at", "0"), 69, "can't connect to 127.0.0.1:1: connection refused"),
    (("read", "127.0.0.1:1", "--at", "0", "--type", "float"), 64, "--at 0.type: 'float' is not possible"),
    (
        ("read", "127.0.0.1:1", "--at", "65535", "--type", "int32"),
        64,
        "--at the addresses are 0 to 65535",
    ),
    (("read", "127.0.0.1:1", "--profile", "abb"), 64, "no profile 'abb'; there are abb-b23"),
    (("read", "/dev/nothing", "--at", "0"), 69, "there is no such port"),
    (("read", "/dev/nothing", "--at", "0", "--mode", "9600"), 64, "--mode '9600' is not like 19200-8E1"),
    (("write", "hall", "dryer", "state", "of"), 65, "state: 'of' is none of its names: off, on"),
    (("write", "hall", "dryer", "temperature", "1.23"), 65, "they are 0.1 apart"),
    (("write", "hall", "dryer", "missing", "1"), 1, "missing: illegal data address; it was refused"),
    (("write", "hall", "3"), 64, "needs DEVICE NAME VALUE of the configuration, or --at and VALUE"),
    (
        ("write", "hall", "dryer", "temperature", "13", "--unit", "9"),
        64,
        "--unit goes with --at only: what DEVICE and VALUE are is in the configuration",
    ),
    (("write", "hall", "dryer", "setpoint", "13", "--type", "int16"), 64, "--type goes with --at only"),
    (("write", "hall", "dryer", "setpoint", "13", "--at", "5"), 64, "or --at and VALUE"),
    (
        ("read", "hall", "dryer", "--unit", "9", "--table", "input", "--type", "float32"),
        64,
        "--unit goes with --at or --profile only: what DEVICE and VALUE are is in the configuration",
    ),
    (("read", "hall", "--count", "1"), 64, "--count goes with --at only"),
    (("read", "hall", "--word-order", "big"), 64, "--word-order goes with --at only"),
    (
        ("read", "hall", "dryer", "--at", "5"),
        64,
        "'dryer' can't go with --at: name the unit by --unit, or leave --at out",
    ),
    (("read", "127.0.0.1:1", "--unit", "1", "--at", "0", "dryer"), 64, "'dryer' can't go with --at"),
    (
        ("read", "hall", "dryer", "--profile", "abb-b23"),
        64,
        "'dryer' can't go with --profile: name the unit by --unit, or leave --profile out",
    ),
    (("read", "hall", "--at", "5", "--profile", "abb-b23"), 64, "--at can't go with --profile"),
    (("read", "hall", "--profile", "abb-b23", "--type", "int16"), 64, "--type goes with --at only"),
    (
        ("scan", "hall", "--units", "7", "--mode", "19200-8E1"),
        64,
        "--mode is for a serial port; the line of 'hall' is as the configuration says",
    ),
    (("read", "127.0.0.1:1", "--at", "0", "--mode", "19200-8E1"), 64, "--mode is for a serial port"),
    (("scan", "hall", "--units", "9-3"), 64, "--units '9-3' is not FIRST-LAST"),
    (("scan", "hall", "--units", "100-101", "--timeout", "0.05"), 1, "no unit answered, of 2 addresses"),
]


async def test_what_can_not_be_done(tidegate: Run, slave: TcpSlave) -> None:
    before = dict(slave.units[7].holding)
    ended = await asyncio.gather(*(tidegate("modbus", *arguments) for arguments, _, _ in IMPOSSIBLE))
    for done, (arguments, code, expected) in zip(ended, IMPOSSIBLE, strict=True):
        assert done.code == code, (arguments, done.err)
        assert expected in done.err
        assert len(done.err.splitlines()) == 1
    assert slave.units[7].holding == before
