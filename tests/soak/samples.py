"""What a gateway's process takes, sampled while it runs, and how fast that grows."""

import asyncio
import os
import statistics
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

INTERVAL_S = 2.0
WARM_UP_S, WARM_UP = 600.0, 0.2
"""Caches fill, the heap and the log grow to their size. Of a life too short to be judged a part is left out."""

JUDGED_S = 900.0
"""After the warm-up; a shorter life shows no slope."""


class Sample(NamedTuple):
    time: float
    rss_kib: int
    descriptors: int
    threads: int
    disk_kib: int


LEAKS_PER_HOUR = {"rss_kib": 8 << 10, "descriptors": 4.0, "threads": 2.0}
"""More than this after the warm-up is a leak. The disk's use follows the outages: the cap is what holds it."""


class Samples:
    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self.lives: list[list[Sample]] = [[]]
        self._pid = 0

    def watch(self, pid: int) -> None:
        """Another process from now on."""
        self._pid = pid
        self.lives.append([])

    async def take(self) -> None:
        """Until cancelled."""
        while True:
            with suppress(FileNotFoundError, ProcessLookupError, KeyError):  # it has just ended
                self.lives[-1].append(self._sample())
            await asyncio.sleep(INTERVAL_S)

    def slopes(self) -> dict[str, float]:
        """Per hour, of the longest life."""
        life = self._longest()
        times = [sample.time / 3600 for sample in life]
        return {
            name: statistics.linear_regression(times, [getattr(sample, name) for sample in life]).slope
            for name in Sample._fields[1:]
        }

    def leaks(self) -> list[str]:
        if max(map(_span, self.lives)) < WARM_UP_S + JUDGED_S:
            return []
        slopes = self.slopes()
        return [name for name, most in LEAKS_PER_HOUR.items() if slopes[name] > most]

    def report(self) -> list[str]:
        life = self._longest()
        if len(life) < 2:
            return []
        lines = [f"slopes over {_span(life):.0f} s of one process, the warm-up left out:"]
        for name, slope in self.slopes().items():
            values = [getattr(sample, name) for sample in life]
            lines.append(
                f"{name:12} first {values[0]:,}, last {values[-1]:,}, most {max(values):,}, {slope:+,.1f} an hour"
            )
        return lines

    def _longest(self) -> list[Sample]:
        life = max(self.lives, key=len)
        span = _span(life)
        warm_up = WARM_UP_S if span >= WARM_UP_S + JUDGED_S else WARM_UP * span
        return [sample for sample in life if sample.time >= life[0].time + warm_up]

    def _sample(self) -> Sample:
        process = Path(f"/proc/{self._pid}")
        status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
        disk = sum(path.stat().st_blocks for path in self._data_dir.glob("queue.*")) // 2
        return Sample(
            time.monotonic(),
            int(status["VmRSS"].split()[0]),
            len(os.listdir(process / "fd")),
            int(status["Threads"]),
            disk,
        )


def _span(life: Sequence[Sample]) -> float:
    return life[-1].time - life[0].time if life else 0.0
