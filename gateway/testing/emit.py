"""An Emit in memory: what a driver's tests hold against it instead of a queue.

Like the queue it stores calls in order and resolves each later than the call, never inside it. `hold()` is a slow
disk, `release()` its fsync, `refuse` a full queue, `fail()` a failing disk, `restart()` a power cut.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from gateway.driver import Mark, MarkKey
from gateway.errors import Refused
from gateway.record import Record


class Call(NamedTuple):
    records: tuple[Record, ...]
    remember: tuple[Mark, ...]
    forget: tuple[MarkKey, ...]
    waits: bool
    stored: asyncio.Future[None]


class Disk:
    """What survives a restart."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.marks: dict[MarkKey, Mark] = {}


class FakeEmit:
    """Satisfies gateway.driver.Emit.

    `records` are stored, in order; `held` are calls that wait; `told` counts what the driver said was acknowledged,
    `events` what else it counted.
    """

    def __init__(self, disk: Disk | None = None) -> None:
        self.disk = disk or Disk()
        self.calls: list[Call] = []
        self.held: deque[Call] = deque()
        self.refuse: Refused | None = None
        self.told = 0
        self.failures: list[tuple[str, str]] = []
        self.events: Counter[str] = Counter()
        self._holding = False
        self._at_start = dict(self.disk.marks)
        self._waiters: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []

    def __call__(
        self,
        records: Sequence[Record],
        *,
        remember: Sequence[Mark] = (),
        forget: Sequence[MarkKey] = (),
        waits: bool = True,
    ) -> asyncio.Future[None]:
        if self.refuse is not None:
            raise self.refuse
        loop = asyncio.get_running_loop()
        call = Call(tuple(records), tuple(remember), tuple(forget), waits, loop.create_future())
        self.calls.append(call)
        self.held.append(call)
        if not self._holding:
            loop.call_soon(self._commit_unless_held)
        self._look()
        return call.stored

    def recall(self, scope: str) -> Mapping[bytes, bytes]:
        return {key.key: mark.value for key, mark in self._at_start.items() if key.scope == scope}

    def accepted(self, count: int) -> None:
        self.told += count
        self._look()

    def device_failed(self, device: str, reason: str) -> None:
        self.failures.append((device, reason))
        self._look()

    def count(self, event: str, amount: int = 1) -> None:
        self.events[event] += amount
        self._look()

    @property
    def records(self) -> list[Record]:
        return self.disk.records

    @property
    def marks(self) -> dict[MarkKey, Mark]:
        return self.disk.marks

    def hold(self) -> None:
        """From now on nothing is stored before `release`."""
        self._holding = True

    def release(self, calls: int | None = None) -> None:
        """Store the oldest held calls; without a number all of them, and hold no longer."""
        if calls is None:
            self._holding = False
        for _ in range(len(self.held) if calls is None else calls):
            self._store(self.held.popleft())
        self._look()

    @contextmanager
    def holding(self) -> Iterator[None]:
        self.hold()
        try:
            yield
        finally:
            self.release()

    def fail(self, error: Refused, calls: int | None = None) -> None:
        """The oldest held calls fail, without a number all of them; nothing of them is stored."""
        for _ in range(len(self.held) if calls is None else calls):
            call = self.held.popleft()
            if not call.stored.done():
                call.stored.set_exception(error)
        self._look()

    def restart(self) -> "FakeEmit":
        """The next process on the same disk; what was held is lost, as in a power cut."""
        self._holding = True
        self.held.clear()
        return FakeEmit(self.disk)

    async def until(self, condition: Callable[[], bool], within_s: float = 5.0) -> None:
        """Wait for something that one of these calls brings about. Raises TimeoutError."""
        if condition():
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append((condition, waiter))
        async with asyncio.timeout(within_s):
            await waiter

    async def stored(self, count: int, within_s: float = 5.0) -> list[Record]:
        """The records, once there are at least `count`."""
        await self.until(lambda: len(self.records) >= count, within_s)
        return self.records

    def _commit_unless_held(self) -> None:
        if self._holding:
            return
        while self.held:
            self._store(self.held.popleft())
        self._look()

    def _store(self, call: Call) -> None:
        self.disk.records.extend(call.records)
        for key in call.forget:
            self.disk.marks.pop(key, None)
        for mark in call.remember:
            self.disk.marks[MarkKey(mark.scope, mark.key)] = mark
        if not call.stored.done():
            call.stored.set_result(None)

    def _look(self) -> None:
        waiting = self._waiters
        self._waiters = []
        for condition, waiter in waiting:
            if condition() and not waiter.done():
                waiter.set_result(None)
            elif not waiter.done():
                self._waiters.append((condition, waiter))
