"""A wall clock that can be set while its process runs (libfaketime); monotonic time goes on as it is."""

import time
from pathlib import Path

import pytest

LIBRARY = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
needs_faketime = pytest.mark.skipif(LIBRARY is None, reason="a clock that jumps needs libfaketime")


class FalseClock:
    LOOK_S = 1
    """The library reads the file so often."""

    TRUE = "+0"
    TIMES = ("+2h", "-1y", f"-{int(time.time()) - 60}")
    """Two hours ahead, a year behind, and the first minute of 1970."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.set(self.TRUE)

    def set(self, offset: str) -> None:
        """At once, not in two steps: somebody may be reading."""
        new = self._file.with_suffix(".new")
        new.write_text(offset)
        new.rename(self._file)

    @property
    def environment(self) -> dict[str, str]:
        """For the process. Raises FileNotFoundError where the library is not installed."""
        if LIBRARY is None:
            raise FileNotFoundError("libfaketime is needed: apt install faketime")
        return {
            "LD_PRELOAD": str(LIBRARY),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_CACHE_DURATION": str(self.LOOK_S),
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
