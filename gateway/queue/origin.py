"""Where a queue's records were before they were its own."""

import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Self


class Run(NamedTuple):
    """One process life: the first sequence number it could give in `lane`."""

    run_id: str
    lane: str
    first: int


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


class Former(NamedTuple):
    """One lane of a damaged queue: who gave which of its numbers, oldest first, and the number that came next."""

    runs: Sequence[Run]
    next_seq: int


def encode_formers(formers: Mapping[str, Mapping[str, Former]]) -> str:
    """{queue id: {lane: former}}."""
    return json.dumps(
        {
            queue_id: {
                lane: [[[run.run_id, run.first] for run in former.runs], former.next_seq]
                for lane, former in lanes.items()
            }
            for queue_id, lanes in formers.items()
        },
        separators=(",", ":"),
    )


def decode_formers(text: str) -> dict[str, dict[str, Former]]:
    return {
        queue_id: {
            lane: Former([Run(run_id, lane, first) for run_id, first in runs], next_seq)
            for lane, (runs, next_seq) in lanes.items()
        }
        for queue_id, lanes in json.loads(text).items()
    }


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
