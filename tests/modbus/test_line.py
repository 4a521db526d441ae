"""The line itself: what it refuses to ask, so that no answer can be taken for another's."""

from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest

from drivers.modbus.driver import line_for
from drivers.modbus.line import Line, NoAnswer
from drivers.modbus.protocol import ExceptionAnswer, read, write_register
from gateway.testing.modbus_slave import Asked, ModbusUnit, Part, SerialSlave, frame
from tests.modbus.rig import serial

TIMEOUT_S = 0.2
LATE_S = 0.3


@pytest.fixture
async def slave(tmp_path: Path) -> AsyncIterator[SerialSlave]:
    """Register n of unit u holds 256 u + n."""
    units = {unit: ModbusUnit({at: unit << 8 | at for at in range(50)}) for unit in (1, 2)}
    made = SerialSlave(units, tmp_path / "port")
    yield made
    made.close()


@pytest.fixture
async def line(slave: SerialSlave) -> AsyncIterator[Line]:
    made = line_for(serial(slave.path, answer_timeout=TIMEOUT_S), lambda event, amount: None)
    yield made
    made.close()


def late_once(slave: SerialSlave, answer: bytes | None = None) -> None:
    """The next answer comes too late, all others in time."""
    before = slave.behave

    def behave(asked: Asked) -> Iterable[Part]:
        slave.behave = before
        return (Part(LATE_S, answer or asked.answer),)

    slave.behave = behave


async def test_a_unit_that_owes_an_answer_is_not_asked_for_one_like_it(
    slave: SerialSlave, line: Line
) -> None:
    late_once(slave)
    with pytest.raises(NoAnswer, match="no answer"):
        await line.exchange(1, read("holding", 30, 2))
    asked = len(slave.asked)
    with pytest.raises(NoAnswer, match="an earlier answer may still come"):
        await line.exchange(1, read("holding", 40, 2))
    assert len(slave.asked) == asked
    assert await line.exchange(2, read("holding", 40, 2)) == b"\x02\x28\x02\x29"
    assert await line.exchange(1, read("holding", 40, 1)) == b"\x01\x28"
    assert await line.exchange(1, read("holding", 40, 2)) == b"\x01\x28\x01\x29"


async def test_a_late_answer_that_came_owes_nothing_any_more(slave: SerialSlave, line: Line) -> None:
    late_once(slave)
    with pytest.raises(NoAnswer):
        await line.exchange(1, read("holding", 30, 2))
    assert await line.exchange(2, read("holding", 40, 2)) == b"\x02\x28\x02\x29"
    assert await line.exchange(1, read("holding", 40, 2)) == b"\x01\x28\x01\x29"


async def test_a_late_refusal_is_not_the_next_requests(slave: SerialSlave, line: Line) -> None:
    late_once(slave, frame(1, b"\x83\x06"))
    with pytest.raises(NoAnswer, match="no answer"):
        await line.exchange(1, read("holding", 30, 2))
    assert await line.exchange(1, read("holding", 40, 1)) == b"\x01\x28"
    slave.behave = lambda asked: ()
    with pytest.raises(NoAnswer, match="no answer"):
        await line.exchange(1, read("holding", 30, 2))
    slave.behave = lambda asked: (Part(0.0, frame(1, b"\x83\x06")),)
    with pytest.raises(NoAnswer, match="no answer"):
        await line.exchange(1, read("holding", 40, 1))


async def test_a_refusal_in_time_is_one(slave: SerialSlave, line: Line) -> None:
    with pytest.raises(ExceptionAnswer, match="illegal data address"):
        await line.exchange(1, read("holding", 49, 2))
    late_once(slave)
    with pytest.raises(NoAnswer):
        await line.exchange(1, read("holding", 30, 2))
    with pytest.raises(ExceptionAnswer, match="illegal data address"):
        await line.exchange(1, read("input", 0, 1))


async def test_a_write_on_a_line_that_echoes(slave: SerialSlave, line: Line) -> None:
    """The echo of a write looks like its answer: once the line is known to echo, only the second counts."""
    slave.echo = True
    assert await line.exchange(1, read("holding", 1, 1)) == b"\x01\x01"
    assert await line.exchange(1, write_register(1, 7)) == b""
    assert await line.exchange(1, read("holding", 1, 1)) == b"\0\x07"
    slave.behave = lambda asked: ()
    with pytest.raises(NoAnswer):
        await line.exchange(1, write_register(1, 8))


async def test_whoever_had_the_line_before_may_have_left_a_request(slave: SerialSlave, line: Line) -> None:
    """A line that was just opened is silent first, so the answer to somebody else's request is over by then."""
    slave.behave = lambda asked: (Part(TIMEOUT_S / 2, asked.answer),)
    other = line_for(serial(slave.path, answer_timeout=TIMEOUT_S / 4), lambda event, amount: None)
    with pytest.raises(NoAnswer):
        await other.exchange(1, read("holding", 30, 1))
    other.close()
    assert await line.exchange(1, read("holding", 40, 1)) == b"\x01\x28"
