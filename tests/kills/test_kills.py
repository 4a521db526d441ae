"""`make kills`, small: clean with an honest gateway. That the judge sees a broken promise is tests/demo's."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(300)]

ROOT = Path(__file__).parent.parent.parent


def kills(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.kills.kills", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.proof
def test_nothing_is_lost_and_nothing_is_there_twice() -> None:
    done = kills("--n", "12")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "CLEAN: nothing lost, nothing twice, all in order" in done.stdout
