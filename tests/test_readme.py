"""What README.md says can be typed as it stands there."""

import os
import re
import select
import shlex
import socket
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import pytest

from gateway.testing.kafka import free_ports

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
TIDEGATE = Path(sys.executable).with_name("tidegate")
WITHIN_S = 30.0
WORDS = re.compile(r"`tidegate ([a-z][^`]*)`|^tidegate (.*?)(?:\s+#.*)?$", re.MULTILINE)
GROUPS = ("queue", "doctor", "serial", "modbus")


def commands() -> list[tuple[str, set[str]]]:
    """Every command in the text and the options it is given; in `a | b` the first stands for all, `[--c]` is an option."""
    found = defaultdict[str, set[str]](set)
    for quoted, line in WORDS.findall(README):
        words = shlex.split(re.sub(r"[\[\]]", "", quoted or line).split("|")[0])
        names = [word for word in words if not word.startswith("-") and not word.endswith(".toml")]
        depth = 3 if names[:2] == ["queue", "dead"] else 2 if names[0] in GROUPS else 1
        found[" ".join(names[:depth])] |= {word for word in words if word.startswith("-")}
    return sorted(found.items())


@pytest.mark.parametrize(
    ("command", "options"), commands(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_the_command_exists(command: str, options: set[str]) -> None:
    words = [str(TIDEGATE), *command.split(), "--help"]
    done = subprocess.run(
        words, capture_output=True, text=True, check=False, env=os.environ | {"COLUMNS": "200"}
    )
    assert done.returncode == 0, done.stderr
    for option in options:
        assert option in done.stdout


def test_the_targets_exist() -> None:
    targets = re.findall(r"^    make (\w+)", README, re.MULTILINE)
    assert targets == ["demo", "test"]
    for target in [*targets, "bench"]:
        subprocess.run(["make", "-n", target], cwd=ROOT, check=True, capture_output=True)


def shells() -> list[list[str]]:
    """What is to be typed into each, but for what needs a network or a Kafka."""
    blocks = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    typed = [[line.partition(" #")[0].strip() for line in block.splitlines()] for block in blocks]
    assert typed[0].pop(0) == "pip install ."
    typed[0].remove("tidegate check --kafka -c tidegate.toml")
    return typed


@pytest.mark.slow
def test_five_minutes_to_data(tmp_path: Path) -> None:
    """As it stands there; what the user is told to set is set, and the port is one that is free here."""
    [port] = free_ports(1)
    (tmp_path / "mosquitto_pub").write_text(f"-p {port}\n")
    path = f"{TIDEGATE.parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "XDG_CONFIG_HOME": str(tmp_path), "TERM": "dumb"}

    def start(line: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["/bin/sh", "-c", f"exec {line}"],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ended(line: str) -> tuple[int, str]:
        with start(line) as process:
            out, _ = process.communicate(timeout=WITHIN_S)
        return process.returncode, out

    def typed(line: str) -> str:
        code, out = ended(line)
        assert code == 0, out
        return out

    [init, check, run], [tail], [publish, status] = shells()
    typed(init)
    file = tmp_path / "tidegate.toml"
    text = file.read_text()
    for pattern, setting in (
        (r"^bootstrap_servers = .*", 'bootstrap_servers = ["127.0.0.1:1"]'),
        (r"^#data_dir = .*", 'data_dir = "data"'),
        (r"^anonymous = false", "anonymous = true"),
        (r"0\.0\.0\.0:1883", f"127.0.0.1:{port}"),
    ):
        text, count = re.subn(pattern, setting, text, flags=re.MULTILINE)
        assert count == 1, pattern
    file.write_text(text)
    typed(check)
    with start(run) as gateway:
        try:
            await_listener(port)
            while ended(status)[0]:
                assert gateway.poll() is None
            with start(tail) as shown:
                assert shown.stdout is not None
                typed(publish)
                while not select.select([shown.stdout], [], [], 0.2)[0]:  # it sees only what comes after it
                    typed(publish)
                assert 'site/press/telemetry {"t": 21.5}' in shown.stdout.readline()
                shown.terminate()
            assert "press" in typed(status)
            gateway.terminate()
            assert gateway.wait(WITHIN_S) == 0
        finally:
            gateway.kill()


def await_listener(port: int) -> None:
    deadline = time.monotonic() + WITHIN_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        else:
            return


def test_the_configuration_is_right(tmp_path: Path) -> None:
    [text] = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)
    (tmp_path / "tidegate.toml").write_text(text)
    done = subprocess.run([TIDEGATE, "check"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
