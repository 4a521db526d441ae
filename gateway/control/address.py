"""Where the control socket is, found by the gateway and by the command line alike."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

RUN = Path("/run/tidegate")
"""systemd's RuntimeDirectory= of our unit."""

PROBE_TIMEOUT_S = 5.0


def candidates(gateway_id: str, data_dir: Path) -> list[Path]:
    """Paths to look at, in order. The one in the data directory is there without systemd."""
    return [RUN / f"{gateway_id}.sock", data_dir / "control.sock"]


def to_serve_on(gateway_id: str, data_dir: Path) -> Path:
    in_run, in_data = candidates(gateway_id, data_dir)
    return in_run if os.access(RUN, os.W_OK | os.X_OK) else in_data


@contextmanager
def short(path: Path) -> Iterator[str]:
    """The same socket by a name that fits into an address of 107 bytes. Raises OSError."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def answers(path: Path) -> bool:
    """Whether somebody listens; a socket's file may outlive its process. Raises PermissionError."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(PROBE_TIMEOUT_S)
        try:
            with short(path) as name:
                probe.connect(name)
        except PermissionError:
            raise
        except OSError:
            return False
    return True
