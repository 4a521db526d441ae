"""The gateway as a child process, watched from outside: /proc for what it costs, its control socket for how far it is."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

TICKS = os.sysconf("SC_CLK_TCK")
CONFIG = """
[gateway]
id = "{id}"
data_dir = "{data_dir}"
default_topic = "{topic}"
[queue]
max_bytes = "4 GiB"
min_free_bytes = "64 MiB"
[kafka]
bootstrap_servers = ["{kafka}"]
{kafka_extra}
[log]
level = "warning"
[drivers.floor]
type = "mqtt"
listen = "127.0.0.1:{port}"
anonymous = true
[[routes]]
from = "floor"
match = "site/+/telemetry"
topic = "{topic}"
key = "{{1}}"
"""


class Cost(NamedTuple):
    """Since the process began."""

    cpu_s: float
    written_bytes: int
    rss_bytes: int

    def since(self, before: "Cost") -> "Cost":
        return Cost(
            self.cpu_s - before.cpu_s,
            self.written_bytes - before.written_bytes,
            self.rss_bytes - before.rss_bytes,
        )


class Gateway:
    """A context manager. `around` is put before the command, such as strace with its options; `extra` is TOML for [kafka],
    `drivers` for more drivers than the MQTT one."""

    def __init__(
        self,
        folder: Path,
        kafka: str,
        topic: str,
        port: int,
        *,
        id: str = "bench",
        around: Sequence[str] = (),
        extra: str = "",
        drivers: str = "",
    ) -> None:
        self.port = port
        self._folder = folder
        self._around = around
        folder.mkdir(parents=True, exist_ok=True)
        self._config = folder / "tidegate.toml"
        self._socket = folder / "data" / "control.sock"
        text = CONFIG.format(
            id=id, data_dir=folder / "data", kafka=kafka, topic=topic, port=port, kafka_extra=extra
        )
        self._config.write_text(text + drivers)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end(signal.SIGTERM)

    def start(self) -> None:
        command = Path(sys.executable).with_name("tidegate")
        log = (self._folder / "gateway.log").open("ab")
        self._process = subprocess.Popen(
            [*self._around, str(command), "run", "-c", str(self._config)], stderr=log, stdout=log
        )
        log.close()
        until(self._listening, 30, f"the gateway did not start; see {self._folder / 'gateway.log'}")

    def end(self, number: int) -> None:
        if self._process.poll() is None:
            os.kill(self.pid, number)
        self._process.wait(20)

    @property
    def pid(self) -> int:
        """Of the gateway itself, not of what is around it."""
        if not self._around:
            return self._process.pid
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        return int(children[0]) if children else self._process.pid

    def cost(self) -> Cost:
        proc = Path(f"/proc/{self.pid}")
        fields = (proc / "stat").read_text().rpartition(")")[2].split()
        written = next(
            int(line.split()[1])
            for line in (proc / "io").read_text().splitlines()
            if line.startswith("write_bytes")
        )
        rss = next(
            int(line.split()[1])
            for line in (proc / "status").read_text().splitlines()
            if line.startswith("VmRSS")
        )
        return Cost((int(fields[11]) + int(fields[12])) / TICKS, written, rss * 1024)

    def status(self) -> Any:
        return _get(self._socket, "/status")

    def delivered(self) -> int:
        return int(self.status()["queue"]["lanes"]["main"]["delivered"])

    def stored(self) -> int:
        return int(self.status()["queue"]["lanes"]["main"]["stored"])

    def wait_delivered(self, count: int, within_s: float = 600) -> None:
        until(lambda: self.delivered() >= count, within_s, f"Kafka has not got {count} records")

    def wait_live(self) -> None:
        until(lambda: self.status()["link"]["state"] == "live", 60, "the gateway does not reach Kafka")

    def _listening(self) -> bool:
        if self._process.poll() is not None:
            raise SystemExit(f"the gateway ended: {(self._folder / 'gateway.log').read_text()[-2000:]}")
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


def until(condition: Callable[[], bool], within_s: float, complaint: str) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(complaint)
        time.sleep(0.05)


def _get(path: Path, target: str) -> Any:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        client = http.client.HTTPConnection("localhost")
        client.sock = connection
        client.request("GET", target)
        return json.loads(client.getresponse().read())
