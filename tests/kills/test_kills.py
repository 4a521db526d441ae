"""`make kills`, small: clean with an honest gateway. That the judge sees a broken promise is tests/demo's."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(300)]

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.proof
def test_nothing_is_lost_and_nothing_is_there_twice() -> None:
    command = [sys.executable, "-m", "tests.kills.kills", "--n", "50"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "CLEAN: nothing lost, nothing twice, all in order" in done.stdout
