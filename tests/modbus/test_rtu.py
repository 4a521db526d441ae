"""On a serial line: whatever goes wrong there, a value is right or it is absent and its quality says why."""

from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest

from drivers.modbus.polled import NOT_ASKED
from drivers.modbus.register import Register
from gateway.testing.emit import FakeEmit
from gateway.testing.modbus_slave import Asked, ModbusUnit, Part, SerialSlave, frame
from tests.modbus.rig import bodies, running, serial, unit

ANSWER_TIMEOUT_S = 0.06


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


@pytest.mark.fault("line", "an answer comes after its time-out (RTU)", "35")
async def test_a_late_answer_is_never_the_next_requests(line: SerialSlave) -> None:
    """The unit answers one request later than anybody waits, and both blocks look alike but for their values."""
    late = [True]

    def behave(asked: Asked) -> Iterable[Part]:
        return (Part(0.25 if late[0] else 0.0, asked.answer),)

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


@pytest.mark.fault("line", "a unit is always late", "35")
@pytest.mark.slow
async def test_a_unit_that_is_always_late_gives_no_value_or_the_right_one(line: SerialSlave) -> None:
    line.behave = lambda asked: (Part(0.06, asked.answer),)
    emit = FakeEmit()
    units = (unit(1, registers(30, 50), holes=False), unit(2, registers(30)))
    async with running(serial(line.path, *units, answer_timeout=0.04), emit):
        await emit.until(lambda: emit.events["late answers"] > 3)
    never_wrong(emit)
    assert good(emit) == 0


@pytest.mark.fault("line", "late answers to one and the same request", "35")
@pytest.mark.slow
async def test_a_late_answer_to_the_only_request_a_unit_knows(line: SerialSlave) -> None:
    """Nothing tells it from the next one's: the registers count up, so a value from before would show."""
    count = [0]

    def behave(asked: Asked) -> Iterable[Part]:
        count[0] += 1
        line.units[1].holding[3] = count[0]
        return (Part(0.3 if count[0] == 2 else 0.0, frame(1, b"\x03\x02" + count[0].to_bytes(2, "big"))),)

    line.behave = behave
    emit = FakeEmit()
    async with running(serial(line.path, unit(1, registers(3))), emit):
        await emit.until(lambda: len(emit.records) > 5, within_s=20)
    values = [body["values"].get("r3") for body in bodies(emit.records)]
    assert values[:2] == [1, None]
    assert 2 not in values


BROKEN: dict[str, Callable[[bytes], bytes]] = {
    "wrong checksum": lambda answer: answer[:-1] + bytes((answer[-1] ^ 1,)),
    "a bit tipped over": lambda answer: answer[:3] + bytes((answer[3] ^ 0x10,)) + answer[4:],
    "truncated": lambda answer: answer[:-3],
    "only a beginning": lambda answer: answer[:1],
    "another unit": lambda answer: frame(9, answer[1:-2]),
    "another function": lambda answer: frame(answer[0], b"\x04" + answer[2:-2]),
    "another length": lambda answer: frame(answer[0], b"\x03\x02" + answer[3:5]),
    "noise in the middle": lambda answer: answer[:4] + b"\xff" + answer[4:],
    "much noise before": lambda answer: bytes(range(40, 52)) + answer,
    "another unit's frame around it": lambda answer: frame(9, b"\x03" + bytes((len(answer),)) + answer),
    "zeroes": lambda answer: bytes(len(answer)),
}


@pytest.mark.fault("line", "an answer with a wrong checksum, unit, function or length", "35")
@pytest.mark.parametrize("how", BROKEN)
@pytest.mark.slow
async def test_a_broken_answer_is_no_value_and_the_next_good_one_is(line: SerialSlave, how: str) -> None:
    broken = [True]

    def behave(asked: Asked) -> Iterable[Part]:
        return (Part(0.0, BROKEN[how](asked.answer) if broken[0] else asked.answer),)

    line.behave = behave
    emit = FakeEmit()
    config = serial(line.path, unit(1, registers(3, 4, 5, 30, 31)), answer_timeout=0.04)
    async with running(config, emit):
        await emit.until(lambda: len(emit.records) > 0)
        assert good(emit) == 0
        broken[0] = False
        await emit.until(lambda: good(emit) > 1, within_s=20)
    never_wrong(emit)
    first = next(bodies(emit.records))
    assert first["values"] == {}
    told = {"no answer, but one of unit 9"} if how == "another unit" else {"no answer", "no whole answer"}
    assert set(first["quality"].values()) <= told


@pytest.mark.slow
async def test_what_a_unit_does_not_even_refuse_is_found_out(line: SerialSlave) -> None:
    """It is silent to every request that touches register 7 or the hole behind 20; all else is read in the end."""

    def behave(asked: Asked) -> Iterable[Part]:
        at, count = asked.pdu[2], asked.pdu[4]
        silent = any(at <= place < at + count for place in (7, 21, 22))
        return () if silent else (Part(0.0, asked.answer),)

    line.behave = behave

    def steady(emit: FakeEmit) -> bool:
        """The last ten polls all read what is there."""
        last = list(bodies(emit.records, "unit-1"))[-10:]
        return len(last) == 10 and all(
            set(body["values"]) == {f"r{at}" for at in places if at != 7}
            and body["quality"] == {"r7": NOT_ASKED}
            for body in last
        )

    emit = FakeEmit()
    places = (*range(5, 10), 20, 23, 24)
    config = serial(line.path, unit(1, registers(*places)), unit(2, registers(3)), answer_timeout=0.03)
    async with running(config, emit):
        await emit.until(lambda: steady(emit), within_s=30)
    never_wrong(emit)


@pytest.mark.fault("line", "noise before an answer", "35")
async def test_a_little_noise_before_an_answer_does_no_harm(line: SerialSlave) -> None:
    line.behave = lambda asked: (Part(0.0, b"\xff\0" + asked.answer + b"\0"),)
    emit = FakeEmit()
    async with running(serial(line.path, unit(1, registers(3, 5))), emit):
        await emit.until(lambda: good(emit) > 3)
    never_wrong(emit)
    assert emit.failures == []


@pytest.mark.fault("line", "an answer in pieces", "35")
async def test_an_answer_in_pieces(line: SerialSlave) -> None:
    line.behave = lambda asked: (
        Part(0.0, asked.answer[:2]),
        Part(0.02, asked.answer[2:6]),
        Part(0.02, asked.answer[6:]),
    )
    emit = FakeEmit()
    async with running(serial(line.path, unit(1, registers(3, 5, 7))), emit):
        await emit.until(lambda: good(emit) > 1)
    never_wrong(emit)
    assert emit.failures == []


@pytest.mark.fault("line", "the line echoes requests", "35")
@pytest.mark.slow
async def test_an_echo_is_cut_off(line: SerialSlave) -> None:
    line.echo = True
    emit = FakeEmit()
    async with running(serial(line.path, unit(1, registers(3, 5)), unit(2, registers(3))), emit):
        await emit.until(lambda: good(emit, "unit-1") > 1 and good(emit, "unit-2") > 1)
        del line.units[2]
        await emit.until(lambda: len(emit.failures) > 1)
    never_wrong(emit)
    assert {device for device, _ in emit.failures} == {"unit-2"}


@pytest.mark.fault("line", "noise between polls", "35")
@pytest.mark.slow
async def test_noise_between_polls_is_dropped(line: SerialSlave) -> None:
    emit = FakeEmit()
    async with running(serial(line.path, unit(1, registers(3), interval=0.2)), emit):
        await emit.stored(1)
        line.say(frame(1, b"\x03\x02\xbe\xef"))
        await emit.until(lambda: emit.events["bytes that came unasked"] > 0)
        await emit.stored(3)
    never_wrong(emit)


@pytest.mark.fault("line", "the adapter is unplugged and plugged in again", "35")
@pytest.mark.slow
async def test_an_unplugged_port_comes_back_at_the_same_name(line: SerialSlave, tmp_path: Path) -> None:
    """Another bus is read on meanwhile."""
    emit, other_emit = FakeEmit(), FakeEmit()
    path = tmp_path / "unplugged"
    slave = SerialSlave({1: filled(1)}, path)
    other = running(serial(line.path, unit(2, registers(4))), other_emit)
    async with running(serial(path, unit(1, registers(3))), emit), other:
        await emit.until(lambda: good(emit) > 1)
        slave.close()
        path.unlink()
        await emit.until(lambda: any("no such port" in reason for _, reason in emit.failures))
        before, others = good(emit), good(other_emit)
        await other_emit.until(lambda: good(other_emit) > others + 3)
        slave = SerialSlave({1: filled(1)}, path)
        await emit.until(lambda: good(emit) > before + 1, within_s=20)
        slave.close()
    never_wrong(emit)
    never_wrong(other_emit)


async def test_a_port_that_is_not_there_is_told_for_every_device(tmp_path: Path) -> None:
    emit = FakeEmit()
    config = serial(tmp_path / "nothing", unit(1, registers(3)), unit(2, registers(4)))
    async with running(config, emit):
        await emit.until(lambda: len(emit.failures) > 1)
    assert [device for device, _ in emit.failures] == ["unit-1", "unit-2"]
    for body, name in zip(bodies(emit.records), ("r3", "r4"), strict=True):
        assert body["values"] == {}
        assert "there is no such port" in body["quality"][name]


@pytest.mark.fault("line", "one unit of ten is silent", "35")
@pytest.mark.slow
async def test_a_dead_unit_of_ten_costs_the_others_nothing(line: SerialSlave) -> None:
    """Each of the nine is read at its interval, within 5 %, while the tenth is silent from some time on."""
    interval, timeout = 0.5, 0.15
    emit = FakeEmit()
    units = [unit(number, registers(3, 5), interval=interval) for number in range(1, 11)]
    async with running(serial(line.path, *units, answer_timeout=timeout), emit):
        await emit.until(lambda: good(emit) >= 20)
        del line.units[7]
        await emit.until(lambda: len(emit.failures) >= 3)
        since = len(line.asked)
        await emit.until(lambda: sum(asked.unit == 1 for asked in line.asked[since:]) > 14, within_s=20)
        asked = line.asked[since:]
        assert 2 <= sum(one.unit == 7 for one in asked) <= 5
        line.units[7] = filled(7)
        await emit.until(
            lambda: next(bodies(emit.records[-1:]), {"device": ""})["device"] == "unit-7", within_s=20
        )
    never_wrong(emit)
    for number in {*range(1, 11)} - {7}:
        times = [one.at for one in asked if one.unit == number]
        gaps = [later - earlier for earlier, later in pairwise(times)]
        off = sorted(abs(gap - interval) for gap in gaps)
        assert off[-2] <= 0.05 * interval, (number, gaps)
        # A probe in the way would cost a time-out; a busy machine may cost some milliseconds, once.
        assert off[-1] < timeout / 2, (number, gaps)


@pytest.mark.fault("input", "random answers on a line")
@pytest.mark.slow
async def test_fuzzed_answers_are_never_values(line: SerialSlave) -> None:
    random = Random(7)

    def behave(asked: Asked) -> Iterable[Part]:
        answer = bytearray(asked.answer)
        match random.randrange(6):
            case 0:
                answer[random.randrange(len(answer))] ^= 1 << random.randrange(8)
            case 1:
                del answer[random.randrange(len(answer)) :]
            case 2:
                answer[random.randrange(len(answer)) : 0] = random.randbytes(random.randrange(1, 9))
            case 3:
                answer = bytearray(random.randbytes(random.randrange(300)))
        return (Part(random.choice((0.0, 0.0, 0.0, 0.06)), bytes(answer)),)

    line.behave = behave
    emit = FakeEmit()
    units = [
        unit(number, registers(1, 2, 20, 21, 22, 40), holes=False, interval=0.02) for number in (1, 2, 3)
    ]
    async with running(serial(line.path, *units, answer_timeout=0.04), emit):
        await emit.until(lambda: len(line.asked) > 120, within_s=50)
    never_wrong(emit)
    assert sum(len(body["values"]) for body in bodies(emit.records)) > 10
