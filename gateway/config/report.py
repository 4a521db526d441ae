"""Where in the file a value is, and what is wrong with it."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from gateway.config.source import Keys, Source, dotted


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown word; empty if nothing is like it."""
    names = {name.lower().replace("-", "_"): name for name in known}
    close = get_close_matches(word.lower().replace("-", "_"), names, n=1)
    return f"; did you mean {names[close[0]]!r}?" if close else ""


class Report:
    """All problems found in one file."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._problems: list[tuple[int, str]] = []

    def add(self, keys: Keys, message: str) -> None:
        line = self.source.line(keys)
        where = f"{dotted(keys)}: " if keys else ""
        # One line each, whatever a key or a driver's message contains.
        text = " ".join(f"{where}{message}".split())
        problem = (line, f"{self.source.path}:{line}: {text}")
        if problem not in self._problems:
            self._problems.append(problem)

    def add_at(self, path: str, message: str) -> None:
        """`path` is text from a model's own check, such as "drivers.floor.users.bob" or "routes[0].topic"."""
        self.add(self._keys(path), message)

    @property
    def count(self) -> int:
        return len(self._problems)

    @property
    def problems(self) -> list[str]:
        """In the order of the file."""
        return [text for _, text in sorted(self._problems, key=lambda problem: problem[0])]

    def _keys(self, path: str) -> Keys:
        # Names may contain dots, so the file itself says where one ends.
        keys: Keys = ()
        value: object = self.source.data
        while path:
            path = path.removeprefix(".")
            if found := re.match(r"\[([0-9]+)\]", path):
                index = int(found[1])
                value = value[index] if isinstance(value, list) and index < len(value) else None
                keys, path = (*keys, index), path[found.end() :]
            else:
                table = value if isinstance(value, dict) else {}
                fitting = [name for name in table if re.match(rf"{re.escape(name)}(?=[.\[]|$)", path)]
                name = max(fitting, key=len, default=re.split(r"[.\[]", path)[0])
                value = table.get(name)
                keys, path = (*keys, name), path[len(name) :]
        return keys


@dataclass(frozen=True)
class Place:
    """One value's place in a file that is being read."""

    report: Report
    keys: Keys = ()

    def below(self, key: str | int) -> "Place":
        return Place(self.report, (*self.keys, key))

    def problem(self, message: str) -> None:
        self.report.add(self.keys, message)

    @property
    def folder(self) -> Path:
        """What relative paths in the file are relative to."""
        return self.report.source.path.parent
