"""What a check found."""

import enum
from typing import NamedTuple


class Verdict(enum.StrEnum):
    OK = "ok"
    WARNING = "warning"
    FAILURE = "failure"


class Finding(NamedTuple):
    """`text` says what was found and, unless that is well, what to do."""

    subject: str
    verdict: Verdict
    text: str
