"""Modbus RTU, RTU over TCP and TCP: one table a bus, each unit's values read at their intervals in the fewest requests."""

from collections.abc import Sequence
from dataclasses import dataclass

from drivers.modbus import load, unit
from drivers.modbus.protocol import UNIT_MAX
from drivers.modbus.unit import Unit
from gateway.driver import Manifest
from gateway.port import PortSettings
from gateway.settings import Address, Duration, setting

RTU_CHARACTER_BITS = 11
"""As the specification has them, with parity or a second stop bit; how a serial server's line is set is not known."""


@dataclass(frozen=True, kw_only=True)
class Config:
    tcp: Address | None = setting(
        None, doc="Address of a device or gateway that speaks Modbus TCP.", example='"192.168.1.20:502"'
    )
    rtu_over_tcp: Address | None = setting(
        None,
        doc="Or of a serial server that passes on RTU frames as they are.",
        example='"192.168.1.21:4001"',
    )
    baud_rate: int | None = setting(
        None,
        doc="Bits a second on the line behind rtu_over_tcp, so that its load is known and long answers get their time.",
        minimum=50,
        maximum=4_000_000,
        example="19200",
    )
    serial: PortSettings | None = setting(None, doc="Or the serial port of an RTU line.")
    answer_timeout: Duration = setting(
        0.5,
        doc="How long a unit may take to begin its answer.",
        minimum=0.01,
        maximum=10.0,
        example='"500 ms"',
    )
    pause: Duration = setting(
        0.0,
        doc="Rest between an answer and the next request; on a serial line at least 3.5 characters.",
        maximum=10.0,
        example='"5 ms"',
    )
    units: list[Unit] = setting(doc="The devices on the bus.", minimum=1, maximum=UNIT_MAX)


def rate_of(config: Config) -> load.LineRate:
    if config.tcp is not None:
        return load.LineRate(load.HOLE_REGISTERS_TCP, config.pause)
    if config.serial is None:
        return load.LineRate(load.HOLE_REGISTERS_RTU, config.pause, config.baud_rate or 0, RTU_CHARACTER_BITS)
    serial = config.serial
    return load.LineRate(load.HOLE_REGISTERS_RTU, config.pause, serial.baud_rate, serial.bits_per_character)


def channels(config: Config) -> Sequence[str]:
    return [f"modbus/{one.device}" for one in config.units]


def problems(config: Config) -> Sequence[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    if sum(way is not None for way in (config.tcp, config.rtu_over_tcp, config.serial)) != 1:
        found.append(("", "a bus needs one of tcp, rtu_over_tcp and serial"))
    if config.baud_rate is not None and config.rtu_over_tcp is None:
        right = "; write serial.baud_rate" if config.serial is not None else ""
        found.append(("baud_rate", f"is of the line behind rtu_over_tcp{right}"))
    if config.serial is not None and config.serial.data_bits != 8:
        found.append(("serial.data_bits", "RTU needs characters of 8 bits"))
    for number, one in enumerate(config.units):
        here = f"units[{number}]"
        before = config.units[:number]
        if config.tcp is None and not 1 <= one.address <= UNIT_MAX:
            found.append((f"{here}.address", f"{one.address} is none of an RTU line: 1 to {UNIT_MAX}"))
        if any(one.address == other.address for other in before):
            found.append((f"{here}.address", f"{one.address} is taken by a unit above"))
        if any(one.device == other.device for other in before):
            found.append((f"{here}.device", f"{one.device!r} is taken by a unit above"))
        for where, message in unit.problems(one):
            found.append((f"{here}.{where}" if where else here, message))
    if not found:
        found.extend(load.problems(config.units, rate_of(config)))
    return found


def notes(config: Config) -> Sequence[str]:
    told = load.notes(config.units, rate_of(config))
    if config.rtu_over_tcp is not None and config.baud_rate is None:
        told.append(
            "what share of the line's time that is can't be known without baud_rate, that of the line behind rtu_over_tcp"
        )
    return told


DRIVER = Manifest(
    name="modbus",
    summary="Modbus RTU, RTU over TCP and TCP: reads the values of devices at their intervals",
    config=Config,
    factory="drivers.modbus.driver:ModbusDriver",
    channels=channels,
    problems=problems,
    notes=notes,
)
