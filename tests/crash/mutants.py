"""Queues that break the promise in one place each. The laws must notice every one of them."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from gateway.driver import Mark, MarkKey
from gateway.queue import Entry, Queue
from gateway.queue.state import Buried, Group, Outcome
from gateway.queue.store import Store


class AckEarly(Queue):
    """The future is resolved before the commit."""

    def put(self, entries: Sequence[Entry], **more: Any) -> asyncio.Future[None]:
        super().put(entries, **more)
        return _done()


class PubcompEarly(Queue):
    """A forgotten mark, as of a QoS 2 message, is acknowledged before it is gone from the disk."""

    def put(
        self,
        entries: Sequence[Entry],
        *,
        lane: str = "main",
        remember: Sequence[Mark] = (),
        forget: Sequence[MarkKey] = (),
        waits: bool = True,
    ) -> asyncio.Future[None]:
        future = super().put(entries, lane=lane, remember=remember, forget=forget, waits=waits)
        return _done() if forget else future


class EvictInFlight(Queue):
    """The pin is ignored."""

    def _evict_after(self) -> int:
        return max(self._lanes["main"].position, *self._buried["main"], 0)


def _done() -> asyncio.Future[None]:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    future.set_result(None)
    return future


class OnStore(Queue):
    """A queue on another `store_class`."""

    store_class: type[Store]

    @classmethod
    async def open(cls, path: Path, *rest: Any, **more: Any) -> Queue:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("gateway.queue.salvage.Store", cls.store_class)
            return await super().open(path, *rest, **more)


class SynchronousNormal(OnStore):
    class store_class(Store):  # noqa: N801
        def __init__(self, *rest: Any, **more: Any) -> None:
            super().__init__(*rest, **more)
            self._db.execute("PRAGMA synchronous=normal")


class NextSeqOutside(OnStore):
    """Segments are deleted in one transaction, lane.next_seq and the position follow in another."""

    class store_class(Store):  # noqa: N801
        _late: tuple[Group, Outcome] | None = None

        def _confirm(self, group: Group, outcome: Outcome) -> None:
            for lane, state in group.confirm.items():
                self._segments.trim(lane, state.position)
            self._late = group, outcome

        def commit(self, *rest: Any) -> Outcome:
            outcome = super().commit(*rest)
            if self._late is not None:
                with self._transaction():
                    super()._confirm(*self._late)
                self._late = None
            return outcome


class TrimPastPosition(OnStore):
    class store_class(Store):  # noqa: N801
        def _confirm(self, group: Group, outcome: Outcome) -> None:
            super()._confirm(group, outcome)
            self._segments.trim("main", group.confirm["main"].position + 5)


class MarkApart(OnStore):
    """Records are committed before the marks that belong to them."""

    class store_class(Store):  # noqa: N801
        def commit(self, group: Group, next_seq: Mapping[str, int], now: tuple[int, int]) -> Outcome:
            marks, group.marks = group.marks, []
            outcome = super().commit(group, next_seq, now)
            group.marks = marks
            with self._transaction():
                for mark in marks:
                    self._mark(mark)
            return outcome


class DeadLettersUntold(OnStore):
    """Dead letters that make room are gone before the ledger says so."""

    class store_class(Store):  # noqa: N801
        def surplus(self) -> list[Buried]:
            found = super().surplus()
            with self._transaction():
                self._db.executemany("DELETE FROM dead WHERE id=?", [(one.id,) for one in found])
            return found


MUTANTS: Sequence[type[Queue]] = (
    SynchronousNormal,
    AckEarly,
    NextSeqOutside,
    EvictInFlight,
    TrimPastPosition,
    MarkApart,
    PubcompEarly,
    DeadLettersUntold,
)
