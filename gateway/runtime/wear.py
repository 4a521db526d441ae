"""What the gateway writes to its disk, because a card lives for so many bytes and no more."""

import os
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from gateway.clock import Clock

SAMPLE_INTERVAL_S = 3600.0
SAMPLES_MAX = 25
"""A day and an hour: the rate is that of the last day, or since the start."""

RATE_AFTER_S = 600.0
"""The first seconds, in which everything is opened and checked, say nothing about a day."""

SECTOR_BYTES = 512


@dataclass(frozen=True)
class WearStatus:
    """Bytes written by this process, and to the whole block device (everybody's, the journal's too) where there is one."""

    process_bytes: int
    process_mb_per_day: float | None
    device: str | None
    device_mb_per_day: float | None


class Wear:
    """Sample with `sample` every hour or so."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._clock = clock
        device = os.stat(folder).st_dev
        stat = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat")
        self._stat = stat if stat.exists() else None
        self._device = stat.parent.resolve().name if stat.exists() else None
        self._samples: deque[tuple[float, int, int]] = deque(maxlen=SAMPLES_MAX)
        self.sample()

    def sample(self) -> None:
        self._samples.append(self._now())

    def status(self) -> WearStatus:
        now, then = self._now(), self._samples[0]
        elapsed_s = now[0] - then[0]
        rates = [
            (new - old) / 1e6 / elapsed_s * 86_400 if elapsed_s >= RATE_AFTER_S else None
            for new, old in zip(now[1:], then[1:], strict=True)
        ]
        return WearStatus(now[1], rates[0], self._device, rates[1] if self._device else None)

    def _now(self) -> tuple[float, int, int]:
        """(monotonic seconds, bytes of this process, bytes of the device)."""
        sectors = 0 if self._stat is None else int(self._stat.read_text().split()[6])
        return self._clock.monotonic(), _written_by_this_process(), sectors * SECTOR_BYTES


def _written_by_this_process() -> int:
    """0 where the kernel doesn't count (CONFIG_TASK_IO_ACCOUNTING)."""
    try:
        lines = Path("/proc/self/io").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("write_bytes:")), 0)
