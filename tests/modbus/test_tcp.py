"""Over TCP: values of every sort, the fewest requests, and nothing taken for what it is not."""

import asyncio
import dataclasses
import logging
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest

from drivers.modbus import Config
from drivers.modbus.register import Register
from drivers.modbus.unit import Unit
from gateway.settings import Address
from gateway.testing.emit import FakeEmit
from gateway.testing.modbus_slave import ModbusUnit, Part, TcpAsked, TcpSlave, frame, tcp_frame
from tests.modbus.rig import bodies, running, unit


def words(text: str, *values: object) -> dict[int, int]:
    data = struct.pack(text, *values)
    return dict(enumerate(struct.unpack(f">{len(data) // 2}H", data)))


@pytest.fixture
async def slave() -> AsyncIterator[TcpSlave]:
    """Units 1 and 2; register n of unit u holds 1000 u + n."""
    made = TcpSlave({unit: ModbusUnit({at: 1000 * unit + at for at in range(10)}) for unit in (1, 2)})
    await made.listen()
    yield made
    await made.close()


async def test_values_become_a_record(slave: TcpSlave) -> None:
    slave.units[1] = ModbusUnit(words(">hIf", -215, 123_456_789, 50.02), coils={3: True, 4: False})
    registers = {
        "temperature": Register(at=0, type="int16", scale=0.1, unit="°C"),
        "energy": Register(at=1, type="uint32"),
        "frequency": Register(at=3, type="float32"),
        "pump": Register(at=3, table="coil"),
        "valve": Register(at=4, table="coil"),
    }
    emit = FakeEmit()
    async with running(bus(slave, unit(1, registers)), emit):
        await emit.until(lambda: emit.told >= 2)
    record = emit.records[0]
    assert (record.channel, record.device, record.content_type) == (
        "modbus/unit-1",
        "unit-1",
        "application/json",
    )
    body = next(bodies(emit.records))
    assert body["values"] == {
        "temperature": -21.5,
        "energy": 123_456_789,
        "frequency": 50.02,
        "pump": True,
        "valve": False,
    }
    assert body["quality"] == {}
    assert body["time"] == record.time_ms
    assert {asked.pdu for asked in slave.asked} == {b"\x01\0\x03\0\x02", b"\x03\0\0\0\x05"}


def bus(slave: TcpSlave, *units: Unit, answer_timeout: float = 0.1) -> Config:
    return Config(tcp=Address("127.0.0.1", slave.port), units=list(units), answer_timeout=answer_timeout)


def good(emit: FakeEmit) -> list[dict[str, object]]:
    return [body["values"] for body in bodies(emit.records) if not body["quality"]]


async def test_the_fewest_requests_are_found_out_and_kept(slave: TcpSlave) -> None:
    """Two holes of three can't be read along, and no more than 40 registers at a time; after a restart that is known."""
    there = {*range(10), *range(20, 30), *range(50, 130)} | {*range(30, 40)}
    slave.units[1] = ModbusUnit({at: at for at in there}, registers_max=40)
    registers = {
        f"r{at}": Register(at=at) for at in sorted({*range(10), *range(20, 30), *range(50, 130)} - {33})
    }
    emit = FakeEmit()
    async with running(bus(slave, unit(1, registers, interval=0.01)), emit):
        await emit.until(lambda: len(emit.records) > 30)
    expected = {name: register.at for name, register in registers.items()}
    assert good(emit) == [expected] * len(emit.records)
    tried = len(slave.asked)
    emit = emit.restart()
    async with running(bus(slave, unit(1, registers, interval=0.01)), emit):
        await emit.until(lambda: len(emit.records) > 40)
    again = slave.asked[tried:]
    assert all(asked.answer[7] == 3 for asked in again)
    assert len({asked.pdu for asked in again}) == 4


async def test_a_register_that_is_refused_costs_only_itself(slave: TcpSlave) -> None:
    slave.units[1] = ModbusUnit({at: at for at in range(20) if at != 7})
    emit = FakeEmit()
    registers = {f"r{at}": Register(at=at) for at in range(20)}
    async with running(bus(slave, unit(1, registers, interval=0.01)), emit):
        await emit.until(lambda: len(emit.records) > 20)
    for body in bodies(emit.records):
        assert body["values"] == {f"r{at}": at for at in range(20) if at != 7}
        assert body["quality"] == {"r7": "refused: illegal data address"}
    assert len({asked.pdu for asked in slave.asked[-6:]}) == 3


@pytest.mark.fault("line", "an answer comes after its time-out (TCP)", "35")
@pytest.mark.slow
async def test_a_late_answer_is_known_by_its_transaction(slave: TcpSlave) -> None:
    late = [True]

    def behave(asked: TcpAsked) -> list[Part]:
        return [Part(0.15 if late[0] else 0.0, asked.answer)]

    slave.behave = behave
    emit = FakeEmit()
    async with running(bus(slave, unit(1, {"a": Register(at=1)}), unit(2, {"a": Register(at=1)})), emit):
        await emit.until(lambda: emit.events["late answers"] > 0)
        late[0] = False
        await emit.until(lambda: len(good(emit)) > 4)
    for body in bodies(emit.records):
        assert body["values"].get("a") in (None, int(body["device"][-1]) * 1000 + 1)


@pytest.mark.fault("line", "answers to something else, or broken (TCP)", "35")
@pytest.mark.parametrize(
    "broken",
    [
        lambda asked: tcp_frame(asked.transaction, 9, asked.answer[7:]),
        lambda asked: tcp_frame(asked.transaction ^ 1, asked.unit, asked.answer[7:]),
        lambda asked: tcp_frame(asked.transaction, asked.unit, b"\x04" + asked.answer[8:]),
        lambda asked: tcp_frame(asked.transaction, asked.unit, asked.answer[7:-2]),
        lambda asked: tcp_frame(asked.transaction, asked.unit, b"\x03\x06" + asked.answer[9:]),
        lambda asked: b"GET / HTTP/1.1\r\n\r\n",
        lambda asked: asked.answer[:9],
        lambda asked: b"",
    ],
    ids=["unit", "transaction", "function", "length", "byte count", "not modbus", "truncated", "nothing"],
)
async def test_what_is_not_the_answer_is_no_value(
    slave: TcpSlave, broken: Callable[[TcpAsked], bytes]
) -> None:
    wrong = [True]
    slave.behave = lambda asked: [Part(0.0, broken(asked) if wrong[0] else asked.answer)]
    emit = FakeEmit()
    config = bus(slave, unit(1, {"a": Register(at=1), "b": Register(at=2)}), answer_timeout=0.05)
    async with running(config, emit):
        await emit.until(lambda: len(emit.failures) > 0)
        assert good(emit) == []
        wrong[0] = False
        await emit.until(lambda: len(good(emit)) > 2)
    assert all(values == {"a": 1001, "b": 1002} for values in good(emit))


@pytest.mark.fault("line", "the connection is cut", "35")
@pytest.mark.slow
async def test_a_connection_that_is_cut_is_made_again(slave: TcpSlave) -> None:
    emit = FakeEmit()
    async with running(bus(slave, unit(1, {"a": Register(at=1)})), emit):
        for count in (1, 2, 3):
            await emit.until(lambda: slave.connections == count and len(good(emit)) > count)  # noqa: B023
            slave.cut()
            await emit.until(lambda: slave.connections > count)  # noqa: B023
    assert all(values == {"a": 1001} for values in good(emit))


async def test_a_device_that_is_gone_is_told_and_read_again_when_it_is_back(
    slave: TcpSlave, caplog: pytest.LogCaptureFixture
) -> None:
    """The driver itself tries again, within seconds; both units' records say meanwhile why there are no values."""
    caplog.set_level(logging.INFO)
    emit = FakeEmit()
    reason = f"can't connect to 127.0.0.1:{slave.port}: connection refused"
    async with running(bus(slave, unit(1, {"a": Register(at=1)}), unit(2, {"a": Register(at=1)})), emit):
        await emit.until(lambda: len(good(emit)) > 2)
        await slave.close()
        await emit.until(lambda: {("unit-1", reason), ("unit-2", reason)} <= set(emit.failures))
        for device in ("unit-1", "unit-2"):
            *_, last = bodies(emit.records, device)
            assert (last["values"], last["quality"]) == ({}, {"a": reason})
        outage = len(good(emit))
        await slave.listen()
        await emit.until(lambda: len(good(emit)) > outage + 3, within_s=20)
    assert caplog.messages[-1] == "driver bus: the line works again"
    assert sum(reason in message for message in caplog.messages) == 1
    assert emit.events["polls skipped"] > 0


@pytest.mark.slow
async def test_a_gateway_that_can_not_reach_one_unit_serves_the_others(slave: TcpSlave) -> None:
    def behave(asked: TcpAsked) -> list[Part]:
        refusal = tcp_frame(asked.transaction, 2, b"\x83\x0b")
        return [Part(0.0, refusal if asked.unit == 2 else asked.answer)]

    slave.behave = behave
    emit = FakeEmit()
    async with running(bus(slave, unit(1, {"a": Register(at=1)}), unit(2, {"a": Register(at=1)})), emit):
        await emit.until(lambda: len(good(emit)) > 5)
    assert ("unit-2", "gateway target does not answer") in emit.failures
    assert {record.device for record in emit.records} == {"unit-1", "unit-2"}


@pytest.mark.slow
async def test_ticks_that_passed_are_counted_and_not_made_up_for(slave: TcpSlave) -> None:
    slave.behave = lambda asked: [Part(0.05, asked.answer)]
    emit = FakeEmit()
    async with running(bus(slave, unit(1, {"a": Register(at=1)}, interval=0.02)), emit):
        await emit.until(lambda: len(good(emit)) >= 5)
        slave.behave = lambda asked: [Part(0.0, asked.answer)]
        await emit.until(lambda: len(good(emit)) >= 12)
    assert emit.events["polls skipped"] >= 4
    gaps = [later.time_ms - earlier.time_ms for earlier, later in pairwise(emit.records[6:])]
    assert sorted(gaps)[len(gaps) // 2] >= 15


class SerialServer:
    """Passes RTU frames on to unit 1, whose registers are 4711; while `busy` it hangs up at once."""

    def __init__(self, delay_s: float = 0.0) -> None:
        self.busy = False
        self._unit = ModbusUnit(dict.fromkeys(range(200), 4711))
        self._delay_s = delay_s
        self._serving: list[asyncio.Task[None]] = []

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Config]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        address = Address(*server.sockets[0].getsockname())
        async with server:
            units = [unit(1, {"a": Register(at=1)})]
            yield Config(rtu_over_tcp=address, units=units, answer_timeout=0.03)
            await asyncio.gather(*self._serving)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.append(task)
        while not self.busy and (request := await reader.read(8)):
            await asyncio.sleep(self._delay_s)
            writer.write(frame(request[0], self._unit.answer(request[1:-2])))
        writer.close()


async def test_rtu_frames_through_a_serial_server() -> None:
    emit = FakeEmit()
    async with SerialServer().listening() as config, running(config, emit):
        await emit.until(lambda: len(good(emit)) > 2)
    assert good(emit)[0] == {"a": 4711}


async def test_a_long_answer_behind_a_serial_server_has_the_time_of_its_characters() -> None:
    """125 registers take 1.2 s at 2400 baud; nothing comes before the serial server has all of them."""
    server = SerialServer(delay_s=0.3)
    registers = {f"r{at}": Register(at=at) for at in range(125)}
    async with server.listening() as config:
        units = [unit(1, registers, interval=60.0)]
        for baud_rate, expected in ((None, []), (2400, [dict.fromkeys(registers, 4711)])):
            emit = FakeEmit()
            config = dataclasses.replace(config, units=units, baud_rate=baud_rate)
            async with running(config, emit):
                await emit.stored(1)
            assert good(emit) == expected


async def test_a_serial_server_that_hangs_up_is_asked_again() -> None:
    """As it does while another program has its port."""
    emit = FakeEmit()
    server = SerialServer()
    server.busy = True
    async with server.listening() as config, running(config, emit):
        await emit.until(lambda: len(emit.failures) > 1)
        server.busy = False
        await emit.until(lambda: len(good(emit)) > 2)
    assert ("unit-1", "connection closed") in emit.failures
    assert good(emit)[0] == {"a": 4711}
