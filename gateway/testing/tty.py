"""A device on a serial line without a wire: a pseudo-terminal that can be unplugged and plugged in again."""

import asyncio
import os
import tty
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


class Device:
    """`path` is a link, as udev makes them: it stays while what it points to comes and goes.

    `answers` is called with what the gateway wrote; what it returns is sent.
    """

    def __init__(self, path: Path, answers: Callable[[bytes], bytes] = lambda asked: b"") -> None:
        self.path = path
        self._answers = answers
        self._fd = -1
        self.plug()

    def plug(self) -> None:
        self._fd, slave = os.openpty()
        tty.setraw(slave)
        os.set_blocking(self._fd, False)
        self.path.unlink(missing_ok=True)
        self.path.symlink_to(os.ttyname(slave))
        # While nobody else has it open, reading from our end would fail.
        self._slave = slave
        asyncio.get_running_loop().add_reader(self._fd, self._read)

    def unplug(self) -> None:
        if self._fd < 0:
            return
        asyncio.get_running_loop().remove_reader(self._fd)
        os.close(self._fd)
        os.close(self._slave)
        self._fd = -1
        self.path.unlink(missing_ok=True)

    def send(self, data: bytes) -> None:
        """Raises BlockingIOError if the gateway doesn't read as fast."""
        if os.write(self._fd, data) < len(data):
            raise BlockingIOError

    def _read(self) -> None:
        with suppress(BlockingIOError):
            data = os.read(self._fd, 4096)
            self.send(self._answers(data))
