"""`try` prints what a driver reads, stores nothing, and never lets a device believe otherwise."""

import asyncio
import json
from pathlib import Path

import pytest

from gateway.cli.trial import TrialEmit
from tests.cli.conftest import Run, start

pytestmark = pytest.mark.slow

DRIVERS = """
[drivers.sim]
type = "simulated"
interval = "10 ms"
[drivers.web]
type = "http"
listen = "127.0.0.1:{port}"
anonymous = true
"""


@pytest.fixture
def with_drivers(site: Path, unused_tcp_port: int) -> int:
    with (site / "tidegate.toml").open("a") as file:
        file.write(DRIVERS.format(port=unused_tcp_port))
    return unused_tcp_port


async def test_it_prints_so_many_records_and_leaves_no_queue(
    tidegate: Run, site: Path, with_drivers: int
) -> None:
    text, as_json = await asyncio.gather(
        tidegate("try", "sim", "-n", "3"), tidegate("try", "sim", "-n", "2", "--json")
    )
    assert (text.code, as_json.code) == (0, 0)
    assert len(text.out.splitlines()) == 3
    assert "sim-1 simulated/1" in text.out
    first, _ = map(json.loads, as_json.out.splitlines())
    assert json.loads(first["body"])["device"] == first["device"] == "sim-1"
    assert list((site / "data").iterdir()) == []


async def test_a_device_that_waits_is_refused(site: Path, with_drivers: int) -> None:
    process = await start(site, "try", "web", "-n", "1")
    answer = b""
    async with asyncio.timeout(30):
        while not answer:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", with_drivers)
            except ConnectionRefusedError:
                await asyncio.sleep(0.02)
                continue
            writer.write(b"POST /ingest/site/x HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n1")
            answer = await reader.readline()
            writer.close()
        out, _ = await process.communicate()
    assert answer.split()[1] == b"503"
    assert out.rstrip().endswith(b"web site/x site/x 1")


async def test_what_can_not_be_tried(tidegate: Run, with_drivers: int) -> None:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", with_drivers)
    async with server:
        unknown, taken = await asyncio.gather(tidegate("try", "bus"), tidegate("try", "web"))
    assert (unknown.code, taken.code) == (64, 69)
    assert "no driver 'bus' in the configuration; there are: sim, web" in unknown.err
    assert str(with_drivers) in taken.err


def test_what_a_device_says_stays_on_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    async def fail() -> None:
        TrialEmit("field", False, None).device_failed("press\x1b[2J", "refused\nmill failed: \x9b2J")

    asyncio.run(fail())
    assert capsys.readouterr().err == "press\\x1b[2J failed: refused\\nmill failed: \\x9b2J\n"
