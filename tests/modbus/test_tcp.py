"""Over TCP: values of every sort, the fewest requests, and nothing taken for what it is not."""

import struct

from drivers.modbus import Config
from drivers.modbus.register import Register
from gateway.settings import Address
from gateway.testing.emit import FakeEmit
from gateway.testing.modbus_slave import ModbusUnit, TcpSlave
from tests.modbus.rig import bodies, running, unit


def words(text: str, *values: object) -> dict[int, int]:
    data = struct.pack(text, *values)
    return dict(enumerate(struct.unpack(f">{len(data) // 2}H", data)))


async def test_values_become_a_record() -> None:
    slave = TcpSlave({1: ModbusUnit(words(">hIf", -215, 123_456_789, 50.02), coils={3: True, 4: False})})
    registers = {
        "temperature": Register(at=0, type="int16", scale=0.1, unit="°C"),
        "energy": Register(at=1, type="uint32"),
        "frequency": Register(at=3, type="float32"),
        "pump": Register(at=3, table="coil"),
        "valve": Register(at=4, table="coil"),
    }
    emit = FakeEmit()
    port = await slave.listen()
    async with running(Config(tcp=Address("127.0.0.1", port), units=[unit(1, registers)]), emit):
        await emit.until(lambda: emit.told >= 2)
    await slave.close()
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
