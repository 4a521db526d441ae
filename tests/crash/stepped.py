"""An event loop on one thread with a clock that jumps to the next timer: what runs on it is the same every time."""

import asyncio
import selectors
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TypeVar, TypeVarTuple, Unpack

from gateway.errors import TidegateError

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

BORN_MS = 1_700_000_000_000


class _Jump(selectors.SelectSelector):
    """Nothing comes from outside: to wait is to move the clock."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("everything waits, and no timer runs")
        self.now += timeout
        return []


class SteppedLoop(asyncio.SelectorEventLoop):
    """What is given to a thread runs on the loop, in the order in which it was given, after what is ready now."""

    def __init__(self) -> None:
        self._jump = _Jump()
        super().__init__(self._jump)

    def time(self) -> float:
        return self._jump.now

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[Unpack[Ts]], T], *args: *Ts
    ) -> asyncio.Future[T]:
        future: asyncio.Future[T] = self.create_future()
        self.call_soon(self._run, future, func, args)
        return future

    def _run(self, future: asyncio.Future[T], func: Callable[..., T], args: tuple[object, ...]) -> None:
        try:
            result = func(*args)
        except TidegateError as error:
            if not future.cancelled():
                future.set_exception(error)
        else:
            if not future.cancelled():
                future.set_result(result)


class SteppedClock:
    def __init__(self, loop: SteppedLoop) -> None:
        self._loop = loop

    def wall_ms(self) -> int:
        return BORN_MS + self.boottime_ms()

    def monotonic(self) -> float:
        return self._loop.time()

    def boottime_ms(self) -> int:
        return int(self._loop.time() * 1000)
