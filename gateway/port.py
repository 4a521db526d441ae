"""A serial port on the event loop, and which ports there are. The one module that imports pyserial, and only to open.

A port belongs to one program: flock keeps out whoever asks for it too, TIOCEXCL whoever doesn't (except root).
"""

import asyncio
import errno
import fcntl
import grp
import os
import re
import stat
import struct
import termios
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from gateway.errors import DeviceError
from gateway.settings import Form, setting

READ_BYTES = 4096
WRITE_BYTES_MAX = 65_536
"""What may wait for a slow line; more means that nothing goes out at all."""

BAUD_RATE_TOLERANCE = 0.02
"""A receiver that samples in the middle of ten bits bears about twice that, both ends together."""

DEV = Path("/dev")
DEVICE_GROUPS = Path("/proc/devices")
USB = r"usb:([0-9a-fA-F]{4}):([0-9a-fA-F]{4})(?::(.+))?"
TCGETS2, TCSETS2 = 0x802C542A, 0x402C542B
TERMIOS2 = struct.Struct("=I36xI")
"""struct termios2 of the kernel (asm-generic/termbits.h): input flags and, unlike termios, the speed as a number."""


@dataclass(frozen=True, kw_only=True)
class PortSettings:
    port: str = setting(
        doc="Device file, best one of /dev/serial/by-id, or usb:VID:PID or usb:VID:PID:SERIAL; `tidegate serial ports` lists them.",
        form=Form(rf"/.+|{USB}", 'a path that begins with "/", or "usb:VID:PID" or "usb:VID:PID:SERIAL"'),
        example='"/dev/serial/by-id/usb-FTDI_FT232R_USB_UART_A50285BI-if00-port0"',
    )
    baud_rate: int = setting(9600, minimum=50, maximum=4_000_000, doc="Bits a second.")
    data_bits: Literal[7, 8] = setting(8, doc="Bits of a character.")
    parity: Literal["none", "even", "odd"] = setting("none", doc="The bit that is sent along as a check.")
    stop_bits: Literal[1, 2] = setting(1, doc="Bits of rest after a character.")
    rs485: bool = setting(
        False,
        doc="Let the kernel switch an RS-485 transceiver by RTS; most adapters switch by themselves.",
    )

    @property
    def bits_per_character(self) -> int:
        """Bit times that one character takes on the line, start bit included."""
        return 1 + self.data_bits + (self.parity != "none") + self.stop_bits


class FoundPort(NamedTuple):
    """`by_id` is the link below /dev/serial/by-id, `usb` as in PortSettings.port; "" where there is none."""

    path: str
    by_id: str
    usb: str
    description: str


def ports() -> list[FoundPort]:
    """The serial ports of this machine, by path. Raises DeviceError if one goes just now."""
    from serial.tools.list_ports import comports

    try:
        listed = comports()
    except TypeError as error:
        # pyserial makes a number of what it could not read from the device any more.
        raise DeviceError("a port vanished while ports were listed") from error
    by_id = _links(DEV / "serial" / "by-id", "*")
    found = {}
    for port in listed:
        usb = "" if port.vid is None else f"usb:{port.vid:04x}:{port.pid:04x}"
        if usb and port.serial_number:
            usb += f":{port.serial_number}"
        found[port.device] = FoundPort(port.device, by_id.get(port.device, ""), usb, port.product or "")
    # Raspberry Pi OS links its own port here; pyserial leaves out the one at the mini UART.
    for path, link in _links(DEV, "serial[0-9]").items():
        found[path] = FoundPort(path, link, "", "built-in port")
    return [found[path] for path in sorted(found)]


def _links(folder: Path, pattern: str) -> dict[str, str]:
    return {str(link.resolve()): str(link) for link in sorted(folder.glob(pattern)) if link.is_symlink()}


def path_of(port: str, found: Sequence[FoundPort]) -> str:
    """The device file of a `port` setting, among the ports there are now. Raises DeviceError."""
    match = re.fullmatch(USB, port)
    if match is None:
        return port
    wanted = f"usb:{match[1]}:{match[2]}".lower()
    if match[3]:
        paths = [one.path for one in found if one.usb == f"{wanted}:{match[3]}"]
    else:
        paths = [one.path for one in found if f"{one.usb}:".startswith(f"{wanted}:")]
    if not paths:
        raise DeviceError(
            f"port {port}: no such adapter is plugged in; `tidegate serial ports` lists those that are"
        )
    if len(paths) > 1:
        raise DeviceError(
            f"port {port}: {len(paths)} ports fit, {', '.join(paths)}; name the adapter's serial number or a path in /dev/serial/by-id"
        )
    return paths[0]


class Port:
    """Open from `open` until `close` or `lost`."""

    def __init__(
        self,
        name: str,
        line: Any,
        received: Callable[[bytes], None],
        lost: Callable[[DeviceError], None],
    ) -> None:
        self._name = name
        self._line = line
        self._fd: int = line.fileno()
        self._received = received
        self._lost = lost
        self._waiting = bytearray()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._fd, self._read)

    @classmethod
    def open(
        cls,
        settings: PortSettings,
        received: Callable[[bytes], None],
        lost: Callable[[DeviceError], None],
    ) -> "Port":
        """What came before is discarded. Raises DeviceError: no such port, in use, not permitted, not possible.

        `received` gets bytes as they come; `lost` is called once, for a port that vanished or takes nothing more,
        and the port is closed by then.
        """
        path = path_of(settings.port, ports() if settings.port.startswith("usb:") else ())
        line = _open(path, settings)
        try:
            fcntl.ioctl(line.fileno(), termios.TIOCEXCL)
            speed = _configure(line.fileno())
        except OSError as error:
            line.close()
            raise DeviceError(f"port {settings.port}: {error.strerror}") from error
        if abs(speed - settings.baud_rate) > settings.baud_rate * BAUD_RATE_TOLERANCE:
            line.close()
            raise DeviceError(
                f"port {settings.port}: can't do {settings.baud_rate} baud, the nearest it can is {speed}"
            )
        return cls(settings.port, line, received, lost)

    def write(self, data: bytes) -> None:
        """Send without waiting. After the port was closed or lost it does nothing."""
        if self._fd < 0:
            return
        if len(self._waiting) + len(data) > WRITE_BYTES_MAX:
            self._loop.call_soon(self._lose, f"{len(self._waiting)} bytes wait and none goes out")
            return
        self._waiting += data
        self._send()

    def discard_input(self) -> None:
        """Forget what came and was not read yet."""
        if self._fd >= 0:
            with suppress(termios.error):
                termios.tcflush(self._fd, termios.TCIFLUSH)

    def close(self) -> None:
        if self._fd < 0:
            return
        self._loop.remove_reader(self._fd)
        self._loop.remove_writer(self._fd)
        with suppress(termios.error, OSError):
            # The kernel waits up to 30 s in close() for bytes that can't go out.
            termios.tcflush(self._fd, termios.TCOFLUSH)
            fcntl.ioctl(self._fd, termios.TIOCNXCL)
        self._fd = -1
        self._line.close()

    def _read(self) -> None:
        try:
            data = os.read(self._fd, READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._lose(str(error.strerror))
            return
        if data:
            self._received(data)
        else:
            self._lose("unplugged or closed at the other end")

    def _send(self) -> None:
        try:
            sent = os.write(self._fd, self._waiting)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._loop.call_soon(self._lose, str(error.strerror))
            return
        del self._waiting[:sent]
        if self._waiting:
            self._loop.add_writer(self._fd, self._send)
        else:
            self._loop.remove_writer(self._fd)

    def _lose(self, reason: str) -> None:
        if self._fd < 0:
            return
        self.close()
        self._lost(DeviceError(f"port {self._name}: {reason}"))


def _open(path: str, settings: PortSettings) -> Any:
    from serial import PARITY_EVEN, PARITY_NONE, PARITY_ODD, Serial, SerialException
    from serial.rs485 import RS485Settings

    line = Serial()
    line.port = path
    line.exclusive = True
    line.baudrate = settings.baud_rate
    line.bytesize = settings.data_bits
    line.parity = {"none": PARITY_NONE, "even": PARITY_EVEN, "odd": PARITY_ODD}[settings.parity]
    line.stopbits = settings.stop_bits
    # VMIN 1: a read without data says EAGAIN, and an empty one that the line is gone.
    line.inter_byte_timeout = 0
    if settings.rs485:
        line.rs485_mode = RS485Settings()
    try:
        line.open()
    except SerialException as error:
        raise DeviceError(f"port {settings.port}: {_reason(path, error)}") from error
    except termios.error as error:
        raise DeviceError(f"port {settings.port}: {error.args[-1]}") from error
    except ValueError as error:
        if settings.rs485 and "RS485" in str(error):
            raise DeviceError(
                f"port {settings.port}: its kernel driver has no RS-485 mode; an adapter that switches by itself needs rs485 = false"
            ) from error
        raise DeviceError(f"port {settings.port}: {error}") from error
    return line


def _reason(path: str, error: OSError) -> str:
    match error.errno:
        case errno.ENOENT | errno.ENXIO | errno.ENODEV:
            return "there is no such port; is the device plugged in? `tidegate serial ports` lists those there are"
        case errno.EAGAIN | errno.EBUSY:
            return "in use by another program"
        case errno.EACCES:
            return f"no permission; {_permit(path)}"
        case errno.EPERM:
            return f"closed to this service; {_admit(path)}"
        case None:
            return "is not a serial port"
        case number:
            return os.strerror(number)


def _permit(path: str) -> str:
    """What lets a user open the port: to be in its group, dialout on Debian, where that may read and write it."""
    try:
        found = os.stat(path)
        group = grp.getgrgid(found.st_gid).gr_name
    except OSError:
        return "its folder may not be looked into"
    except KeyError:
        group = ""
    for_group = stat.S_IRGRP | stat.S_IWGRP
    if found.st_mode & for_group == for_group and group not in ("", "root"):
        return f"the user must be in the group {group}: usermod -aG {group} USER"
    return (
        f"it is {stat.filemode(found.st_mode)} and of the group {group or found.st_gid}. Give it to the group dialout, with the user in that, "
        f'by a udev rule with GROUP="dialout", MODE="0660", or until it is plugged in again: chgrp dialout {path} && '
        f"chmod 660 {path}"
    )


def _admit(path: str) -> str:
    return (
        f"its unit needs DeviceAllow=char-{_device_group(path)} rw (systemctl edit tidegate, then restart it), a container this port "
        "among its devices"
    )


def _device_group(path: str) -> str:
    """As /proc/devices has it, where systemd looks the name up."""
    real = Path(path).resolve()
    try:
        major = os.major(real.stat().st_rdev)
    except OSError:
        return "NAME"
    characters = DEVICE_GROUPS.read_text().partition("Block devices")[0]
    names = re.findall(rf"^ *{major} (.+)$", characters, re.MULTILINE)
    return max(names, key=lambda name: (real.name.startswith(name), len(name)), default="NAME")


def _configure(fd: int) -> int:
    """Let a byte with a wrong parity or stop bit come as NUL, where pyserial lets it pass as if it were right.

    Returns the speed: a driver that can't do the one it was asked for takes the nearest, and says so only here.
    """
    settings = bytearray(TERMIOS2.size)
    fcntl.ioctl(fd, TCGETS2, settings)
    flags, speed = TERMIOS2.unpack(settings)
    struct.pack_into("=I", settings, 0, flags & ~termios.IGNPAR | termios.INPCK)
    fcntl.ioctl(fd, TCSETS2, settings)
    return int(speed)
