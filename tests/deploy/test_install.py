"""The wheel in a clean root, started as the unit starts it, under another user: it says READY, stores, and ends."""

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.testing.kafka import free_ports
from tests.deploy import unit

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

NOBODY = 65_534
CONFIG = """
[gateway]
id = "installed"
data_dir = "{data}"
default_topic = "telemetry"
[queue]
min_free_bytes = "1 MiB"
[kafka]
bootstrap_servers = ["127.0.0.1:1"]
[drivers.web]
type = "http"
listen = "127.0.0.1:{port}"
anonymous = true
"""


@pytest.fixture
def root() -> Iterator[Path]:
    """Not pytest's own directory: the other user couldn't enter it."""
    folder = Path(tempfile.mkdtemp(prefix="tidegate-root-", dir="/var/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def install(root: Path, action: str, *more: str) -> None:
    """With the umask of a root who keeps everything to himself."""
    script = unit.ROOT / "deploy" / "install.sh"
    subprocess.run(
        ["sh", str(script), action, "--root", str(root), *more], check=True, timeout=200, umask=0o077
    )


def test_the_wheel_runs_as_the_unit_says(root: Path, tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(tmp_path), str(unit.ROOT)],
        check=True,
    )
    [wheel] = tmp_path.glob("*.whl")
    install(root, "install", "--wheel", str(wheel))
    assert "tidegate.toml" in os.listdir(root / "etc/tidegate")
    for private, mode in {
        "etc/tidegate": 0o750,
        "etc/tidegate/credentials": 0o700,
        "var/lib/tidegate": 0o750,
    }.items():
        assert stat.S_IMODE((root / private).stat().st_mode) == mode
    [port] = free_ports(1)
    data = root / "var/lib/tidegate"
    config = root / "etc/tidegate/tidegate.toml"
    config.write_text(CONFIG.format(data=data, port=port))
    for path in (root / "etc/tidegate", config, data):
        os.chown(path, *user())
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(root / "notify"))
        (root / "notify").chmod(0o777)
        systemd.settimeout(30)
        command = [str(root) + word if word.startswith("/") else word for word in unit.exec_start()]
        environment = {"PATH": os.defpath, "NOTIFY_SOCKET": str(root / "notify"), "WATCHDOG_USEC": "2000000"}
        started = subprocess.Popen(
            command, env=environment, user=user()[0], group=user()[1], extra_groups=[], stderr=subprocess.PIPE
        )
        try:
            told = systemd.recv(4096)
            while b"READY=1" not in told:
                told = systemd.recv(4096)
            assert post(f"http://127.0.0.1:{port}/ingest/press/4") == 200
            while b"WATCHDOG=1" not in told:
                told = systemd.recv(4096)
        finally:
            started.send_signal(signal.SIGTERM)
            _, errors = started.communicate(timeout=5)
        assert started.returncode == 0, errors.decode()
        while b"STOPPING=1" not in told:
            told = systemd.recv(4096)
    install(root, "uninstall")
    assert (data / "queue.db").exists()
    assert not (root / "opt/tidegate").exists()


def post(url: str) -> int:
    """READY says that the queue is open; a driver may need a moment longer."""
    deadline = time.monotonic() + 10
    while True:
        try:
            with urllib.request.urlopen(url, data=b"1", timeout=10) as answer:  # noqa: S310
                return int(answer.status)
        except urllib.error.URLError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def user() -> tuple[int, int]:
    """Only root may become another user."""
    return (NOBODY, NOBODY) if os.getuid() == 0 else (os.getuid(), os.getgid())
