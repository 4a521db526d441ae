"""One line of what `make bench` prints."""

from typing import NamedTuple


class Row(NamedTuple):
    what: str
    value: str
    budget: str = ""
