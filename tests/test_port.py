"""Serial ports on pseudo-terminals: the kernel's tty layer is real, only the wire is not."""

import asyncio
import grp
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from fcntl import ioctl
from pathlib import Path

import pytest

from gateway.errors import DeviceError
from gateway.port import WRITE_BYTES_MAX, FoundPort, Port, PortSettings, path_of, ports
from gateway.testing.conformance import settled

NOBODY = 65534
DEVICES = Path("/sys/fs/cgroup/devices")


class Line:
    """A pseudo-terminal: the test holds the device's end, the port opens `path`."""

    def __init__(self) -> None:
        self.device, self.slave = pty.openpty()
        self.path = os.ttyname(self.slave)
        tty.setraw(self.slave)
        self.came = bytearray()
        self.losses: list[str] = []

    def open(self, **settings: object) -> Port:
        made = PortSettings(port=self.path, **settings)  # type: ignore[arg-type]
        return Port.open(made, self.came.extend, lambda error: self.losses.append(str(error)))

    def unplug(self) -> None:
        os.close(self.device)
        self.device = -1


@pytest.fixture
def line() -> Iterator[Line]:
    made = Line()
    yield made
    os.close(made.slave)
    if made.device >= 0:
        os.close(made.device)


def stty(path: str, *words: str) -> None:
    subprocess.run(["stty", "-F", path, *words], check=True)


async def until(condition: Callable[[], bool]) -> None:
    await settled(condition, "it did not happen")


async def test_bytes_pass_both_ways_unchanged(line: Line) -> None:
    stty(line.path, "sane", "ixon", "ixoff", "igncr", "ocrnl")
    port = line.open(baud_rate=115_200)
    every = bytes(range(256))
    os.write(line.device, every)
    await until(lambda: len(line.came) >= len(every))
    assert line.came == every
    port.write(every)
    assert os.read(line.device, 1000) == every
    port.close()
    assert line.losses == []


@pytest.mark.parametrize("baud_rate", [50, 9600, 10_400, 123_456, 4_000_000])
async def test_a_speed_is_set_whether_it_has_a_name_or_not(line: Line, baud_rate: int) -> None:
    port = line.open(baud_rate=baud_rate)
    assert struct.unpack_from("=I", ioctl(line.device, 0x802C542A, bytes(44)), 40)[0] == baud_rate
    port.close()


async def test_damaged_bytes_are_not_taken_for_right_ones(line: Line) -> None:
    """A pseudo-terminal damages none; that the kernel was told what to do with them can be seen."""
    stty(line.path, "ignpar", "parmrk", "istrip")
    port = line.open(baud_rate=123_456, parity="even")
    flags = termios.tcgetattr(line.device)[0]
    assert flags & termios.INPCK
    assert not flags & (termios.IGNPAR | termios.PARMRK | termios.ISTRIP)
    port.close()


async def test_a_port_is_for_one_program(line: Line) -> None:
    port = line.open()
    with pytest.raises(DeviceError, match=f"port {line.path}: in use by another program"):
        line.open()
    os.write(line.device, b"still mine")
    await until(lambda: line.came == b"still mine")
    port.close()
    line.open().close()


@contextmanager
def nobody() -> Iterator[None]:
    if os.geteuid():
        pytest.skip("only root can become somebody else")
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


async def test_programs_that_ask_for_nothing_are_kept_out_too(line: Line) -> None:
    os.chmod(line.path, 0o666)  # noqa: S103
    port = line.open()
    with nobody(), pytest.raises(OSError, match="busy"):
        os.open(line.path, os.O_RDWR)
    port.close()
    with nobody():
        os.close(os.open(line.path, os.O_RDWR | os.O_NOCTTY))


@pytest.mark.parametrize(
    ("mode", "group", "told"),
    [
        (0o660, "daemon", "the user must be in the group daemon: usermod -aG daemon USER"),
        (0o600, "daemon", "it is crw------- and of the group daemon. Give it to the group dialout"),
        (0o620, "daemon", "it is crw--w---- and of the group daemon. Give it to the group dialout"),
        (0o600, "root", "it is crw------- and of the group root. Give it to the group dialout"),
    ],
)
async def test_without_permission_the_error_says_what_helps(
    line: Line, mode: int, group: str, told: str
) -> None:
    """To be in a group that may not do more than others helps nobody, and root's is for nobody."""
    os.chmod(line.path, mode)
    os.chown(line.path, -1, grp.getgrnam(group).gr_gid)
    with nobody(), pytest.raises(DeviceError) as raised:
        line.open()
    assert str(raised.value).startswith(f"port {line.path}: no permission; {told}")
    assert ("usermod" in str(raised.value)) == (mode == 0o660)


@pytest.mark.skipif(not os.access(DEVICES / "devices.allow", os.W_OK), reason="no cgroup of devices here")
async def test_what_the_unit_does_not_allow_is_told_with_the_line_that_would(line: Line) -> None:
    group = DEVICES / f"tidegate-{os.getpid()}"
    group.mkdir()
    try:
        (group / "devices.deny").write_text(f"c {os.major(os.stat(line.path).st_rdev)}:* rwm")
        program = f"from gateway.port import *; Port.open(PortSettings(port={line.path!r}), print, print)"
        done = await asyncio.to_thread(
            subprocess.run,
            [
                "sh",
                "-c",
                'echo $$ >"$1"; shift; exec "$@"',
                "-",
                str(group / "cgroup.procs"),
                sys.executable,
                "-c",
                program,
            ],
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        group.rmdir()
    assert f"port {line.path}: closed to this service; its unit needs DeviceAllow=char-pts rw" in done.stderr


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/dev/does-not-exist", "there is no such port"),
        ("/dev/null", "is not a serial port"),
        ("/tmp", "Is a directory"),
        ("usb:ffff:0001:X", "no such adapter is plugged in"),
    ],
)
async def test_what_is_no_port_is_named(path: str, reason: str) -> None:
    with pytest.raises(DeviceError, match=f"port {path}: .*{reason}"):
        Port.open(PortSettings(port=path), lambda data: None, lambda error: None)


async def test_rs485_needs_a_kernel_driver_that_has_it(line: Line) -> None:
    with pytest.raises(DeviceError, match="needs rs485 = false"):
        line.open(rs485=True)
    line.open().close()


async def test_a_port_that_vanishes_is_lost_once(line: Line) -> None:
    port = line.open()
    os.write(line.device, b"last words")
    await until(lambda: bool(line.came))
    line.unplug()
    await until(lambda: bool(line.losses))
    port.write(b"too late")
    port.discard_input()
    port.close()
    await asyncio.sleep(0)
    assert len(line.losses) == 1
    assert line.path in line.losses[0]


async def test_writing_to_a_line_that_takes_nothing_neither_blocks_nor_grows(line: Line) -> None:
    port = line.open()
    port.write(b"x" * WRITE_BYTES_MAX)
    assert line.losses == []
    port.write(b"x" * WRITE_BYTES_MAX)
    await until(lambda: bool(line.losses))
    assert "none goes out" in line.losses[0]


async def test_what_waits_goes_out_when_the_line_takes_it(line: Line) -> None:
    port = line.open()
    sent = os.urandom(WRITE_BYTES_MAX)
    port.write(sent)
    got = bytearray()
    os.set_blocking(line.device, False)

    def read() -> bool:
        with suppress(BlockingIOError):
            got.extend(os.read(line.device, 4096))
        return len(got) >= len(sent)

    await until(read)
    assert got == sent
    port.close()


async def test_discarded_input_is_no_lost_line(line: Line) -> None:
    """The loop has been told that there is something to read when it is discarded."""
    port = line.open()
    for _ in range(5):
        os.write(line.device, b"old")
        select.select([line.slave], [], [], 5)
        await asyncio.sleep(0)
        port.discard_input()
    await asyncio.sleep(0)
    os.write(line.device, b"new")
    await until(lambda: line.came.endswith(b"new"))
    assert line.losses == []
    port.close()


async def test_nothing_is_left_behind(line: Line) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        line.open().close()
    assert len(os.listdir("/proc/self/fd")) == before
    attributes = termios.tcgetattr(line.device)
    assert attributes[3] & (termios.ECHO | termios.ICANON) == 0


FOUND = [
    FoundPort("/dev/ttyUSB0", "/dev/serial/by-id/a", "usb:0403:6001:A50285BI", ""),
    FoundPort("/dev/ttyUSB1", "", "usb:0403:6001:B7", ""),
    FoundPort("/dev/ttyUSB2", "", "usb:1a86:7523", ""),
    FoundPort("/dev/ttyAMA0", "", "", ""),
]


@pytest.mark.parametrize(
    ("port", "path"),
    [
        ("/dev/ttyAMA0", "/dev/ttyAMA0"),
        ("usb:0403:6001:B7", "/dev/ttyUSB1"),
        ("usb:1A86:7523", "/dev/ttyUSB2"),
    ],
)
def test_a_usb_port_is_found_by_what_it_is(port: str, path: str) -> None:
    assert path_of(port, FOUND) == path


@pytest.mark.parametrize(
    ("port", "reason"),
    [
        ("usb:0403:6001", "2 ports fit, /dev/ttyUSB0, /dev/ttyUSB1; name the adapter's serial number"),
        ("usb:0403:6001:a50285bi", "no such adapter"),
        ("usb:1A86:7523:C1", "no such adapter"),
    ],
)
def test_a_usb_port_that_is_not_one_is_an_error(port: str, reason: str) -> None:
    with pytest.raises(DeviceError, match=reason):
        path_of(port, FOUND)


def test_listed_ports_are_device_files() -> None:
    for port in ports():
        assert Path(port.path).exists()


@pytest.mark.parametrize(
    ("settings", "bits"),
    [
        (PortSettings(port="/dev/x"), 10),
        (PortSettings(port="/dev/x", parity="even"), 11),
        (PortSettings(port="/dev/x", data_bits=7, parity="odd", stop_bits=2), 11),
    ],
)
def test_bits_of_a_character_on_the_line(settings: PortSettings, bits: int) -> None:
    assert settings.bits_per_character == bits
