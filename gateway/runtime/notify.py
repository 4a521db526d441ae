"""What systemd is told (sd_notify(3)): READY, STATUS, WATCHDOG, STOPPING. Silent when systemd did not start us."""

import os
import socket
from contextlib import suppress


class Notify:
    """Datagrams to $NOTIFY_SOCKET. A message that can't be sent is given up: nobody is there to read it.

    The socket is opened once: where descriptors run out, the watchdog must still be told that the loop turns.
    """

    def __init__(self) -> None:
        address = os.environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._sender.setblocking(False)

    @property
    def is_heard(self) -> bool:
        return bool(self._address)

    def __call__(self, *assignments: str) -> None:
        if not self._address:
            return
        with suppress(OSError):
            self._sender.sendto("\n".join(assignments).encode(), self._address)

    def close(self) -> None:
        self._sender.close()


def watchdog_interval_s() -> float | None:
    """Half of what systemd allows between two WATCHDOG=1; None if it doesn't watch this process."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    try:
        return int(os.environ["WATCHDOG_USEC"]) / 2e6
    except (KeyError, ValueError):
        return None
