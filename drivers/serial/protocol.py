"""Bytes in, messages out: frames whose check holds, read as described or by a profile."""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from drivers.serial import DEVICE, Config, Layout, octets
from drivers.serial.fields import Reader, Reading, Undescribed, reader, text
from drivers.serial.framing import Framer
from drivers.serial.profiles import Profile, nmea0183, p1

PROFILES: dict[str, Profile] = {"nmea0183": nmea0183.PROFILE, "p1": p1.PROFILE}


class Message(NamedTuple):
    """`content` stands between start and end of `frame`. `reading` is None where no fields are described.

    `device` is "" if the frame doesn't name one, `kind` if there is one only.
    """

    frame: bytes
    content: bytes
    reading: Reading | None
    device: str = ""
    kind: str = ""


class Decoder:
    """`events` counts what became no message."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._profile = PROFILES.get(config.profile or "")
        self._framer = (
            Framer(config.frame, config.check)
            if self._profile is None
            else Framer(self._profile.frame, self._profile.check)
        )
        self._kinds = [
            (name, kind.code_at, octets(kind.code), _reader(kind, config.encoding))
            for name, kind in config.kinds.items()
        ] or [("", 0, b"", _reader(config, config.encoding))]
        self.events: Counter[str] = self._framer.events

    def feed(self, data: bytes) -> list[Message]:
        return list(self._messages(self._framer.feed(data)))

    def pause(self) -> list[Message]:
        """The line has been silent for longer than a frame may be."""
        return list(self._messages(self._framer.pause()))

    def reset(self) -> None:
        """What came so far belongs to nothing; the next byte begins a frame."""
        self._framer.reset()

    def _messages(self, frames: Iterable[bytes]) -> Iterator[Message]:
        for frame in frames:
            content = self._framer.content(frame)
            if not content:
                continue
            try:
                yield self._message(frame, content)
            except Undescribed as reason:
                self.events[str(reason)] += 1

    def _message(self, frame: bytes, content: bytes) -> Message:
        """Raises Undescribed."""
        kind, reading = self._read(frame, content)
        name = self._config.device_field
        device = "" if reading is None or name is None else str(reading.values.get(name, ""))
        if name is not None and not DEVICE.fits(device):
            raise Undescribed("frames that name no device")
        return Message(frame, content, reading, device, kind)

    def _read(self, frame: bytes, content: bytes) -> tuple[str, Reading | None]:
        """Kind and values. Raises Undescribed."""
        if self._profile is not None:
            return self._profile.read(text(content, "ascii"))
        for name, at, code, read in self._kinds:
            place = at if at >= 0 else len(frame) + at
            if place >= 0 and frame.startswith(code, place):
                return name, read and read(frame, content)
        raise Undescribed("frames of no described kind")


def _reader(layout: Layout, encoding: str) -> Reader | None:
    return reader(layout, encoding) if layout.fields else None
