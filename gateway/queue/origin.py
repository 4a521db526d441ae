"""Where a queue's records were before they were its own."""

from collections.abc import Mapping
from typing import NamedTuple


class Salvaged(NamedTuple):
    """Records that were brought over from a damaged database: they had `old_first`.. in queue `queue_id`."""

    queue_id: str
    old_first: int
    records: int
    first: int

    @property
    def old_last(self) -> int:
        return self.old_first + self.records - 1

    def longer(self, records: int) -> "Salvaged":
        return self._replace(records=self.records + records)


class Origin(NamedTuple):
    """Queue `of` went on from `queue_id`: numbers up to `through` {lane: number} are that queue's, not its own."""

    of: str
    queue_id: str
    through: Mapping[str, int]
