"""The demo, small: clean with an honest gateway, not clean with one that is sabotaged."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.config import load

DRIVERS = ["dryer", "floor", "line", "meters", "scale", "sensors", "web"]
HERE = Path(__file__).parent
ROOT = HERE.parent.parent


def demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.demo.demo", "--seconds", "6", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def verdict(output: str) -> dict[str, dict[str, int]]:
    """The judge's table: of each driver, the columns that are numbers."""
    rows = [
        [cell.strip() for cell in line.strip("│┃").replace("┃", "│").split("│")]
        for line in output.splitlines()
        if line.startswith(("│", "┃"))
    ]
    last = next(number for number, row in enumerate(rows) if row[0] == "driver")
    heading = [" ".join(filter(None, cells)) for cells in zip(*rows[: last + 1], strict=True)]
    return {
        row[0]: {
            name: int(cell.replace(",", ""))
            for name, cell in zip(heading, row, strict=True)
            if cell.replace(",", "").isdigit()
        }
        for row in rows[last + 1 :]
    }


@pytest.mark.kafka
@pytest.mark.slow
def test_nothing_is_lost_and_nothing_is_there_twice() -> None:
    done = demo()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "CLEAN: nothing lost, nothing twice, all in order" in done.stdout
    assert "link cut, gateway killed with -9" in done.stdout
    found = verdict(done.stdout)
    assert sorted(found) == DRIVERS
    for account in found.values():
        assert account["accepted, served"] > 0
        assert account["in Kafka"] >= account["accepted, served"] - account["in the window"]
    for driver in ("floor", "web", "sensors", "line"):
        assert found[driver]["in the window"] == 0
    # The scale went on while the gateway was gone.
    assert found["scale"]["in the window"] > 0


@pytest.mark.kafka
@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "driver", "column"),
    [
        ("ack-early", "floor", "lost"),
        ("ignore-positions", "floor", "twice"),
        ("lose-readings", "meters", "lost"),
    ],
)
def test_a_sabotaged_gateway_is_caught(mode: str, driver: str, column: str) -> None:
    done = demo("--sabotage", mode)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "NOT CLEAN" in done.stdout, done.stdout
    assert verdict(done.stdout)[driver][column] > 0


@pytest.mark.kafka
@pytest.mark.slow
def test_a_gateway_that_does_not_start_is_told_with_its_last_words() -> None:
    done = demo("--sabotage", "no-such-mode")
    assert done.returncode == 1
    assert "the gateway ended by itself, exit code 1" in done.stdout
    assert "gateway: usage: python -m gateway.testing.sabotage" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_the_example_configuration_has_no_mistake() -> None:
    assert sorted(load(HERE / "demo.toml").drivers) == DRIVERS


@pytest.mark.parametrize(
    "path",
    [*(HERE / f"{name}.py" for name in ("devices", "field", "sensor")), HERE.parent / "judge" / "judge.py"],
    ids=lambda path: path.stem,
)
def test_devices_and_judge_share_no_code_with_the_gateway(path: Path) -> None:
    imported = {
        name.split(".")[0]
        for node in ast.walk(ast.parse(path.read_text()))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert imported.isdisjoint({"gateway", "drivers", "tests", "aiokafka", "aiocoap", "serial"})
