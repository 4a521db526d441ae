"""status and tail against a gateway, and without one."""

import asyncio
import json
import os
import signal
import subprocess
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from gateway.control.server import ControlServer
from gateway.record import Record
from gateway.runtime.status import DeviceStatus, DriverStatus
from gateway.runtime.supervisor import DriverHealth
from gateway.sync import LinkState
from gateway.testing.gateway import FakeGateway
from tests.cli.conftest import Run, start
from tests.queue.full_disk import needs_root, small_disk

RUNS = DriverStatus("simulated", DriverHealth(True, 0, None, 0), 0, 0, {}, 0, {})


def record(number: int, device: str = "press-4") -> Record:
    return Record(f"site/{device}", device, b'{"n": %d}' % number, 1_700_000_000_000 + number)


async def test_status_shows_all_an_operator_asks_for(gateway: FakeGateway, tidegate: Run) -> None:
    devices = {f"press-{n}": DeviceStatus(n, 0, 1_700_000_000_000, None, None) for n in range(20)}
    devices["pump-1"] = DeviceStatus(0, 1, None, "no answer", 1_700_000_000_000)
    gateway.drivers = {
        "floor": DriverStatus(
            "mqtt", DriverHealth(True, 0, None, 0), 1234, 1200, devices, 0, {"late answers": 3}
        ),
        "bus": DriverStatus("modbus", DriverHealth(False, 0, "/dev/ttyUSB0: gone", 3), 0, 0, {}, 0, {}),
    }
    gateway.link = replace(
        gateway.link, alarm="another gateway has this id", parked={"audit": "not authorised"}
    )
    gateway.needs_restart = ("queue.max_bytes",)
    await gateway.accept("floor", [record(n) for n in range(3)])
    text, as_json, every = await asyncio.gather(
        tidegate("status"), tidegate("status", "--json", "--verify"), tidegate("status", "--devices")
    )
    assert [text.code, as_json.code, every.code] == [0, 0, 0]
    for shown in (
        "plant-7  tidegate 0.1.0, up",
        "1,234",
        "failed, restarted 3 times",
        "floor counted: late answers 3",
        "/dev/ttyUSB0: gone",
        "no answer",
        "and 11 more; --devices shows all",
        "3 records wait, 24 B; the oldest came",
        "how long they wait depends on the topics that are not written",
        ", 1 h ago\n",
        "last error: kafka-1:9092: connection refused",
        "needs you: another gateway has this id",
        "topic audit is not written: not authorised",
        "25 MB/day to mmcblk0",
        "12 MB/day by tidegate itself",
        "a power cut loses: of what devices were told is accepted nothing; of what no device waits for at most the last 5 s",
        "only a restart brings it in: queue.max_bytes",
    ):
        assert shown in text.out
    assert "more; --devices" not in every.out
    assert "press-19" in every.out
    told = json.loads(as_json.out)
    assert (told["running"], told["gateway_id"], told["queue"]["lanes"]["main"]["pending"]) == (
        True,
        "plant-7",
        3,
    )
    assert told["verification"]["holds"] is True


async def test_what_a_device_calls_itself_and_says_moves_no_cursor(
    gateway: FakeGateway, tidegate: Run
) -> None:
    evil = "\x1b[2J\x9b2J\r\nall is well"
    failed = DeviceStatus(0, 1, None, evil, 1_700_000_000_000)
    health = DriverHealth(False, 0, evil, 1)
    gateway.drivers = {"floor": DriverStatus("mqtt", health, 0, 0, {f"press{evil}": failed}, 0, {})}
    gateway.link = replace(gateway.link, error=evil, alarm=evil, parked={"audit": evil})
    code, out, _ = await tidegate("status")
    assert code == 0
    assert not {*out} & {"\x1b", "\x9b", "\r"}
    assert out.count("\\x1b[2J\\x9b2J\\r\\nall is well") == 6


async def test_status_of_a_link_that_delivers(gateway: FakeGateway, tidegate: Run) -> None:
    gateway.link = replace(
        gateway.link, state=LinkState.LIVE, error=None, records_per_s=2.0, delivered={"main": 7}
    )
    await gateway.accept("floor", [record(n) for n in range(10)])
    gateway.drain_s = 5.0
    _, out, _ = await tidegate("status")
    assert "delivered in 5 s at the present 2 records/s" in out
    assert "delivered since the start: main 7 in 0 transactions" in out


async def test_a_broken_conservation_law_is_shown_and_is_exit_code_1(
    gateway: FakeGateway, tidegate: Run
) -> None:
    await gateway.accept("floor", [record(n) for n in range(3)])
    gateway.lost = 1
    code, out, _ = await tidegate("status", "--verify")
    assert code == 1
    assert "BROKEN: -1" in out


@pytest.mark.slow
async def test_without_a_gateway_status_shows_the_queue_and_says_so(site: Path, tidegate: Run) -> None:
    nothing = await tidegate("status")
    assert nothing == (66, "", "tidegate: data: no gateway runs here, and there is no queue either\n")
    gateway = await FakeGateway.open(site / "data")
    await gateway.accept("floor", [record(1)])
    busy = await tidegate("status")
    assert busy.code == 75
    assert busy.err == "tidegate: data: in use by another tidegate process\n"
    await gateway.queue.close()
    text, tail = await tidegate("status"), await tidegate("tail")
    assert text.code == 69
    assert text.out.startswith("No gateway runs with data_dir data. Its queue")
    assert (tail.code, tail.err) == (69, "tidegate: no gateway runs with data_dir data\n")
    as_json = await tidegate("status", "--json")
    told = json.loads(as_json.out)
    assert (told["running"], told["queue"]["stats"]["lanes"]["main"]["pending"]) == (False, 1)
    assert (await tidegate("status", "--verify")).code == 69


def remount(disk: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", disk], check=True)


@pytest.mark.slow
@needs_root
async def test_on_a_read_only_disk_status_says_that_a_gateway_may_be_waiting(
    site: Path, tidegate: Run
) -> None:
    """It answers nobody meanwhile."""
    (site / "data").rmdir()
    with small_disk(site / "data", 16) as disk:
        await asyncio.to_thread(remount, disk, "ro")
        run = await start(site, "run")
        assert run.stderr is not None
        async with asyncio.timeout(60):
            assert b"devices are refused until it can" in await run.stderr.readline()
        empty = await tidegate("status")
        await asyncio.to_thread(remount, disk, "rw")
        run.send_signal(signal.SIGHUP)
        async with asyncio.timeout(60):
            while (await tidegate("status")).code != 0:
                assert run.returncode is None
        run.terminate()
        await run.communicate()
        await asyncio.to_thread(remount, disk, "ro")
        filled = await tidegate("status")
    waits = (
        "; a gateway that was started waits, with nothing open, until it can be written: its log says so\n"
    )
    assert empty == (75, "", f"tidegate: data: its file system is read-only{waits}")
    assert filled == (75, "", f"tidegate: data/queue.lock: Read-only file system{waits}")


@pytest.mark.slow
async def test_of_a_damaged_database_status_says_what_is_gone_and_of_when(site: Path, tidegate: Run) -> None:
    gateway = await FakeGateway.open(site / "data")
    for number in range(100):
        await gateway.accept("floor", [Record("a", "b", os.urandom(3000), 1_700_000_000_000 + number)])
    await gateway.queue.close()
    with (site / "data/queue.db").open("r+b") as file:
        file.seek(60_000)
        file.write(bytes(20_000))
    (site / "data/queue.damaged").write_text("a page of it can't be read")
    offline = await tidegate("status")
    gateway = await FakeGateway.open(site / "data")
    server = ControlServer(gateway, gateway.gateway_id)
    await server.open_socket(site / "data/control.sock")
    live, as_json = await asyncio.gather(tidegate("status"), tidegate("status", "--json"))
    await server.close()
    await gateway.queue.close()
    story = json.loads(as_json.out)["queue"]["salvage"]["main"]
    saved, lost = story["records"], story["lost"]
    assert saved + story["lost_records"] == 100
    day = datetime.now().astimezone().strftime("%Y-%m-%d")
    for said in (
        "(a page of it can't be read)",
        f"{saved} waiting records were saved from it, at least {100 - saved} are not there",
        f"numbers {lost[0]['first']} to {lost[0]['last']}, stored ",
        day,
        "what was stored behind number 100 or later than",
        "data/quarantine/",
    ):
        for text in (offline.out, live.out):
            assert said in " ".join(text.split())


async def test_tail_shows_records_until_it_is_interrupted(gateway: FakeGateway, site: Path) -> None:
    gateway.drivers = {"floor": RUNS}
    text = await start(site, "tail", "floor", "--device", "press-4")
    as_json = await start(site, "tail", "--json")
    async with asyncio.timeout(30):
        for process in (text, as_json):
            assert process.stderr is not None
            assert await process.stderr.readline() == b"waiting for records\n"
    await gateway.accept("roof", [record(1)])
    await gateway.accept(
        "floor", [record(2), record(3, "press-5"), record(4)._replace(body=b"\x1b[2J\n\xc3\xa9")]
    )
    assert text.stdout is not None
    assert as_json.stdout is not None
    async with asyncio.timeout(30):
        lines = [(await text.stdout.readline()).decode() for _ in range(2)]
        told = [json.loads(await as_json.stdout.readline()) for _ in range(4)]
    assert lines[0].endswith(' floor press-4 site/press-4 {"n": 2}\n')
    assert lines[1].endswith(" floor press-4 site/press-4 \\x1b[2J\\né\n")
    assert [one["driver"] for one in told] == ["roof", "floor", "floor", "floor"]
    for process in (text, as_json):
        process.send_signal(signal.SIGINT)
        _, err = await process.communicate()
        assert (process.returncode, err) == (130, b"")


async def test_tail_of_a_driver_that_there_is_not(gateway: FakeGateway, tidegate: Run) -> None:
    """It waited for ever."""
    gateway.drivers = {"floor": RUNS, "roof": RUNS}
    code, _, err = await tidegate("tail", "nix")
    assert (code, err) == (
        64,
        "tidegate: the gateway that runs has no driver 'nix'; there are: floor, roof\n",
    )


async def test_a_mistake_that_came_into_the_file_keeps_nobody_from_the_gateway_that_runs(
    gateway: FakeGateway, tidegate: Run, site: Path
) -> None:
    await gateway.accept("floor", [record(1)])
    file = site / "tidegate.toml"
    file.write_text(file.read_text().replace("min_free_bytes", "min_fre_bytes"))
    runs = "tidegate.toml has mistakes, see `tidegate check`; the gateway runs on with the configuration that it has\n"
    status, waiting = await tidegate("status"), await tidegate("queue", "ls", "--json")
    assert (status.code, status.err) == (0, runs)
    assert status.out.startswith("plant-7")
    assert (waiting.code, waiting.err) == (0, runs)
    assert json.loads(waiting.out)["stats"]["lanes"]["main"]["pending"] == 1
    file.write_text(file.read_text().replace("plant-7", "plant 7"))
    code, _, err = await tidegate("status")
    assert code == 78
    assert "gateway.id" in err


@pytest.mark.slow
async def test_tail_ends_with_its_gateway_in_one_sentence(site: Path) -> None:
    with (site / "tidegate.toml").open("a") as file:
        file.write('[drivers.demo]\ntype = "simulated"\ninterval = "50 ms"\n')
    run = await start(site, "run")
    async with asyncio.timeout(60):
        while not (site / "data/control.sock").exists():  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        tail = await start(site, "tail")
        assert tail.stdout is not None
        assert b" demo demo-1 simulated/1 {" in await tail.stdout.readline()
        run.kill()
        await run.communicate()
        _, err = await tail.communicate()
    assert tail.returncode == 69
    waiting, end = err.decode().splitlines()
    assert waiting == "waiting for records"
    assert end.startswith("tidegate: data/control.sock: the ")


@pytest.mark.parametrize("environment", [{"PYTHONIOENCODING": "ascii"}, {"PYTHONIOENCODING": "latin-1"}])
async def test_what_the_locale_has_no_letter_for_is_escaped(
    gateway: FakeGateway, tidegate: Run, site: Path, environment: dict[str, str]
) -> None:
    """No device can end an operator's `tail` by its name or by what it sends."""
    gateway.drivers = {
        "floor": DriverStatus("mqtt", DriverHealth(True, 0, None, 0), 1, 1, {"печь": DeviceStatus(1, 0, 0, None, None)}, 0, {})
    }  # fmt: skip
    shown = await tidegate("status", **environment)
    assert (shown.code, shown.err) == (0, "")
    assert r"\u043f\u0435\u0447\u044c" in shown.out
    process = await start(site, "tail", **environment)
    assert process.stdout is not None
    assert process.stderr is not None
    assert await process.stderr.readline() == b"waiting for records\n"
    await gateway.accept("floor", [Record("oven", "печь", "200 \N{DEGREE FAHRENHEIT}".encode(), 0)])
    assert (await process.stdout.readline()).endswith(rb" \u043f\u0435\u0447\u044c oven 200 \u2109" + b"\n")
    process.send_signal(signal.SIGINT)
    assert await process.wait() == 130
