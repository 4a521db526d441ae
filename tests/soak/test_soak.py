"""`make soak`, small; and that a leak would be seen."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.queue.full_disk import needs_root
from tests.soak.false_clock import needs_faketime
from tests.soak.samples import INTERVAL_S, Sample, Samples

ROOT = Path(__file__).parent.parent.parent
HOUR_S = 3600.0


@pytest.mark.kafka
@pytest.mark.slow
@pytest.mark.proof
@pytest.mark.timeout(300)
@needs_root
@needs_faketime
def test_nothing_is_lost_and_nothing_is_there_twice() -> None:
    command = [sys.executable, "-m", "tests.soak.soak", "--minutes", "0.1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "CLEAN: nothing lost, nothing twice, all in order" in done.stdout


@pytest.mark.parametrize(("rss_kib_per_hour", "leaks"), [(4 << 10, []), (16 << 10, ["rss_kib"])])
def test_a_leak_is_seen_once_the_life_is_long_enough(
    rss_kib_per_hour: int, leaks: list[str], tmp_path: Path
) -> None:
    samples, short = Samples(tmp_path), Samples(tmp_path)
    for number in range(int(HOUR_S / INTERVAL_S)):
        now = number * INTERVAL_S
        sample = Sample(now, 40_000 + round(rss_kib_per_hour * now / HOUR_S), 30, 4, 8000)
        samples.lives[-1].append(sample)
        if now < HOUR_S / 10:
            short.lives[-1].append(sample)
    assert samples.leaks() == leaks
    assert short.leaks() == []
