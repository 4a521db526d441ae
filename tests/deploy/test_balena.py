"""The container's health is asked of the gateway that runs in it."""

import asyncio
import json
import os
import re
import sys
from pathlib import Path

from tests.deploy.unit import ROOT

BALENA = ROOT / "deploy" / "balena"
WITHIN_S = 60.0

FLEET = """\
[gateway]
id = "@TIDEGATE_ID@"
data_dir = "data"
default_topic = "telemetry"
[queue]
min_free_bytes = "0 B"
[kafka]
bootstrap_servers = ["127.0.0.1:1"]
"""


def image_environment() -> dict[str, str]:
    """What the Dockerfile's last stage sets."""
    stage = (BALENA / "Dockerfile").read_text().rpartition("\nFROM ")[2]
    lines = [line.removeprefix("ENV ") for line in stage.splitlines() if line.startswith("ENV ")]
    return dict(pair.split("=", 1) for line in lines for pair in line.split())


def health_check() -> list[str]:
    found = re.search(r"healthcheck:\n *test: (.*)", (BALENA / "docker-compose.yml").read_text())
    assert found
    words: list[str] = json.loads(found[1])
    assert words[0] == "CMD"
    return words[1:]


async def test_a_gateway_that_runs_is_healthy(tmp_path: Path) -> None:
    """With the image's environment, all its folders below another one."""
    rendered = tmp_path / image_environment()["TIDEGATE_CONFIG"].lstrip("/")
    rendered.parent.mkdir(parents=True)
    fleet = tmp_path / "fleet.toml"
    fleet.write_text(FLEET)
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{os.defpath}",
        "PYTHONPATH": str(ROOT),
        "TIDEGATE_CONFIG": str(rendered),
        "TIDEGATE_FLEET_CONFIG": str(fleet),
        "BALENA_DEVICE_UUID": "b0a4d",
    }
    (rendered.parent / "data").mkdir()
    gateway = await asyncio.create_subprocess_exec(BALENA / "start.sh", cwd=tmp_path, env=environment)
    try:
        async with asyncio.timeout(WITHIN_S):
            while not await healthy(environment):
                assert gateway.returncode is None
    finally:
        gateway.terminate()
        await gateway.wait()
    assert 'id = "b0a4d"' in rendered.read_text()


async def healthy(environment: dict[str, str]) -> bool:
    """As the engine asks: anew until it is."""
    program, *arguments = health_check()
    path = Path(environment["PATH"].partition(":")[0], program)
    process = await asyncio.create_subprocess_exec(path, *arguments, env=environment, cwd="/")
    return await process.wait() == 0


def test_the_image_can_be_built_with_each_lock_and_always_has_the_same_user() -> None:
    text = (BALENA / "Dockerfile").read_text()
    default = re.search(r"^ARG LOCK=(.*)$", text, re.MULTILINE)
    assert default is not None
    named = set(re.findall(r"requirements[a-z-]*\.lock", text + (BALENA / "docker-compose.yml").read_text()))
    assert default[1] in named
    assert named == {path.name for path in ROOT.glob("requirements*.lock")}
    assert re.search(r"useradd .*--uid [0-9]+ ", text)
