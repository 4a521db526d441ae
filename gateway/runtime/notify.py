"""What systemd is told (sd_notify(3)): READY, STATUS, WATCHDOG, STOPPING. Silent when systemd did not start us."""

import os
import socket


class Notify:
    """Datagrams to $NOTIFY_SOCKET. A message that can't be sent is given up: nobody is there to read it."""

    def __init__(self) -> None:
        address = os.environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address

    def __call__(self, *assignments: str) -> None:
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.setblocking(False)
            try:
                sender.sendto("\n".join(assignments).encode(), self._address)
            except OSError:
                return


def watchdog_interval_s() -> float | None:
    """Half of what systemd allows between two WATCHDOG=1; None if it doesn't watch this process."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    try:
        return int(os.environ["WATCHDOG_USEC"]) / 2e6
    except (KeyError, ValueError):
        return None
