"""A lossy line is not a dead register: which silence is taken for a refusal, and what is said of a value that is left alone."""

import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from random import Random

import pytest

from drivers.modbus import Config
from drivers.modbus.polled import NOT_ASKED
from drivers.modbus.register import Register
from gateway.settings import Address
from gateway.testing.emit import FakeEmit
from gateway.testing.modbus_slave import ModbusUnit, Part, SerialSlave, TcpAsked, TcpSlave
from tests.modbus.rig import bodies, running, serial, unit

FILLED = ModbusUnit({at: at for at in range(50)})


def registers(*places: int) -> dict[str, Register]:
    return {f"r{at}": Register(at=at) for at in places}


@pytest.fixture
async def slave() -> AsyncIterator[TcpSlave]:
    made = TcpSlave({1: FILLED})
    await made.listen()
    yield made
    await made.close()


def bus(slave: TcpSlave, *places: int, holes: bool = True) -> Config:
    units = [unit(1, registers(*places), holes=holes)]
    return Config(tcp=Address("127.0.0.1", slave.port), units=units, answer_timeout=0.1)


def touches(asked: TcpAsked, at: int) -> bool:
    return asked.pdu[2] <= at < asked.pdu[2] + asked.pdu[4]


def qualities(emit: FakeEmit) -> list[dict[str, str]]:
    return [body["quality"] for body in bodies(emit.records)]


async def test_two_lost_answers_with_an_answered_probe_between_them_are_no_refusal(slave: TcpSlave) -> None:
    lost = {3, 5}
    slave.behave = lambda asked: [] if len(slave.asked) in lost else [Part(0.0, asked.answer)]
    emit = FakeEmit()
    async with running(bus(slave, 3), emit):
        await emit.until(lambda: len(emit.records) > 8)
    assert [quality for quality in qualities(emit) if quality] == [{"r3": "no answer"}] * 2


@pytest.mark.slow
@pytest.mark.parametrize("places", [(3,), (3, 4, 5, 30, 31)], ids=["one value", "two blocks"])
async def test_a_line_that_loses_a_tenth_gives_nine_tenths(tmp_path: Path, places: tuple[int, ...]) -> None:
    random = Random(3)
    slave = SerialSlave({1: FILLED, 2: FILLED}, tmp_path / "port")
    slave.behave = lambda asked: (
        () if asked.unit == 1 and random.random() < 0.1 else (Part(0.0, asked.answer),)
    )
    emit = FakeEmit()
    config = serial(slave.path, unit(1, registers(*places), holes=False))
    async with running(config, emit):
        await emit.until(lambda: len(emit.records) >= 120, within_s=30)
    slave.close()
    told = list(bodies(emit.records))
    blocks = 1 if len(places) == 1 else 2
    assert sum(not body["quality"] for body in told) > (0.8 if blocks == 1 else 0.7) * len(told)
    assert NOT_ASKED not in {why for body in told for why in body["quality"].values()}
    assert emit.marks == {}


@pytest.mark.slow
async def test_a_value_that_is_left_alone_is_told_and_comes_back(
    slave: TcpSlave, caplog: pytest.LogCaptureFixture
) -> None:
    """Register 7 is silent; the first request for it after the pause is lost too, the next is answered."""
    caplog.set_level(logging.INFO)
    silent: list[Callable[[], bool]] = [lambda: True]

    def behave(asked: TcpAsked) -> list[Part]:
        return [] if touches(asked, 7) and silent[0]() else [Part(0.0, asked.answer)]

    slave.behave = behave
    emit = FakeEmit()
    async with running(bus(slave, 3, 7, holes=False), emit):
        await emit.until(lambda: qualities(emit)[-1:] == [{"r7": NOT_ASKED}])
        await emit.until(lambda: emit.failures[-1:] == [("unit-1", f"r7: {NOT_ASKED}")])
        before, losses = len(emit.records), [True]
        silent[0] = lambda: bool(losses) and losses.pop()
        await emit.until(lambda: not qualities(emit)[-1], within_s=20)
        back = len(emit.records)
        await emit.until(lambda: len(emit.records) > back + 3)
    assert qualities(emit)[back - 2 :][:1] == [{"r7": "no answer"}]
    assert {*map(str, qualities(emit)[before : back - 2])} == {str({"r7": NOT_ASKED})}
    assert not any(qualities(emit)[back:])
    begins, ends = caplog.messages[-2:]
    assert begins.startswith("modbus/unit-1: no answer for r7, but for others; not asked for 4 s")
    assert ends == "modbus/unit-1: r7 answered again"


@pytest.mark.parametrize("dead", [3, 5])
async def test_a_silent_register_at_the_edge_of_a_block_is_found_out(slave: TcpSlave, dead: int) -> None:
    slave.behave = lambda asked: [] if touches(asked, dead) else [Part(0.0, asked.answer)]
    emit = FakeEmit()
    async with running(bus(slave, 3, 4, 5), emit):
        await emit.until(lambda: qualities(emit)[-1:] == [{f"r{dead}": NOT_ASKED}], within_s=20)
    assert set(list(bodies(emit.records))[-1]["values"]) == {"r3", "r4", "r5"} - {f"r{dead}"}


async def test_values_that_share_a_silent_register_are_left_alone_together(slave: TcpSlave) -> None:
    slave.behave = lambda asked: [] if touches(asked, 7) else [Part(0.0, asked.answer)]
    registers = {"low": Register(at=7, bits="0-7"), "high": Register(at=7, bits="8-15"), "r9": Register(at=9)}
    units = [unit(1, registers, holes=False)]
    emit = FakeEmit()
    config = Config(tcp=Address("127.0.0.1", slave.port), units=units, answer_timeout=0.1)
    async with running(config, emit):
        await emit.until(lambda: emit.failures[-1:] == [("unit-1", f"high, low: {NOT_ASKED}")], within_s=20)
    *_, last = bodies(emit.records)
    assert last["values"] == {"r9": 9}
    assert last["quality"] == {"low": NOT_ASKED, "high": NOT_ASKED}
