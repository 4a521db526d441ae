"""A regular expression that is given up when it takes too long: some backtrack for longer than the world will last."""

import re
import signal
from types import FrameType

MATCH_S = 0.01
"""Of the process's own time; a good expression takes a thousandth of it."""

FRAMES_LEFT_OUT = 200
"""Behind a frame that took too long, so that frames like it don't take all there is."""


class TookTooLong(Exception):
    pass


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise TookTooLong


class Expression:
    """Python's matcher looks for signals while it runs, so a timer can end it; nothing else can. To be used in the main
    thread, where signals are handled."""

    def __init__(self, pattern: str) -> None:
        self._pattern = re.compile(pattern, re.DOTALL)
        self._left_out = 0
        signal.signal(signal.SIGVTALRM, _interrupt)

    def match(self, content: str) -> "re.Match[str] | None":
        """Of the whole content. Raises TookTooLong."""
        if self._left_out:
            self._left_out -= 1
            raise TookTooLong
        try:
            signal.setitimer(signal.ITIMER_VIRTUAL, MATCH_S)
            try:
                return self._pattern.fullmatch(content)
            finally:
                signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        except TookTooLong:
            self._left_out = FRAMES_LEFT_OUT
            raise
