"""A gateway with a fault put in on purpose, to see that tests and the demo notice: the promise broken in one place.

    python -m gateway.testing.sabotage MODE run --config FILE

ack-early         devices are told that their records are stored before they are
lose-readings     some of the records that no device waits for are not stored
ignore-positions  what was delivered is not remembered on disk, and Kafka is not asked after a crash
"""

import asyncio
import random
import sys
from collections.abc import Callable, Mapping, Sequence

from gateway.cli import main as tidegate
from gateway.driver import Mark, MarkKey
from gateway.queue import Queue
from gateway.record import Record
from gateway.runtime.emit import QueueEmit
from gateway.sync import standing
from gateway.sync.lineage import Seen
from gateway.sync.position import Key
from gateway.sync.reconcile import Assume, Local, Verdict


def ack_early() -> None:
    """The awaitable resolves at once; the commit comes after `unacked_interval`."""
    store = QueueEmit.__call__

    def emit(
        self: QueueEmit,
        records: Sequence[Record],
        *,
        remember: Sequence[Mark] = (),
        forget: Sequence[MarkKey] = (),
        waits: bool = True,
    ) -> asyncio.Future[None]:
        store(self, records, remember=remember, forget=forget, waits=False)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    QueueEmit.__call__ = emit  # type: ignore[method-assign]


def lose_readings() -> None:
    """One call in three, while all is well."""
    store = QueueEmit.__call__

    def emit(
        self: QueueEmit,
        records: Sequence[Record],
        *,
        remember: Sequence[Mark] = (),
        forget: Sequence[MarkKey] = (),
        waits: bool = True,
    ) -> asyncio.Future[None]:
        if not waits and random.random() < 1 / 3:
            records = ()
        return store(self, records, remember=remember, forget=forget, waits=waits)

    QueueEmit.__call__ = emit  # type: ignore[method-assign]


def ignore_positions() -> None:
    def believe_the_disk(
        local: Local, seen: Mapping[Key, Seen], gateway_id: str, assume: Assume | None = None
    ) -> Verdict:
        return Verdict(local.position)

    standing.reconcile = believe_the_disk  # type: ignore[attr-defined]
    Queue._confirm_is_due = lambda self: False  # type: ignore[method-assign]  # noqa: SLF001


MODES: Mapping[str, Callable[[], None]] = {
    "ack-early": ack_early,
    "lose-readings": lose_readings,
    "ignore-positions": ignore_positions,
}


def main() -> None:
    mode, *arguments = sys.argv[1:] or ["none"]
    if mode not in MODES:
        sys.exit(f"usage: python -m gateway.testing.sabotage {{{'|'.join(MODES)}}} run --config FILE")
    MODES[mode]()
    sys.argv = ["tidegate", *arguments]
    tidegate()


if __name__ == "__main__":
    main()
