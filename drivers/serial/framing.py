"""Cuts a stream of bytes into frames whose check holds, and finds the next one after anything else."""

import re
from collections import Counter
from collections.abc import Iterator

from drivers.serial import LINE, Check, Frame, octets
from drivers.serial.checksum import Checksum

SKIPPED = "bytes skipped"
WRONG_CHECK = "frames with a wrong check"
WRONG_LENGTH = "frames of a wrong length"
HALF = "half frames"
CUT_SHORT = "searches cut short"

WORK_PER_BYTE = 64
"""Bytes that may be read again in search of a frame, for each that came; else a long frame costs its length squared."""

LENGTH_BYTES = {"u8": 1, "u16": 2, "u32": 4}
NOT_YET = None
NEVER = 0


class Framer:
    """`events` counts what was no frame.

    A frame that fails is given up byte by byte where something else tells where the next begins (`start`, or the
    check of frames that tell their length): a broken head must not swallow the good frame behind it. Lines without
    a start are given up whole, because the rest of a broken line looks like a line. What costs too much to search
    byte by byte (a long frame, and everything in it looks like a start) is given up whole too. Where nothing tells a
    frame, neither start nor end nor check, it is what comes first after `reset`, and no other.
    """

    def __init__(self, frame: Frame, check: Check | None) -> None:
        self.events: Counter[str] = Counter()
        self._frame = frame
        self._start = octets(frame.start)
        self._end = octets(frame.end)
        self._escape = octets(frame.escape)
        self._until_end = re.compile(_until_end(self._end, self._escape), re.DOTALL)
        self._check = None if check is None else Checksum(check)
        self._buffer = bytearray()
        self._anchored = bool(self._start) or not self._end
        self._untold = not (self._start or self._end or check)
        self._in_step = not self._untold and (self._anchored or check is not None)
        self._hunting = False
        self._credit = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Whole frames without their escapes. The iterator must be used up."""
        self._buffer += data
        self._credit = min(self._credit + WORK_PER_BYTE * len(data), WORK_PER_BYTE * self._frame.bytes_max)
        while self._find_start():
            size = self._size()
            if size is NOT_YET:
                return
            if size == NEVER:
                self._give_up(WRONG_LENGTH, min(len(self._buffer), self._frame.bytes_max) if self._end else 1)
                continue
            frame = self._plain(bytes(self._buffer[:size]))
            if self._check is not None and not self._check.holds(frame):
                self._give_up(WRONG_CHECK, size)
                continue
            del self._buffer[:size]
            self._hunting = False
            if self._in_step:
                self._in_step = not self._untold
                yield frame
            else:
                # What was on its way when the port was opened: the end of a line, perhaps a wrong number.
                self.events[HALF] += 1
                self._in_step = True

    def pause(self) -> Iterator[bytes]:
        """The line was silent for so long that nothing more belongs to what came; the next byte begins a frame."""
        while self._buffer:
            self._give_up(HALF, len(self._buffer) if self._end else 1)
            yield from self.feed(b"")
        self._in_step = self._in_step or not self._untold

    def reset(self) -> None:
        self._buffer.clear()
        self._in_step = True

    def content(self, frame: bytes) -> bytes:
        """What stands between start and end."""
        stop = len(frame) - len(self._end) - self._frame.trailer_bytes
        content = frame[len(self._start) : stop]
        return content.removesuffix(b"\r") if self._frame.end == LINE else content

    def _find_start(self) -> bool:
        """Whether the buffer begins with the start of a frame now."""
        if self._untold and not self._in_step:
            self._skip(len(self._buffer))
        if not self._start or not self._buffer:
            return bool(self._buffer)
        at = self._buffer.find(self._start)
        if at >= 0:
            self._skip(at)
            return True
        # Its first bytes may be there already.
        kept = next(n for n in range(len(self._start) - 1, -1, -1) if self._buffer.endswith(self._start[:n]))
        self._skip(len(self._buffer) - kept)
        return False

    def _size(self) -> int | None:
        """Bytes of the frame at the head of the buffer; NOT_YET before they are there, NEVER if they can't be."""
        frame, have = self._frame, len(self._buffer)
        if self._end:
            end = self._find_end()
            if end < 0:
                return NEVER if have > frame.bytes_max else NOT_YET
            if self._start and self._check is None and not self._escape:
                end -= self._skip_to_last_start(end)
            return self._within(end)
        if frame.length is not None:
            return frame.length if have >= frame.length else NOT_YET
        at = frame.length_at or 0
        head = at + LENGTH_BYTES[frame.length_type]
        if have < head:
            return NOT_YET
        told = int.from_bytes(self._buffer[at:head], frame.length_byte_order) + frame.length_adds
        if not head <= told <= frame.bytes_max:
            return NEVER
        return told if have >= told else NOT_YET

    def _find_end(self) -> int:
        """Where the end of the frame at the head of the buffer stands, -1 before it is there."""
        # Behind bytes_max an end comes too late, but the rest of a line without a start goes up to it.
        behind = self._frame.bytes_max if self._anchored else len(self._buffer)
        found = self._until_end.match(self._buffer, len(self._start), behind)
        return -1 if found is None else found.end() - len(self._end)

    def _plain(self, frame: bytes) -> bytes:
        if not self._escape:
            return frame
        head, tail = len(self._start), len(frame) - len(self._end) - self._frame.trailer_bytes
        plain = bytearray()
        escaped = False
        for byte in frame[head:tail]:
            if not escaped and byte == self._escape[0]:
                escaped = True
            else:
                plain.append(byte ^ self._frame.escape_xor if escaped else byte)
                escaped = False
        return frame[:head] + plain + frame[tail:]

    def _within(self, end: int) -> int | None:
        size = end + len(self._end) + self._frame.trailer_bytes
        if size > self._frame.bytes_max:
            return NEVER
        return size if len(self._buffer) >= size else NOT_YET

    def _skip_to_last_start(self, end: int) -> int:
        """Without a check a second start is the only sign that the frame before it broke off. Bytes skipped."""
        at = self._buffer.rfind(self._start, 1, end)
        if at < 0:
            return 0
        self.events[HALF] += 1
        self._skip(at)
        return at

    def _give_up(self, reason: str, read: int) -> None:
        """`read` bytes were looked at in vain."""
        if not self._hunting:
            self.events[reason] += 1
        if self._untold:
            self._skip(len(self._buffer))
            self._in_step = False
            return
        if self._anchored:
            # Without a start every byte may begin a frame, and one fault is to be counted once.
            self._hunting = not self._start
            self._credit -= read
            if self._credit < 0:
                self.events[CUT_SHORT] += 1
                self._credit = 0
                self._skip(read)
            else:
                self._skip(1)
            return
        end = self._find_end()
        if end < 0 or reason == HALF:
            self._skip(len(self._buffer))
            self._in_step = self._check is not None
        else:
            self._skip(end + len(self._end) + self._frame.trailer_bytes)
            self._in_step = True

    def _skip(self, count: int) -> None:
        """The ends of lines that stand between frames are no loss."""
        skipped = self._buffer[:count]
        del self._buffer[:count]
        if lost := len(skipped.translate(None, b"\r\n")):
            self.events[SKIPPED] += lost


def _until_end(end: bytes, escape: bytes) -> bytes:
    """All to the first end that no escape makes a part of the content."""
    one = b"." if not escape else re.escape(escape) + b".|[^" + re.escape(escape) + b"]"
    return b"(?:(?!" + re.escape(end) + b")(?:" + one + b"))*" + re.escape(end)
