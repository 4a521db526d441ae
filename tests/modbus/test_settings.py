"""What `check` says of a bus: what can't be, and how much of the line it takes."""

import dataclasses

import pytest

from drivers.modbus import DRIVER, Config
from drivers.modbus.register import Register
from drivers.modbus.unit import Unit
from gateway.port import PortSettings
from gateway.settings import Address

PORT = PortSettings(port="/dev/ttyS0", baud_rate=19_200, parity="even")
TCP = Address("127.0.0.1", 502)
ONE = {"a": Register(at=0)}


def unit(address: int = 1, device: str = "a", **more: object) -> Unit:
    return Unit(address=address, device=device, **{"registers": ONE, **more})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("config", "where", "message"),
    [
        (Config(units=[unit()]), "", "a bus needs one of tcp, rtu_over_tcp and serial"),
        (Config(tcp=TCP, serial=PORT, units=[unit()]), "", "a bus needs one of"),
        (Config(tcp=TCP, baud_rate=9600, units=[unit()]), "baud_rate", "is of the line behind rtu_over_tcp"),
        (Config(serial=PORT, baud_rate=9600, units=[unit()]), "baud_rate", "write serial.baud_rate"),
        (
            Config(serial=dataclasses.replace(PORT, data_bits=7), units=[unit()]),
            "serial.data_bits",
            "RTU needs characters of 8 bits",
        ),
        (Config(serial=PORT, units=[unit(248)]), "units[0].address", "248 is none of an RTU line: 1 to 247"),
        (Config(rtu_over_tcp=TCP, units=[unit(0)]), "units[0].address", "0 is none of an RTU line"),
        (Config(tcp=TCP, units=[unit(), unit(1, "b")]), "units[1].address", "1 is taken by a unit above"),
        (Config(tcp=TCP, units=[unit(), unit(2)]), "units[1].device", "'a' is taken by a unit above"),
        (Config(tcp=TCP, units=[unit(registers={})]), "units[0]", "has nothing to read"),
        (Config(tcp=TCP, units=[unit(only=["x"])]), "units[0].only", "there is none"),
        (
            Config(tcp=TCP, units=[unit(profile="abb-b23", only=["volt"])]),
            "units[0].only",
            "'volt' fits nothing",
        ),
        (Config(tcp=TCP, units=[unit(intervals={"b*": 5.0})]), "units[0].intervals.b*", "fits no value"),
        (
            Config(tcp=TCP, units=[unit(registers={"s": Register(at=0, type="string")})]),
            "units[0].registers.s.length",
            "missing",
        ),
        (
            Config(
                tcp=TCP,
                units=[unit(registers={"s": Register(at=0, type="string", length=9)}, registers_max=8)],
            ),
            "units[0].registers.s",
            "needs 9 registers in one request",
        ),
    ],
)
def test_what_can_not_be(config: Config, where: str, message: str) -> None:
    [(path, text)] = DRIVER.problems(config)
    assert path == where
    assert message in text


def meters(count: int, interval: float) -> list[Unit]:
    return [
        unit(number, f"meter-{number}", profile="eastron-sdm630", registers={}, interval=interval)
        for number in range(1, count)
    ]


def test_a_line_that_is_asked_for_too_much() -> None:
    [(where, text)] = DRIVER.problems(Config(serial=PORT, units=meters(12, 0.5)))
    assert where == "units"
    assert text.endswith(
        "% of the line's time at 19,200 baud, answer times not counted; lengthen intervals, read less, or raise the baud rate"
    )
    assert DRIVER.problems(Config(serial=PORT, units=meters(12, 10.0))) == []
    assert DRIVER.problems(Config(tcp=TCP, units=meters(12, 0.5))) == []


def test_the_load_is_what_the_bytes_take() -> None:
    """One register a second: 8 and 7 characters and two rests of 3.5, of 11 bits each, and the unit's time: 22.6 ms."""
    [note] = DRIVER.notes(Config(serial=PORT, units=[unit()]))
    assert note == (
        "1 unit, 1 value, 1 requests a second: 2% of the line's time at 19,200 baud, if units take 10 ms to answer"
    )
    [note] = DRIVER.notes(Config(tcp=TCP, units=meters(4, 1.0)))
    assert note == "3 units, 90 values, 9 requests a second"


def test_the_load_of_a_line_behind_a_serial_server() -> None:
    [(where, text)] = DRIVER.problems(Config(rtu_over_tcp=TCP, baud_rate=19_200, units=meters(12, 0.5)))
    assert (where, "of the line's time at 19,200 baud" in text) == ("units", True)
    [note] = DRIVER.notes(Config(rtu_over_tcp=TCP, baud_rate=19_200, units=[unit()]))
    assert note.endswith("2% of the line's time at 19,200 baud, if units take 10 ms to answer")
    unknown = Config(rtu_over_tcp=TCP, units=meters(12, 0.5))
    assert DRIVER.problems(unknown) == []
    assert DRIVER.notes(unknown)[1] == (
        "what share of the line's time that is can't be known without baud_rate, that of the line behind rtu_over_tcp"
    )


def test_channels() -> None:
    assert DRIVER.channels(Config(tcp=TCP, units=[unit(), unit(2, "b")])) == ["modbus/a", "modbus/b"]
