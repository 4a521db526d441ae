"""A TOML file with the line of every key.

tomllib reads and judges the file but tells no positions, so a scanner walks the text once more. It sees only what
tomllib has accepted, which is why it may skip over values and check nothing.
"""

import re
import tomllib
from bisect import bisect_right
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gateway.config.toml import write_key
from gateway.errors import ConfigError, ConfigUnreadable

Keys = tuple[str | int, ...]
"""Where a value is: keys of tables and indexes of arrays, from the top."""

FILE_BYTES_MAX = 256 << 10
KEY_PARTS_MAX = 32

_BLANK = re.compile(r"(?:[ \t\n,]|#[^\n]*)*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_STRING = re.compile(
    r'"""(?:[^\\]|\\.)*?"""(?:"{0,2})'
    r"|'''.*?'''(?:'{0,2})"
    r'|"(?:[^"\\]|\\.)*"'
    r"|'[^']*'",
    re.DOTALL,
)
_CONTRARY = ("Cannot overwrite a value", "Cannot declare")
_DUPLICATE = "Duplicate inline table key "
"""What tomllib calls it if something is there twice."""

_PLAIN_VALUE = re.compile(r"[^,\]}#\n]*")


def dotted(keys: Keys) -> str:
    """As the operator would write it: drivers.floor.listen, routes[0].topic."""
    text = ""
    for key in keys:
        if isinstance(key, int):
            text += f"[{key}]"
        else:
            shown = write_key(key)
            text += f".{shown}" if text else shown
    return text


class Source:
    """A configuration file that is TOML. Raises ConfigError if it can't be read or is not."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                raw = file.read(FILE_BYTES_MAX + 1)
        except OSError as error:
            raise ConfigUnreadable(path, error) from error
        if len(raw) > FILE_BYTES_MAX:
            raise ConfigError([f"{path}: larger than {FILE_BYTES_MAX >> 10} KiB; is this the right file?"])
        try:
            # Some editors put a byte order mark in front.
            text = raw.decode("utf-8-sig").replace("\r\n", "\n")
        except UnicodeDecodeError as error:
            line = error.object.count(b"\n", 0, error.start) + 1
            raise ConfigError([f"{path}:{line}: not UTF-8 text; save the file as UTF-8"]) from error
        try:
            self.data: dict[str, Any] = tomllib.loads(text)
            self._lines: Mapping[Keys, int] = _Scanner(text).lines
        except tomllib.TOMLDecodeError as error:
            raise ConfigError([_syntax_problem(path, text, str(error))]) from error
        except RecursionError as error:
            raise ConfigError([f"{path}:1: nested too deeply"]) from error
        except ValueError as error:
            # Python reads no decimal number of more than 4300 digits.
            raise ConfigError([f"{path}:{_line_of_longest_number(text)}: a number is too long"]) from error

    def line(self, keys: Keys) -> int:
        """The line of a key, or of the nearest table around it that is in the file."""
        while keys and keys not in self._lines:
            keys = keys[:-1]
        return self._lines.get(keys, 1)


def _line_of_longest_number(text: str) -> int:
    longest = max(re.finditer("[0-9][0-9_]*", text), key=lambda match: len(match[0]))
    return text.count("\n", 0, longest.start()) + 1


def _syntax_problem(path: Path, text: str, message: str) -> str:
    what, _, where = message.rpartition(" (at ")
    found = re.match(r"line ([0-9]+), column ([0-9]+)", where)
    line = found[1] if found else str(text.rstrip("\n").count("\n") + 1)
    if what.startswith(_DUPLICATE):
        return f"{path}:{line}: {what.removeprefix(_DUPLICATE)} is there twice in one table; keep one of them"
    before = "".join(f"{one}\n" for one in text.split("\n")[: int(line) - 1])
    end = len(before) + int(found[2]) - 1 if found else len(text)
    if what.startswith(_CONTRARY) and (twice := _twice(text[:end])):
        return f"{path}:{twice}; keep one of them"
    place = f" at column {found[2]}" if found else " at the end of the file"
    return f"{path}:{line}: not valid TOML{place}: {what[:1].lower()}{what[1:]}"


def _twice(text: str) -> str:
    """Where what its last statement speaks of was spoken of before; empty if it was not, or stands in an inline table."""
    try:
        keys, line, before = _Scanner(text).latest
    except (RecursionError, IndexError):
        return ""
    name = " ".join(dotted(keys).split())  # one line, whatever a key contains
    return "" if before is None else f"{line}: {name}: is there twice, first in line {before}"


class _Scanner:
    """Finds keys; `lines` holds the first line on which each is spoken of, and a table's header rather than a mention.
    `latest` is the last statement's key, its line, and the one on which it was spoken of before. The text may end in a
    header, before its brackets do."""

    def __init__(self, text: str) -> None:
        self.lines: dict[Keys, int] = {}
        self.latest: tuple[Keys, int, int | None] = ((), 1, None)
        self._text = text
        self._newlines = [match.start() for match in re.finditer("\n", text)]
        self._at = 0
        self._arrays: dict[Keys, int] = {}
        table: Keys = ()
        while self._skip(_BLANK) or self._at < len(text):
            if self._at == len(text):
                break
            if self._text.startswith("[", self._at):
                table = self._header()
            else:
                self._pair(table)

    def _skip(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self._text, self._at)
        if match is None:
            return ""
        self._at = match.end()
        return match[0]

    @property
    def _line(self) -> int:
        return bisect_right(self._newlines, self._at) + 1

    def _note(self, keys: Keys) -> None:
        self.lines.setdefault(keys, self._line)

    def _header(self) -> Keys:
        brackets = 2 if self._text.startswith("[[", self._at) else 1
        start = self._at
        self._at += brackets
        *outer, last = self._key()
        closing = self._text.find("]", self._at)
        end = self._at = len(self._text) if closing < 0 else closing + brackets
        self._at = start
        table: Keys = ()
        for part in outer:
            table = (*table, part)
            self._note(table)
            if table in self._arrays:
                table = (*table, self._arrays[table])
        table = (*table, last)
        self.latest = table, self._line, self.lines.get(table)
        if brackets == 2:
            self._note(table)
            self._arrays[table] = self._arrays.get(table, -1) + 1
            table = (*table, self._arrays[table])
        self.lines.pop(table, None)
        self._note(table)
        self._at = end
        return table

    def _pair(self, table: Keys) -> None:
        start = self._at
        parts = self._key()
        end = self._at = self._text.index("=", self._at) + 1
        self._at = start
        whole = (*table, *parts)
        latest = whole, self._line, self.lines.get(whole)
        for part in parts:
            table = (*table, part)
            self._note(table)
        self._at = end
        self._value(table)
        self.latest = latest

    def _key(self) -> list[str]:
        parts = []
        while True:
            self._skip(_BLANK)
            quoted = self._skip(_STRING)
            parts.append(tomllib.loads(f"key = {quoted}")["key"] if quoted else self._skip(_BARE_KEY))
            self._skip(_BLANK)
            if not self._text.startswith(".", self._at):
                return parts
            if len(parts) == KEY_PARTS_MAX:
                raise RecursionError
            self._at += 1

    def _value(self, keys: Keys) -> None:
        self._skip(_BLANK)
        opening = self._text[self._at]
        if opening in "[{":
            self._at += 1
            index = 0
            self._skip(_BLANK)
            while self._text[self._at] not in "]}":
                if opening == "{":
                    self._pair(keys)
                else:
                    self._note((*keys, index))
                    self._value((*keys, index))
                    index += 1
                self._skip(_BLANK)
            self._at += 1
        elif not self._skip(_STRING):
            self._skip(_PLAIN_VALUE)
