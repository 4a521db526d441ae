"""Time, injectable. Wall time is for records and people; monotonic time is for every wait and limit."""

import time
from pathlib import Path
from typing import Protocol


class Clock(Protocol):
    def wall_ms(self) -> int:
        """Unix time in milliseconds, as far as this board knows it."""

    def monotonic(self) -> float:
        """Seconds; never steps."""

    def boottime_ms(self) -> int:
        """Milliseconds since boot, sleep included (CLOCK_BOOTTIME)."""


class SystemClock:
    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        return time.monotonic()

    def boottime_ms(self) -> int:
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


def boot_id() -> str:
    """The kernel's random id of this boot; with boottime_ms it places records of a board without a clock battery."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
