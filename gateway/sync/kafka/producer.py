"""An aiokafka producer that can be let go of at any moment, and that tells when an answer never came."""

import asyncio
from collections.abc import Coroutine
from contextvars import ContextVar
from typing import Any

from aiokafka import AIOKafkaProducer, errors
from aiokafka.consumer import fetcher as fetcher_module
from aiokafka.producer import producer as producer_module
from aiokafka.producer import sender as sender_module

CLOSE_TIMEOUT_S = 2.0

_owner: ContextVar[set[asyncio.Task[Any]] | None] = ContextVar("owner", default=None)


def _create_task(work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    task = asyncio.get_running_loop().create_task(work)
    owned = _owner.get()
    if owned is not None:
        owned.add(task)
        task.add_done_callback(owned.discard)
    return task


# aiokafka gives no way to cancel its tasks: those started on behalf of `owning` are remembered there.
for _module in (sender_module, producer_module, fetcher_module):
    _module.create_task = _create_task


def look(ended: "asyncio.Future[Any]") -> None:
    """asyncio complains of an exception that nobody looked at."""
    if not ended.cancelled():
        ended.exception()


async def close(work: Coroutine[Any, Any, Any]) -> None:
    """In a task of its own, for aiokafka's closing swallows that it is cancelled, as wait_for may: a sync that is to end
    would go on."""
    closing = asyncio.create_task(work)
    closing.add_done_callback(look)
    try:
        await asyncio.wait([closing], timeout=CLOSE_TIMEOUT_S)
    except asyncio.CancelledError:
        await asyncio.wait([closing], timeout=CLOSE_TIMEOUT_S)
        raise
    finally:
        closing.cancel()


class TaskOwner:
    """`async with` it: aiokafka's tasks started inside, and by those tasks, can be cancelled together later."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def __enter__(self) -> None:
        self._token = _owner.set(self._tasks)

    def __exit__(self, *_: object) -> None:
        _owner.reset(self._token)

    async def cancel(self) -> None:
        deadline = asyncio.get_running_loop().time() + CLOSE_TIMEOUT_S
        while self._tasks and asyncio.get_running_loop().time() < deadline:
            tasks = list(self._tasks)
            for task in tasks:
                task.cancel()
            done, _ = await asyncio.wait(tasks, timeout=0.2)
            for task in done:
                look(task)


class Producer:
    """One life of a producer: `start`, then anything, then `hard_close`."""

    def __init__(self, **options: Any) -> None:
        self.kafka = AIOKafkaProducer(**options)
        self.indefinite = False
        self._owner = TaskOwner()
        self._started = asyncio.get_running_loop().time()
        self._send = self.kafka.client.send
        self.kafka.client.send = self._watched_send

    @property
    def age_s(self) -> float:
        return asyncio.get_running_loop().time() - self._started

    @property
    def failure(self) -> "asyncio.Future[Any] | None":
        """Of the transaction under way: it fails when Kafka refuses one of its partitions, and then nothing else does:
        batches that were to be sent stay unanswered."""
        return self.kafka._txn_manager and self.kafka._txn_manager._transaction_waiter  # type: ignore[no-any-return]  # noqa: SLF001

    def cause(self, error: Exception) -> BaseException:
        """What broke the transaction under way, or else `error`: whoever uses a broken transaction is only told that
        there is none, or waits for ever."""
        broken, first = self.failure, None
        if broken is not None and broken.done() and not broken.cancelled():
            first = broken.exception()
        reason: BaseException = first or error
        while type(reason) is errors.KafkaError and reason.__cause__ is not None:
            reason = reason.__cause__  # aiokafka says no more of it than "unexpected"
        return reason

    async def start(self) -> None:
        with self._owner:
            await self.kafka.start()

    async def _watched_send(self, node: Any, request: Any, **options: Any) -> Any:
        """A request without an answer may reach the broker later, inside a transaction that it doesn't belong to."""
        try:
            return await self._send(node, request, **options)
        except (errors.KafkaError, OSError, asyncio.CancelledError):
            self.indefinite = True
            raise

    async def hard_close(self) -> None:
        """Ends all tasks and sockets without a word to the broker, however it is; at most a few seconds."""
        self.kafka._closed = True  # noqa: SLF001 else its finaliser complains
        broken = self.failure
        try:
            await self._owner.cancel()
        finally:
            await close(self.kafka.client.close())
        waiting = self.kafka._message_accumulator  # noqa: SLF001
        unsent = (batch for batches in waiting._batches.values() for batch in batches)  # noqa: SLF001
        futures = [future for batch in unsent for future in (batch.future, batch._drain_waiter)]  # noqa: SLF001
        for future in (broken, self.failure, *futures):
            if future is not None and future.done():
                look(future)
