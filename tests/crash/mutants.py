# ruff: noqa: SLF001 a mutant breaks what is inside
"""The queue with the promise broken in one place each, to see that power cuts show it."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import apsw
import pytest

from gateway.driver import MarkKey
from gateway.queue.queue import Queue
from gateway.queue.schema import connect
from gateway.queue.segments import Segments
from gateway.queue.state import Group, Outcome
from gateway.queue.store import Store

LATER_COMMITS = 60


def synchronous_normal(patch: pytest.MonkeyPatch) -> None:
    """The log is not flushed with each commit."""

    def lazily(path: Path, page_bytes: int, vfs: str | None = None) -> apsw.Connection:
        connection = connect(path, page_bytes, vfs)
        connection.execute("PRAGMA synchronous=normal")
        return connection

    patch.setattr("gateway.queue.store.connect", lazily)


def synchronous_normal_later(patch: pytest.MonkeyPatch) -> None:
    """Only an old process does it: a workload that is cut in its first minutes does not see it."""
    commit = Store.commit

    def lazily(store: Store, *arguments: Any) -> Outcome:
        if store.commits == LATER_COMMITS:
            store._db.execute("PRAGMA synchronous=normal")
        return commit(store, *arguments)

    patch.setattr(Store, "commit", lazily)


def ack_early(patch: pytest.MonkeyPatch) -> None:
    """Devices are told before the commit."""
    put = Queue.put

    def early(queue: Queue, *arguments: Any, **options: Any) -> asyncio.Future[None]:
        put(queue, *arguments, **options)
        return _told()

    patch.setattr(Queue, "put", early)


def pubcomp_early(patch: pytest.MonkeyPatch) -> None:
    """The release of an MQTT message of QoS 2 is confirmed before the mark is gone: sent again, the same packet
    id would be taken for the old message."""
    put = Queue.put

    def early(
        queue: Queue, entries: Any, *, forget: Sequence[MarkKey] = (), **more: Any
    ) -> asyncio.Future[None]:
        stored = put(queue, entries, forget=forget, **more)
        return _told() if forget else stored

    patch.setattr(Queue, "put", early)


def next_seq_outside(patch: pytest.MonkeyPatch) -> None:
    """The lane's numbers are written behind the transaction that deletes its segments."""

    def delete(store: Store, group: Group, _: Outcome) -> None:
        for lane, state in group.confirm.items():
            store._segments.trim(lane, state.position)

    _behind(patch, "_confirm", delete)


def mark_outside(patch: pytest.MonkeyPatch) -> None:
    """Marks are written behind the transaction that holds their records."""
    _behind(patch, "_mark", lambda *_: None)


def _behind(patch: pytest.MonkeyPatch, name: str, instead: Callable[..., None]) -> None:
    """Calls of the store's method `name` are done in a transaction of their own, after the commit."""
    method, commit = getattr(Store, name), Store._commit
    waiting: list[tuple[Any, ...]] = []

    def later(*arguments: Any) -> None:
        instead(*arguments)
        waiting.append(arguments)

    def commit_twice(store: Store, *arguments: Any) -> Outcome:
        outcome = commit(store, *arguments)
        with store._transaction():
            while waiting:
                method(*waiting.pop(0))
        return outcome

    patch.setattr(Store, name, later)
    patch.setattr(Store, "_commit", commit_twice)


def evict_in_flight(patch: pytest.MonkeyPatch) -> None:
    """What the sync is delivering may be dropped."""
    patch.setattr(Queue, "_evict_after", lambda queue: queue.position("main"))


def trim_past_confirmed(patch: pytest.MonkeyPatch) -> None:
    """More is deleted than Kafka has confirmed."""
    trim = Segments.trim
    patch.setattr(Segments, "trim", lambda segments, lane, position: trim(segments, lane, position + 2))


def _told() -> asyncio.Future[None]:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    future.set_result(None)
    return future


MUTANTS: Mapping[str, Callable[[pytest.MonkeyPatch], None]] = {
    "synchronous=NORMAL": synchronous_normal,
    "synchronous=NORMAL after a while": synchronous_normal_later,
    "ack early": ack_early,
    "PUBCOMP early": pubcomp_early,
    "next_seq outside the transaction": next_seq_outside,
    "mark not in the transaction": mark_outside,
    "evict in flight": evict_in_flight,
    "trim past the confirmed position": trim_past_confirmed,
}
