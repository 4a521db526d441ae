"""On a serial line: whatever goes wrong there, a value is right or it is absent and its quality says why."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from drivers.modbus.register import Register
from gateway.testing.emit import FakeEmit
from gateway.testing.modbus_slave import Asked, ModbusUnit, Part, SerialSlave
from tests.modbus.rig import bodies, running, serial, unit

ANSWER_TIMEOUT_S = 0.1


def value(address: int, at: int) -> int:
    """What every register of these tests holds: nothing can be taken for something else."""
    return address << 12 | at


def filled(address: int) -> ModbusUnit:
    return ModbusUnit({at: value(address, at) for at in range(100)})


def registers(*places: int) -> dict[str, Register]:
    return {f"r{at}": Register(at=at) for at in places}


@pytest.fixture
def line(tmp_path: Path) -> Iterator[SerialSlave]:
    slave = SerialSlave({number: filled(number) for number in range(1, 11)}, tmp_path / "port")
    yield slave
    slave.close()


def never_wrong(emit: FakeEmit) -> None:
    for body in bodies(emit.records):
        address = int(body["device"].removeprefix("unit-"))
        for name, found in body["values"].items():
            assert found == value(address, int(name[1:])), body
        assert body["values"].keys().isdisjoint(body["quality"])


def good(emit: FakeEmit, device: str = "") -> int:
    return sum(not body["quality"] for body in bodies(emit.records, device))


async def test_units_on_one_line(line: SerialSlave) -> None:
    emit = FakeEmit()
    async with running(serial(line.path, *(unit(number, registers(3, 5)) for number in (1, 2))), emit):
        await emit.until(lambda: good(emit, "unit-1") > 1 and good(emit, "unit-2") > 1)
    never_wrong(emit)
    assert {asked.pdu for asked in line.asked} == {b"\x03\0\x03\0\x03"}


async def test_a_late_answer_is_never_the_next_requests(line: SerialSlave) -> None:
    """The unit answers one request later than anybody waits, and both blocks look alike but for their values."""
    late = [True]

    def behave(asked: Asked) -> Iterable[Part]:
        return (Part(0.45 if late[0] else 0.0, asked.answer),)

    line.behave = behave
    emit = FakeEmit()
    config = serial(
        line.path, unit(1, registers(30, 31, 50, 51), holes=False), answer_timeout=ANSWER_TIMEOUT_S
    )
    async with running(config, emit):
        await emit.until(lambda: emit.events["requests without an answer"] >= 1 and len(line.asked) > 1)
        await emit.until(lambda: len(emit.records) > 1)
        late[0] = False
        await emit.until(lambda: good(emit) > 3)
    never_wrong(emit)
    assert emit.failures[0] == ("unit-1", "no answer")


async def test_a_unit_that_is_always_late_gives_no_value_or_the_right_one(line: SerialSlave) -> None:
    line.behave = lambda asked: (Part(0.15, asked.answer),)
    emit = FakeEmit()
    config = serial(
        line.path, unit(1, registers(30, 50), holes=False), unit(2, registers(30)), answer_timeout=0.1
    )
    async with running(config, emit):
        await emit.until(lambda: len(emit.records) > 8, within_s=20)
    never_wrong(emit)
