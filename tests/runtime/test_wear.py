"""What status says of the bytes that go to the disk."""

from pathlib import Path

from gateway.clock import SystemClock
from gateway.runtime.wear import Wear


class ShiftedClock(SystemClock):
    ahead_s = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead_s


def test_no_rate_a_day_is_told_of_the_first_minutes(tmp_path: Path) -> None:
    """It said 190,082 MB/day: what opening everything had written in a few seconds."""
    clock = ShiftedClock()
    wear = Wear(tmp_path, clock)
    clock.ahead_s = 20.0
    first = wear.status()
    assert (first.process_mb_per_day, first.device_mb_per_day) == (None, None)
    clock.ahead_s = 600.0
    assert wear.status().process_mb_per_day is not None
