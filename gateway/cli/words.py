"""Numbers as people read them."""

from datetime import datetime

from gateway.printable import printable

_SIZES = ("B", "KiB", "MiB", "GiB", "TiB")
_SPANS = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))


def count(number: int) -> str:
    return f"{number:,}"


def counted(number: int, noun: str) -> str:
    return f"{count(number)} {noun}{'' if number == 1 else 's'}"


def size(number: float) -> str:
    for unit in _SIZES:
        if number < 1024 or unit == _SIZES[-1]:
            break
        number /= 1024
    return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"


def span(seconds: float) -> str:
    """The two largest units: "3 h 12 min"."""
    if seconds < 1:
        return f"{max(0.0, seconds) * 1000:.0f} ms"
    rest = round(seconds)
    parts: list[str] = []
    for unit, length in _SPANS:
        whole, rest = divmod(rest, length)
        if whole or parts:
            parts.append(f"{whole} {unit}" if whole else "")
        if len(parts) == 2:
            break
    return " ".join(part for part in parts if part)


def ago(then_ms: int, now_ms: int) -> str:
    """A board's clock may have been set in between; a time in the future is shown as such."""
    seconds = (now_ms - then_ms) / 1000
    return f"{span(seconds)} ago" if seconds >= 0 else f"{span(-seconds)} ahead of the clock"


def clock(time_ms: int) -> str:
    """Local time; the number where no calendar has it."""
    try:
        return datetime.fromtimestamp(time_ms / 1000).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return f"{time_ms} ms"


def shortened(value: bytes | None, characters_max: int | None) -> str:
    """As `content`; of what is longer the beginning, and how long it is."""
    shown = content(value)
    if value is None or characters_max is None or len(shown) <= characters_max:
        return shown
    return f"{shown[:characters_max]}... ({count(len(value))} bytes)"


def content(value: bytes | None) -> str:
    if value is None:
        return "-"
    try:
        return printable(value.decode())
    except UnicodeDecodeError:
        return f"0x{value.hex()}"
