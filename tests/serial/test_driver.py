"""Devices on pseudo-terminals, as an operator sees them: records, counts, log lines."""

import asyncio
import json
import logging
import random
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from drivers.serial import Check, Field, Frame, Kind, Request
from drivers.serial.asking import REST_S, SKIPPED_TICKS, UNANSWERED, UNASKED
from drivers.serial.framing import HALF, SKIPPED, WRONG_LENGTH
from gateway.errors import QueueFull, StorageFailing
from gateway.port import Port, PortSettings
from gateway.record import Record
from tests.serial.rig import bench


def raw(records: Sequence[Record]) -> list[tuple[str, bytes]]:
    """Devices and what they said; not the records that there was no answer."""
    return [
        (record.device, record.body)
        for record in records
        if record.content_type == "application/octet-stream"
    ]


STX = Frame(start="hex:02", end="hex:03")
"""What is between is the record."""


async def test_a_line_becomes_a_reading(tmp_path: Path) -> None:
    weight = {"weight": Field()}
    async with bench(tmp_path, pattern=r"(?P<weight>[-+. 0-9]+) kg", fields=weight) as one:
        one.device.send(b"2.50 kg\r\n +12.50 kg\r\n")
        (record,) = await one.records(1)
        assert (record.channel, record.device) == ("serial/scale", "scale")
        assert record.content_type == "application/json"
        assert json.loads(record.body) == {
            "device": "scale",
            "time": record.time_ms,
            "values": {"weight": 12.5},
            "quality": {},
        }
        await one.emit.until(lambda: one.emit.told == 1)
        assert one.emit.events[HALF] == 1, "the first line may have begun before the port was open"


async def test_a_line_after_silence_is_whole(tmp_path: Path) -> None:
    async with bench(tmp_path, pause_max=0.02) as one:
        one.device.send(b"lf a code\n")
        await one.counted(HALF)
        one.device.send(b"4006381333931\r\n")
        assert [record.body for record in await one.records(1)] == [b"4006381333931"]


async def test_the_first_line_after_opening_is_whole_if_the_line_was_silent(tmp_path: Path) -> None:
    """A barcode scanner that nobody used while the gateway started."""
    async with bench(tmp_path, pause_max=0.02) as one:
        # Longer than the pause, and begun behind it: by then the driver's timer has gone off.
        await asyncio.sleep(0.05)
        one.device.send(b"4006381333931\r\n")
        assert [record.body for record in await one.records(1)] == [b"4006381333931"]
    assert not one.emit.events


async def test_a_line_that_had_begun_before_opening_is_half(tmp_path: Path) -> None:
    async with bench(tmp_path, pause_max=0.2) as one:
        one.device.send(b"12.5 kg\r\n112.5 kg\r\n")
        assert [record.body for record in await one.records(1)] == [b"112.5 kg"]
    assert one.emit.events == {HALF: 1}


@pytest.mark.fault("line", "half a frame, then silence", "35")
async def test_half_a_frame_and_silence_make_no_record_and_hide_none(tmp_path: Path) -> None:
    length = Frame(start="hex:aa", length_at=1, length_adds=2)
    async with bench(tmp_path, frame=length, check=None, pause_max=0.05) as one:
        # A head that tells of 200 bytes swallows the whole frame behind it, until the line is silent.
        one.device.send(b"\xaa\xc8" + b"\xaa\x02ok")
        assert [record.body for record in await one.records(1)] == [b"\x02ok"]
        assert one.emit.events == {HALF: 1, SKIPPED: 2}


@pytest.mark.fault("input", "a line without an end")
async def test_a_line_without_an_end_is_bounded(tmp_path: Path) -> None:
    async with bench(tmp_path, frame=Frame(end="\n", bytes_max=16)) as one:
        for sent in range(100, 2000, 100):
            one.device.send(b"x" * 100)
            await one.counted(SKIPPED, sent - 16)
        one.device.send(b"the rest of it, longer than a line\nwhole\n")
        assert [record.body for record in await one.records(1)] == [b"whole"]
        assert one.emit.events[WRONG_LENGTH] >= 1


@pytest.mark.fault("line", "a device at another speed", "35")
async def test_a_wrong_speed_is_counted_and_survived(tmp_path: Path) -> None:
    """What a receiver at another speed makes of a line: bytes that were never sent."""
    chance = random.Random(35)
    xor = Check(kind="xor", at=-1, covers_from=1)
    async with bench(tmp_path, frame=Frame(start="hex:02", end="hex:03", trailer_bytes=1), check=xor) as one:
        for sent in range(1000, 20_000, 1000):
            one.device.send(bytes(chance.choice(b"\x00\x80\xc0\xe0\xf8\xfe\xff") for _ in range(1000)))
            await one.counted(SKIPPED, sent)
        one.device.send(b"\x02A\x03" + bytes([ord("A") ^ 3]))
        assert [record.body for record in await one.records(1)] == [b"A"]
        assert one.emit.events == {SKIPPED: 19_000}


@pytest.mark.slow
async def test_a_port_that_is_not_there_yet(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with bench(tmp_path, frame=STX, plugged=False) as one:
        await one.emit.until(lambda: bool(one.emit.failures))
        assert one.emit.failures == [
            (
                "scale",
                f"port {one.device.path}: there is no such port; is the device plugged in? `tidegate serial ports` lists those there are",
            )
        ]
        one.device.path.mkdir()
        await one.emit.until(lambda: len(one.emit.failures) == 2)
        assert one.emit.failures[1] == ("scale", f"port {one.device.path}: Is a directory")
        one.device.path.rmdir()
        one.device.plug()
        await one.says(b"\x02here\x03")
        assert [line.split(";")[0] for line in caplog.messages] == [
            f"driver scale: port {one.device.path}: there is no such port",
            f"driver scale: port {one.device.path} works again",
        ]


@pytest.mark.fault("line", "the adapter is unplugged and plugged in again", "35")
@pytest.mark.slow
async def test_unplugged_and_plugged_in_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Within 5 s, the limit of `says`; three times, each with one line for the loss and one for the recovery."""
    caplog.set_level(logging.INFO)
    async with bench(tmp_path, frame=STX) as one:
        await one.says(b"\x02first\x03")
        for _ in range(3):
            one.device.send(b"\x02hal")
            await asyncio.sleep(0)
            one.device.unplug()
            failures = len(one.emit.failures)
            await one.emit.until(lambda failures=failures: len(one.emit.failures) > failures)  # type: ignore[misc]
            one.device.plug()
            await one.says(b"\x02again\x03")
        assert len(caplog.messages) == 6
        assert {record.body for record in one.emit.records} == {b"first", b"again"}


@pytest.mark.slow
async def test_a_port_in_use_says_so_and_is_taken_when_free(tmp_path: Path) -> None:
    async with bench(tmp_path, frame=STX, plugged=False) as one:
        one.device.plug()
        other = Port.open(PortSettings(port=str(one.device.path)), lambda data: None, lambda error: None)
        await one.emit.until(lambda: any("in use by another program" in why for _, why in one.emit.failures))
        other.close()
        await one.says(b"\x02mine\x03")


async def test_a_full_queue_and_a_failing_disk(tmp_path: Path) -> None:
    async with bench(tmp_path, frame=STX) as one:
        one.emit.refuse = QueueFull("full")
        one.device.send(b"\x02one\x03")
        await one.emit.until(lambda: one.emit.failures == [("scale", "full")])
        one.emit.refuse = None
        one.emit.hold()
        one.device.send(b"\x02two\x03")
        await one.emit.until(lambda: bool(one.emit.held))
        one.emit.fail(StorageFailing("disk"))
        one.emit.release()
        one.device.send(b"\x02three\x03")
        assert [record.body for record in await one.records(1)] == [b"three"]
        await one.emit.until(lambda: one.emit.told == 1)


async def test_devices_are_asked_and_take_turns(tmp_path: Path) -> None:
    asked: list[bytes] = []
    times: list[float] = []

    def answers(request: bytes) -> bytes:
        asked.append(request)
        times.append(asyncio.get_running_loop().time())
        return b"\x02" + request[1:2] + b" 20.5\x03"

    north = Request(send="#1\r", interval=0.02, timeout=5.0, expect="hex:02 31")
    south = Request(send="#2\r", interval=0.02, timeout=5.0, expect="hex:02 32")
    async with bench(tmp_path, frame=STX, answers=answers, requests={"north": north, "south": south}) as one:
        records = await one.records(6)
    assert {(record.channel, record.device, record.body) for record in records} == {
        ("serial/north", "north", b"1 20.5"),
        ("serial/south", "south", b"2 20.5"),
    }
    assert set(asked) == {b"#1\r", b"#2\r"}, "one request at a time, the next after the answer"
    assert one.emit.events[UNASKED] == 0
    assert min(after - before for before, after in pairwise(times)) >= REST_S


@pytest.mark.fault("line", "one device of several is silent", "35")
async def test_a_silent_device_is_told_and_heard_when_it_answers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    mute = True

    def answers(request: bytes) -> bytes:
        return b"" if request == b"1" and mute else b"\x02" + request + b".5\x03"

    requests = {
        "one": Request(send="1", interval=0.2, timeout=0.05),
        "two": Request(send="2", interval=0.2, timeout=5.0),
    }
    level = {"level": Field()}
    async with bench(
        tmp_path, frame=STX, answers=answers, requests=requests, pattern="(?P<level>.+)", fields=level
    ) as one:
        await one.counted(UNANSWERED, 3)
        told = [json.loads(record.body) for record in one.emit.records if record.device == "one"]
        assert [(body["values"], body["quality"]) for body in told] == [({}, {"level": "no answer"})] * len(
            told
        )
        assert len(told) >= 2
        assert set(one.emit.failures) == {("one", "no answer in 0.05 s")}
        mute = False
        await one.emit.until(lambda: b'"level":1.5' in b"".join(record.body for record in one.emit.records))
    assert caplog.messages == [
        "driver scale: one gives no answer in 0.05 s",
        "driver scale: one answers again",
    ]


@pytest.mark.parametrize("dead", [1, 3])
async def test_a_dead_device_leaves_its_neighbours_their_ticks(tmp_path: Path, dead: int) -> None:
    """Its time-out is as long as their interval, as it is by default: there is no time when nothing else is due."""
    asked: list[bytes] = []

    def answers(request: bytes) -> bytes:
        asked.append(request)
        return b"" if request == b"%d" % dead else b"\x02" + request + b"\x03"

    requests = {
        f"probe-{number}": Request(
            send=str(number), interval=0.1, timeout=0.1 if number == dead else 5.0, expect=f"\x02{number}"
        )
        for number in (1, 2, 3)
    }
    async with bench(tmp_path, frame=STX, answers=answers, requests=requests) as one:
        await one.emit.until(lambda: asked.count(b"2") >= 20)
        silent = [json.loads(r.body)["quality"] for r in one.emit.records if r.device == f"probe-{dead}"]
    assert asked.count(b"%d" % dead) == 2, "asked once more, and then not for half a minute"
    assert silent == [{f"probe-{dead}": "no answer"}] * 2
    assert all(asked.count(b"%d" % number) >= 15 for number in (1, 2, 3) if number != dead)


async def test_a_tick_that_comes_while_the_line_is_busy_is_left_out_and_counted(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()

    def answers(request: bytes) -> bytes:
        loop.call_later(0.05, one.device.send, b"\x02slow\x03")
        return b""

    asks = {"scale-1": Request(send="?", interval=0.02, timeout=5.0)}
    async with bench(tmp_path, frame=STX, answers=answers, requests=asks) as one:
        await one.records(2)
        assert one.emit.events[SKIPPED_TICKS] >= 2


@pytest.mark.fault("line", "an answer comes after its time-out", "35")
async def test_a_late_answer_is_not_taken_for_the_next_device(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()

    def answers(request: bytes) -> bytes:
        """Both take their time; only the first has less than it takes."""
        loop.call_later(0.06 if request == b"1" else 0.04, one.device.send, b"\x02from " + request + b"\x03")
        return b""

    requests = {
        "one": Request(send="1", interval=0.3, timeout=0.04),
        "two": Request(send="2", interval=0.3, timeout=5.0),
    }
    async with bench(tmp_path, frame=STX, answers=answers, requests=requests) as one:
        await one.counted(UNASKED, 3)
        await one.emit.until(lambda: len(raw(one.emit.records)) >= 3)
    assert set(raw(one.emit.records)) == {("two", b"from 2")}


@pytest.mark.fault("line", "half an answer", "35")
async def test_half_an_answer_is_not_the_beginning_of_the_next(tmp_path: Path) -> None:
    requests = {
        "one": Request(send="1", interval=0.1, timeout=0.02),
        "two": Request(send="2", interval=0.1, timeout=5.0),
    }
    answers = {b"1": b"99", b"2": b"7\n"}
    async with bench(tmp_path, answers=answers.__getitem__, requests=requests) as one:
        await one.emit.until(lambda: len(raw(one.emit.records)) >= 3)
    assert set(raw(one.emit.records)) == {("two", b"7")}


async def test_answers_of_a_fixed_length_need_neither_start_nor_check(tmp_path: Path) -> None:
    answers = iter([b"\0\0\0", b"\0\0\x01\x02", b"\0\0\x01\x03"])
    asks = {"tank": Request(send="R", interval=0.05, timeout=0.2)}
    litres = {"litres": Field(type="u32", at=0)}
    async with bench(
        tmp_path,
        frame=Frame(length=4),
        answers=lambda asked: next(answers, b""),
        requests=asks,
        fields=litres,
    ) as one:
        assert (await one.values(3))[:3] == [{}, {"litres": 258}, {"litres": 259}]


async def test_two_questions_to_one_device(tmp_path: Path) -> None:
    """Each has its kind of answer, or none; the device is the same."""
    requests = {
        "weight": Request(send="W", device="scale-1", interval=0.05, timeout=5.0),
        "state": Request(send="S", device="scale-1", interval=0.05, timeout=5.0),
        "tare": Request(send="T", device="scale-1", interval=0.05, timeout=0.02),
    }
    kinds = {
        "weight": Kind(code="W", code_at=1, pattern="W(?P<kg>.+)", fields={"kg": Field()}),
        "state": Kind(code="S", code_at=1, pattern="S(?P<state>.+)", fields={"state": Field(type="text")}),
    }
    answers = {b"W": b"\x02W12.5\x03", b"S": b"\x02Sstable\x03", b"T": b""}
    async with bench(tmp_path, frame=STX, answers=answers.__getitem__, requests=requests, kinds=kinds) as one:
        records = await one.records(3)
        await one.emit.until(lambda: bool(one.emit.failures))
    assert {record.device for record in records} == {"scale-1"}
    found = {record.channel: json.loads(record.body) for record in records}
    assert found["serial/scale-1/weight"]["values"] == {"kg": 12.5}
    assert found["serial/scale-1/state"]["values"] == {"state": "stable"}
    assert found["serial/scale-1"]["quality"] == {"tare": "no answer"}
    assert one.emit.failures[0] == ("scale-1", "no answer in 0.02 s")


async def test_what_nobody_asked_for_is_no_answer(tmp_path: Path) -> None:
    talks = {"scale-1": Request(send="?", interval=0.05, timeout=5.0, expect="hex:02 41")}
    answer = b"\x02B1\x03\x02A1\x03\x02A2\x03"
    async with bench(tmp_path, frame=STX, answers=lambda asked: answer, requests=talks) as one:
        records = await one.records(2)
        assert {record.body for record in records} == {b"A1"}
        await one.counted(UNASKED, 2)


@pytest.mark.slow
async def test_asked_devices_go_on_after_unplugging(tmp_path: Path) -> None:
    asks = {"scale-1": Request(send="?", interval=0.05, timeout=0.2)}
    async with bench(tmp_path, frame=STX, answers=lambda asked: b"\x02ok\x03", requests=asks) as one:
        before = len(await one.records(1))
        one.device.unplug()
        await one.emit.until(lambda: bool(one.emit.failures))
        one.device.plug()
        await one.records(before + 3)
