"""Where what waits was before it was this queue's: in damaged queues, from one of which it was saved."""

import json
from collections.abc import Collection, Mapping, Sequence

from gateway.queue.origin import Former, Salvaged, decode_formers
from gateway.queue.schema import LANES

NAMELESS = "?"
"""Before the name of a queue: some queue before that one, or it itself, whose own name is lost."""


class Past:
    """`meta` is the queue's, `salvaged` of the table of that name."""

    def __init__(self, meta: Mapping[str, str], salvaged: Mapping[str, Sequence[Salvaged]]) -> None:
        self._salvaged = salvaged
        self.former_queues = decode_formers(meta.get("formers", "{}"))
        """{queue id: {lane: former}} of those whose runs could be read, the nearest first."""
        self.unmapped: Sequence[str] = json.loads(meta.get("unmapped", "[]"))
        """Queues of whose records some wait here, but no longer is it known which: the nearest first."""

    def salvaged(self, lane: str) -> Sequence[Salvaged]:
        """The nearest queue's first: after more than one damage without a link there are several."""
        return self._salvaged[lane]

    def maybe(self, sent: Collection[str]) -> Sequence[str]:
        """`unmapped`, and of those queues that have `sent` each which may be one that is nameless: any, unless the nearest is
        known by its name. It settled with those before it."""
        chain = self._saved_from()
        found = list(self.unmapped)
        for name in self.unmapped:
            before = name.removeprefix(NAMELESS)
            nearer = chain[: chain.index(before) + 1] if before in chain else chain
            if before != name and not {*sent}.intersection(nearer):
                found += sent
        return found

    def queue_ids(self) -> set[str]:
        """Also of damaged queues in which nothing waited."""
        return {*self._saved_from(), *self.former_queues, *self.unmapped}

    def _saved_from(self) -> list[str]:
        """Queues of which something waits here, the nearest first."""
        return list(dict.fromkeys(piece.queue_id for lane in LANES for piece in self._salvaged[lane]))

    def formers(self, lane: str) -> dict[str, Former]:
        """{queue id: former}"""
        return {queue_id: lanes[lane] for queue_id, lanes in self.former_queues.items()}
