"""What systemd does for a gateway: it listens whether it is alive, and ends it with SIGABRT when it is not."""

import asyncio
import signal
import socket
import time
from asyncio.subprocess import Process
from pathlib import Path

PATIENCE_S = 2.0


class Watchdog:
    """`environment` is for the process."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)
        self.environment = {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": f"{PATIENCE_S * 1e6:.0f}"}

    def close(self) -> None:
        self._socket.close()

    async def starves(self, within_s: float) -> bool:
        """Whether it is not fed for longer than its patience."""
        loop = asyncio.get_running_loop()
        deadline, fed = time.monotonic() + within_s, time.monotonic()
        while time.monotonic() < deadline:
            patience_s = fed + PATIENCE_S - time.monotonic()
            try:
                async with asyncio.timeout(max(0.0, patience_s)):
                    message = await loop.sock_recv(self._socket, 4096)
            except TimeoutError:
                return True
            if b"WATCHDOG=1" in message:
                fed = time.monotonic()
        return False

    async def bite(self, process: Process) -> None:
        process.send_signal(signal.SIGABRT)
        await process.wait()
