"""Whether this machine knows what time it is."""

import ctypes
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import gateway
from gateway.doctor.finding import Finding, Verdict

CLOCK_TOLERANCE_S = 86_400
_TIME_ERROR = 5
"""adjtimex(2): the clock is not synchronised."""


def clock(known: list[Path]) -> Iterator[Finding]:
    """`known` are files of this machine: no clock can be right that is behind them."""
    now = time.time()
    shown = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d %H:%M UTC")
    newest = max(path.stat().st_mtime for path in (Path(gateway.__file__), *known) if path.exists())
    if now < newest - CLOCK_TOLERANCE_S:
        since = datetime.fromtimestamp(newest, UTC).strftime("%Y-%m-%d")
        yield Finding(
            "clock",
            Verdict.FAILURE,
            f"says {shown}, but files here are from {since}: set it, or let NTP (timedatectl set-ntp true)",
        )
    elif ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(1024)) == _TIME_ERROR:
        yield Finding("clock", Verdict.WARNING, f"says {shown}, but nothing synchronises it: is NTP running?")
    else:
        yield Finding("clock", Verdict.OK, f"says {shown} and is synchronised")
    if not Path("/sys/class/rtc/rtc0").exists():
        text = "none: after a power cut the time is wrong until NTP has answered; records keep their order all the same"
        yield Finding("clock battery", Verdict.WARNING, text)
