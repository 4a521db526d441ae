"""What README.md says can be typed as it stands there."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
TIDEGATE = Path(sys.executable).with_name("tidegate")
WORDS = re.compile(r"`tidegate ([a-z][^`]*)`|^tidegate (.*?)(?:\s+#.*)?$", re.MULTILINE)


def commands() -> list[str]:
    """Every command in the text; `a | b` and `[--c]` are alternatives and options."""
    found = set()
    for quoted, line in WORDS.findall(README):
        words = re.sub(r"\[[^\]]*\]", "", quoted or line)
        found.add(words.split("|")[0].strip())
    return sorted(found)


@pytest.mark.parametrize("words", commands())
def test_the_command_exists(words: str) -> None:
    names = [word for word in shlex.split(words) if not word.startswith("-") and not word.endswith(".toml")]
    options = [word for word in shlex.split(words) if word.startswith("-")]
    depth = 2 if names[0] in ("queue", "doctor", "serial", "modbus") else 1
    depth = 3 if names[:2] == ["queue", "dead"] else depth
    command = [str(TIDEGATE), *names[:depth], "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={"COLUMNS": "200"})
    assert done.returncode == 0, done.stderr
    for option in options:
        assert option in done.stdout


def test_the_targets_exist() -> None:
    targets = re.findall(r"^    make (\w+)", README, re.MULTILINE)
    assert targets == ["demo", "test"]
    for target in [*targets, "bench"]:
        subprocess.run(["make", "-n", target], cwd=ROOT, check=True, capture_output=True)


def test_the_first_steps(tmp_path: Path) -> None:
    for arguments in (["init", "tidegate.toml"], ["check", "-c", "tidegate.toml"]):
        subprocess.run([TIDEGATE, *arguments], cwd=tmp_path, check=True, capture_output=True)


def test_the_configuration_is_right(tmp_path: Path) -> None:
    [text] = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)
    (tmp_path / "tidegate.toml").write_text(text)
    done = subprocess.run([TIDEGATE, "check"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
