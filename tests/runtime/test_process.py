"""`tidegate run` as systemd and people meet it: a process that ends when told to, and takes up a new configuration."""

import asyncio
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from gateway.testing.kafka import free_ports
from tests.queue.full_disk import fill, needs_root, small_disk

TIDEGATE = Path(sys.executable).with_name("tidegate")
WITHIN_S = 30.0


def configuration(kafka: str, **ports: int) -> str:
    head = f"""\
[gateway]
id = "plant-7"
data_dir = "data"
default_topic = "telemetry"
[queue]
min_free_bytes = "0 B"
[kafka]
bootstrap_servers = ["{kafka}"]
"""
    driver = '[drivers.{}]\ntype = "http"\nlisten = "127.0.0.1:{}"\nanonymous = true\n'
    return head + "".join(driver.format(name, port) for name, port in ports.items())


@asynccontextmanager
async def running(folder: Path, text: str | None, port: int) -> AsyncIterator[Process]:
    """From the moment that its driver on `port` answers. No `text`: the configuration is there."""
    if text is not None:
        (folder / "tidegate.toml").write_text(text)
    process = await asyncio.create_subprocess_exec(TIDEGATE, "run", cwd=folder, stderr=PIPE, umask=0o022)
    try:
        async with device_on(port):
            pass
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@asynccontextmanager
async def device_on(port: int) -> AsyncIterator["Device"]:
    """As soon as somebody listens there."""
    async with asyncio.timeout(WITHIN_S):
        while True:
            try:
                device = Device(*await asyncio.open_connection("127.0.0.1", port))
                break
            except OSError:
                await asyncio.sleep(0.02)
    yield device
    device.writer.transport.abort()


class Device(NamedTuple):
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def post(self, body: bytes) -> int:
        """The answer's status."""
        request = b"POST /ingest/a HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s"
        self.writer.write(request % (len(body), body))
        async with asyncio.timeout(WITHIN_S):
            head = await self.reader.readuntil(b"\r\n\r\n")
            await self.reader.readuntil(b"}\n")
        return int(head.split()[1])


@pytest.mark.parametrize("kafka", ["down", "hanging"])
async def test_it_ends_by_itself_whatever_kafka_does(kafka: str, tmp_path: Path) -> None:
    """Its last words tell that it was not ended by force, which comes 4.5 s after the signal."""
    silent = socket.create_server(("127.0.0.1", 0))
    [port] = free_ports(1)
    address = "127.0.0.1:1" if kafka == "down" else f"127.0.0.1:{silent.getsockname()[1]}"
    with silent:
        async with running(tmp_path, configuration(address, web=port), port) as process:
            async with device_on(port) as device:
                assert await device.post(b"1") == 200
            process.terminate()
            async with asyncio.timeout(WITHIN_S):
                _, told = await process.communicate()
    assert process.returncode == 0
    assert b"1 records wait for the next start" in told, told.decode()


async def test_what_devices_said_is_not_for_every_user_of_the_board(tmp_path: Path) -> None:
    [port] = free_ports(1)
    async with (
        running(tmp_path, configuration("127.0.0.1:1", web=port), port) as process,
        device_on(port) as device,
    ):
        assert await device.post(b"1") == 200
        files = [path for path in (tmp_path / "data").iterdir() if path.is_file()]
        assert {"queue.db", "queue.db-wal"} <= {path.name for path in files}
        assert [path.name for path in files if path.stat().st_mode & 0o027] == []
        process.terminate()
        await process.communicate()


@pytest.mark.slow
@needs_root
async def test_on_a_full_disk_it_starts_and_refuses_devices(tmp_path: Path) -> None:
    [port] = free_ports(1)
    text = configuration("127.0.0.1:1", web=port)
    with small_disk(tmp_path / "disk", 16) as disk:
        async with running(disk, text, port) as process:
            async with device_on(port) as device:
                assert await device.post(b"1") == 200
            process.terminate()
            await process.communicate()
        others = fill(disk)
        async with running(disk, None, port) as process:
            async with device_on(port) as device:
                assert await device.post(b"2") == 503
                others.unlink()
                async with asyncio.timeout(WITHIN_S):
                    while await device.post(b"2") != 200:  # noqa: ASYNC110
                        await asyncio.sleep(0.1)
            process.terminate()
            _, told = await process.communicate()
        assert b"2 records wait for the next start" in told, told.decode()


async def test_a_new_configuration_restarts_only_what_changed(tmp_path: Path) -> None:
    kept, before, after = free_ports(3)
    text = configuration("127.0.0.1:1", kept=kept, moved=before)
    async with (
        running(tmp_path, text, kept) as process,
        device_on(kept) as device,
        device_on(before) as moved,
    ):
        assert await device.post(b"1") == 200
        (tmp_path / "tidegate.toml").write_text(text.replace(f":{before}", f":{after}"))
        process.send_signal(signal.SIGHUP)
        async with device_on(after) as again:
            assert await again.post(b"2") == 200
        assert await moved.reader.read() == b""
        assert await device.post(b"3") == 200
        (tmp_path / "tidegate.toml").write_text(text.replace("anonymous", "anonimous"))
        process.send_signal(signal.SIGHUP)
        assert process.stderr is not None
        async with asyncio.timeout(WITHIN_S):
            while b"the old configuration stays in force" not in (line := await process.stderr.readline()):
                assert line, "it ended"
            told = await process.stderr.readline()
            assert b"did you mean 'anonymous'" in told
            assert b" error " in told
        assert await device.post(b"4") == 200
