"""The newest committed segments, kept in memory so that a live link needn't read and decode what was just written."""

from collections import deque
from collections.abc import Sequence

from gateway.limits import RECORD_OVERHEAD_BYTES
from gateway.queue.segments import Segment

RECENT_BYTES_MAX = 4 << 20


class Recent:
    """Contiguous segments of one lane, the newest RECENT_BYTES_MAX bytes of them."""

    def __init__(self) -> None:
        self._segments: deque[Segment] = deque()
        self._bytes = 0

    def covers(self, number: int) -> bool:
        return bool(self._segments) and self._segments[0].first <= number

    def segments(self) -> Sequence[Segment]:
        return tuple(self._segments)

    def add(self, segment: Segment) -> None:
        if self._segments and self._segments[-1].last + 1 != segment.first:
            self.clear()
        self._segments.append(segment)
        self._bytes += _size(segment)
        while self._bytes > RECENT_BYTES_MAX:
            self._pop()

    def forget_through(self, position: int) -> None:
        while self._segments and self._segments[0].last <= position:
            self._pop()

    def clear(self) -> None:
        self._segments.clear()
        self._bytes = 0

    def _pop(self) -> None:
        self._bytes -= _size(self._segments.popleft())


def _size(segment: Segment) -> int:
    return segment.size + RECORD_OVERHEAD_BYTES * len(segment.entries)
