"""Where a queue's records were before they were its own."""

import json
from collections.abc import Mapping
from typing import NamedTuple, Self


class Salvaged(NamedTuple):
    """Records that were brought over from a damaged database: they had `old_first`.. in queue `queue_id`."""

    queue_id: str
    old_first: int
    records: int
    first: int

    @property
    def old_last(self) -> int:
        return self.old_first + self.records - 1

    def number(self, old: int) -> int | None:
        """The present number of one of them."""
        return self.first + old - self.old_first if self.old_first <= old <= self.old_last else None

    def longer(self, records: int) -> "Salvaged":
        return self._replace(records=self.records + records)


class Origin(NamedTuple):
    """Queue `of` went on from `queue_id`: numbers up to `through` {lane: number} are that queue's, not its own."""

    of: str
    queue_id: str
    through: Mapping[str, int]

    @classmethod
    def known(cls, meta: Mapping[str, str], queue_id: str) -> Self | None:
        """Of this queue, if it went on from another one."""
        origin = cls(*json.loads(meta["origin"])) if "origin" in meta else None
        return origin if origin is not None and origin.of == queue_id else None

    def encode(self) -> str:
        return json.dumps(self)

    def shared(self, lane: str) -> Salvaged:
        """The numbers that both queues have, as if they had been saved."""
        return Salvaged(self.queue_id, 1, self.through[lane], 1)
