"""`modbus`: look at a bus while its gateway does not, one request after the other."""

import asyncio
import dataclasses
import json
import os
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from gateway.cli.line import Mode, port_settings
from gateway.cli.location import configured
from gateway.cli.options import Configuration, Json
from gateway.cli.terminal import counting, output, table
from gateway.errors import CommandError, DeviceError
from gateway.printable import printable
from gateway.settings import Address

if TYPE_CHECKING:
    # Imported when a command runs, as every driver is.
    from drivers.modbus import Config
    from drivers.modbus.line import Line
    from drivers.modbus.register import Register
    from drivers.modbus.unit import Unit

Result = TypeVar("Result")
LACKING = 1
WITHOUT = "a bus that is not configured is HOST:PORT, rtu:HOST:PORT or a port such as /dev/ttyUSB0"

Bus = Annotated[
    str,
    typer.Argument(
        metavar="BUS",
        help="A driver's name in the configuration, or HOST:PORT for Modbus TCP, rtu:HOST:PORT for RTU over TCP, or a serial port "
        "as in the configuration. One that a running gateway has open is taken.",
    ),
]
Timeout = Annotated[
    float | None,
    typer.Option(
        "--timeout",
        min=0.01,
        max=10.0,
        help="Seconds that a unit may take to begin its answer.",
        show_default="the driver's, or 0.5",
    ),
]
UnitOption = Annotated[
    int | None,
    typer.Option(
        "--unit", min=0, max=255, help="The unit's address, if no DEVICE is named.", show_default="1"
    ),
]
At = Annotated[int | None, typer.Option("--at", min=0, max=65535, help="Address in the protocol, from 0.")]
TableOption = Annotated[
    str | None, typer.Option("--table", help="holding, input, coil or discrete.", show_default="holding")
]
TypeOption = Annotated[
    str | None, typer.Option("--type", help="uint16, int16, float32 ...", show_default="uint16, or bool")
]
WordOrder = Annotated[str | None, typer.Option("--word-order", help="big or little.", show_default="big")]

app = typer.Typer(
    name="modbus", help="Find units on a Modbus bus, read and write their values.", no_args_is_help=True
)


@app.command()
def scan(
    bus: Bus,
    mode: Mode = None,
    timeout: Timeout = None,
    units: Annotated[str, typer.Option("--units", metavar="FIRST-LAST", help="Addresses to ask.")] = "1-247",
    config: Configuration = None,
    as_json: Json = False,
) -> None:
    """Ask every address for holding register 0; whoever answers, even with a refusal or another address, is there."""
    limits = re.fullmatch(r"([0-9]{1,3})(?:-([0-9]{1,3}))?", units)
    if limits is None or not int(limits[1]) <= int(limits[2] or limits[1]) <= 255:
        raise CommandError(f"--units {units!r} is not FIRST-LAST, addresses from 0 to 255", os.EX_USAGE)
    addresses = range(int(limits[1]), int(limits[2] or limits[1]) + 1)
    found = _with_line(_bus(bus, mode, timeout, config), lambda line: _ask(line, addresses))
    shown = table("unit", "answer", right=("unit",))
    for address, answer in found.items():
        if as_json:
            print(json.dumps({"unit": address, "answer": answer}))
        shown.add_row(str(address), answer)
    if not found:
        raise CommandError(f"no unit answered, of {len(addresses)} addresses", LACKING)
    if not as_json:
        output().print(shown)


@app.command()
def read(
    bus: Bus,
    what: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[DEVICE [VALUE...]]",
            help="Of the configuration; all without them. Not with --at or --profile.",
        ),
    ] = None,
    unit: UnitOption = None,
    profile: Annotated[
        str | None, typer.Option("--profile", help="Read all that this profile knows.")
    ] = None,
    at: At = None,
    count: Annotated[
        int | None,
        typer.Option("--count", min=1, max=2000, help="Values from there on.", show_default="1"),
    ] = None,
    from_table: TableOption = None,
    holds: TypeOption = None,
    word_order: WordOrder = None,
    mode: Mode = None,
    timeout: Timeout = None,
    config: Configuration = None,
    as_json: Json = False,
) -> None:
    """Read values once. Exit code 1 if one of them can't be read."""
    if at is not None and profile is not None:
        raise CommandError("--at can't go with --profile: leave one of them out", os.EX_USAGE)
    unnamed = "--at" if at is not None else "--profile" if profile is not None else None
    if unnamed is None:
        _refuse({"--unit": unit}, "--at or --profile")
    elif what:
        raise CommandError(
            f"{what[0]!r} can't go with {unnamed}: name the unit by --unit, or leave {unnamed} out",
            os.EX_USAGE,
        )
    if at is None:
        options = {"--count": count, "--table": from_table, "--type": holds, "--word-order": word_order}
        _refuse(options, "--at")
    found = _bus(bus, mode, timeout, config)
    if at is not None:
        units = [_unit(unit, dict(_registers(at, count or 1, from_table, holds, word_order)), None)]
    elif profile is not None:
        units = [_unit(unit, {}, profile)]
    else:
        units = _chosen(found, what or [])
    bad = False
    shown = table("device", "value", "", "", right=("",))
    for one, values, quality in _with_line(found, lambda line: _read(line, units)):
        bad = bad or bool(quality)
        if as_json:
            told = {"unit": one.address, "device": one.device, "values": values, "quality": quality}
            print(json.dumps(told))
        for name, register in one.values().items():
            if name in values:
                shown.add_row(one.device, name, printable(str(values[name])), register.unit)
            else:
                shown.add_row(one.device, name, "-", quality[name])
    if not as_json:
        output().print(shown)
    if bad:
        raise typer.Exit(LACKING)


@app.command(context_settings={"ignore_unknown_options": True})  # -5 is a value
def write(
    bus: Bus,
    what: Annotated[
        list[str],
        typer.Argument(
            metavar="[DEVICE NAME] VALUE", help="A number, one of its names, a text; on or off for a coil."
        ),
    ],
    unit: UnitOption = None,
    at: At = None,
    from_table: TableOption = None,
    holds: TypeOption = None,
    word_order: WordOrder = None,
    mode: Mode = None,
    timeout: Timeout = None,
    config: Configuration = None,
    as_json: Json = False,
) -> None:
    """Write one value, and show what it was and what it is now. Exit code 1 if that is not what was written."""
    for word in what:
        if re.match("--[a-z]", word):
            raise CommandError(f"no such option: {word}", os.EX_USAGE)
    if len(what) != (3 if at is None else 1):
        raise CommandError("needs DEVICE NAME VALUE of the configuration, or --at and VALUE", os.EX_USAGE)
    if at is None:
        options = {"--unit": unit, "--table": from_table, "--type": holds, "--word-order": word_order}
        _refuse(options, "--at")
    found = _bus(bus, mode, timeout, config)
    if at is not None:
        chosen = _unit(unit, dict(_registers(at, 1, from_table, holds, word_order)), None)
    else:
        (chosen,) = _chosen(found, what[:2])
    before, after = _with_line(found, lambda line: _write(line, chosen, what[-1]))
    if as_json:
        print(json.dumps({"unit": chosen.address, "device": chosen.device, "before": before, "after": after}))
    else:
        print(f"{next(iter(chosen.values()))}: {before} -> {after}")


def _refuse(options: Mapping[str, object], unless: str) -> None:
    """What has no effect may be what somebody relies on, with a write above all. Raises CommandError."""
    for option, value in options.items():
        if value is not None:
            raise CommandError(
                f"{option} goes with {unless} only: what DEVICE and VALUE are is in the configuration",
                os.EX_USAGE,
            )


def _bus(name: str, mode: str | None, timeout: float | None, config: Path | None) -> "Config":
    """Raises CommandError, ConfigError."""
    import drivers.modbus as modbus

    if "/" not in name and ":" not in name:
        try:
            loaded = configured(config).drivers
        except CommandError as error:
            raise CommandError(f"{error}; {WITHOUT}", error.exit_code) from error
        buses = {
            known: driver.settings for known, driver in loaded.items() if driver.manifest.name == "modbus"
        }
        if name not in buses:
            known = ", ".join(buses) or "none"
            raise CommandError(
                f"no bus {name!r} in the configuration; there are: {known}; {WITHOUT}", os.EX_USAGE
            )
        if mode is not None:
            raise CommandError(
                f"--mode is for a serial port; the line of {name!r} is as the configuration says", os.EX_USAGE
            )
        found: Config = buses[name]
        return found if timeout is None else dataclasses.replace(found, answer_timeout=timeout)
    form = modbus.Config(units=[], answer_timeout=timeout or 0.5)
    address = re.fullmatch(r"(rtu:)?([^/]+):([0-9]{1,5})", name)
    if name.startswith(("/", "usb:")):
        return dataclasses.replace(form, serial=port_settings(name, mode))
    if address is None or int(address[3]) > 65535:
        raise CommandError(f"{name!r} is neither HOST:PORT, rtu:HOST:PORT nor a serial port", os.EX_USAGE)
    if mode is not None:
        raise CommandError(f"--mode is for a serial port, and {name!r} is none: leave it out", os.EX_USAGE)
    where = Address(address[2].strip("[]"), int(address[3]))
    if address[1]:
        return dataclasses.replace(form, rtu_over_tcp=where)
    return dataclasses.replace(form, tcp=where)


def _registers(
    at: int, count: int, from_table: str | None, holds: str | None, word_order: str | None
) -> Iterator[tuple[str, "Register"]]:
    """Named by their addresses. Raises CommandError."""
    from drivers.modbus.profile import register
    from drivers.modbus.register import problems

    fields = {"table": from_table, "type": holds, "word_order": word_order}
    given = {name: value for name, value in fields.items() if value is not None}
    for _ in range(count):
        try:
            made = register({"at": at, **given}, f"--at {at}")
        except ValueError as error:
            raise CommandError(str(error), os.EX_USAGE) from error
        for field, message in problems(made):
            raise CommandError(f"--{field} {message}", os.EX_USAGE)
        yield str(at), made
        at += made.count


def _unit(given: int | None, registers: "Mapping[str, Register]", profile: str | None) -> "Unit":
    from drivers.modbus.unit import Unit, problems

    address = 1 if given is None else given
    made = Unit(address=address, device=f"unit-{address}", registers=dict(registers), profile=profile)
    for _, message in problems(made):
        raise CommandError(message, os.EX_USAGE)
    return made


def _chosen(bus: "Config", names: list[str]) -> list["Unit"]:
    """Units of the bus, or one with some of its values."""
    if not bus.units:
        raise CommandError(
            "needs --at or --profile; only a BUS of the configuration has devices", os.EX_USAGE
        )
    if not names:
        return bus.units
    devices = {unit.device: unit for unit in bus.units}
    if names[0] not in devices:
        raise CommandError(f"no device {names[0]!r} on the bus; there are: {', '.join(devices)}", os.EX_USAGE)
    unit = devices[names[0]]
    values, orders = unit.values(), unit.orders()
    for name in names[1:]:
        if name not in values:
            raise CommandError(f"{names[0]} has no {name!r}; there are: {', '.join(values)}", os.EX_USAGE)
    return [
        dataclasses.replace(
            unit,
            registers={name: values[name] for name in names[1:] or values},
            profile=None,
            only=[],
            word_order=orders[0],
            byte_order=orders[1],
            registers_max=unit.limits(0).registers_max,
        )
    ]


async def _ask(line: "Line", addresses: range) -> dict[int, str]:
    from drivers.modbus.line import NoAnswer, OtherUnit
    from drivers.modbus.protocol import UNREACHED, ExceptionAnswer
    from drivers.modbus.protocol import read as request

    found = {}
    with counting("asking", len(addresses)) as progress:
        for number, address in enumerate(addresses, 1):
            try:
                data = await line.exchange(address, request("holding", 0, 1))
                found[address] = f"holding register 0 is {int.from_bytes(data, 'big')}"
            except ExceptionAnswer as error:
                if error.code not in UNREACHED:
                    found[address] = f"refuses holding register 0: {error}"
            except OtherUnit as error:
                found[address] = str(error)
            except NoAnswer:
                pass
            progress(number)
    return found


async def _write(line: "Line", unit: "Unit", text: str) -> tuple[Any, Any]:
    """The value before and after. Reading first also tells whether the line echoes, which a write can't."""
    from drivers.modbus.line import NoAnswer
    from drivers.modbus.protocol import ILLEGAL_FUNCTION, ExceptionAnswer
    from drivers.modbus.register import writing

    [(name, register)] = unit.values().items()
    try:
        requests, expected = writing(register, text, *unit.orders())
    except ValueError as error:
        raise CommandError(f"{name}: {error}", os.EX_DATAERR) from error
    [(_, before, quality)] = await _read(line, [unit])
    for request in requests:
        try:
            await line.exchange(unit.address, request)
            break
        except (ExceptionAnswer, NoAnswer) as error:
            unknown = isinstance(error, ExceptionAnswer) and error.code == ILLEGAL_FUNCTION
            if not unknown or request is requests[-1]:
                raise CommandError(
                    f"{name}: {error}; it was {before.get(name, quality.get(name))}"
                ) from error
    [(_, after, quality)] = await _read(line, [unit])
    if after.get(name) != expected:
        raise CommandError(
            f"{name}: {text} was accepted, but it is {after.get(name, quality.get(name))}", LACKING
        )
    return before.get(name), after[name]


async def _read(line: "Line", units: list["Unit"]) -> list[tuple["Unit", dict[str, Any], dict[str, str]]]:
    from drivers.modbus.polled import Polled

    found = []
    for unit in units:
        values: dict[str, Any] = {}
        quality: dict[str, str] = {}
        for each in Polled(unit, 0, ()).classes:
            some, bad, _ = await each.read(line, lambda event, amount: None)
            values.update(some)
            quality.update(bad)
        found.append((unit, values, quality))
    return found


def _with_line(bus: "Config", work: Callable[["Line"], Awaitable[Result]]) -> Result:
    from drivers.modbus.driver import line_for

    async def run() -> Result:
        line = line_for(bus, lambda event, amount: None)
        try:
            return await work(line)
        except DeviceError as error:
            raise CommandError(str(error), os.EX_UNAVAILABLE) from error
        finally:
            line.close()

    return asyncio.run(run())


def add_to(to: typer.Typer) -> None:
    to.add_typer(app)
