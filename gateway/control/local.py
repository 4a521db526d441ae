"""The queue while no gateway runs: the same file lock, the same code, one command long."""

import asyncio
import os
from collections.abc import Coroutine, Iterator
from types import TracebackType
from typing import Any, TypeVar

from gateway.clock import SystemClock
from gateway.codec import Shape
from gateway.config import Config
from gateway.control import contents
from gateway.control.contents import Contents
from gateway.control.transfer import BadTransfer, Imported, export_frames, import_part
from gateway.control.wire import StoredRecord
from gateway.errors import CommandError, Refused, StorageError, StorageUnwritable
from gateway.queue import Buried, Queue
from gateway.runtime.owner import acting_as, owner_of
from gateway.runtime.runtime import QUEUE_FILE
from gateway.sync import Answer, adopt, note_board

T = TypeVar("T")

WAITS = "a gateway that was started waits, with nothing open, until it can be written: its log says so"


class LocalQueue:
    """Methods as those of gateway.control.client.Client; they raise CommandError."""

    def __init__(self, config: Config) -> None:
        folder = config.gateway.data_dir
        path = folder / QUEUE_FILE
        if not path.exists():
            if folder.is_dir() and os.statvfs(folder).f_flag & os.ST_RDONLY:
                raise CommandError(f"{folder}: its file system is read-only; {WAITS}", os.EX_TEMPFAIL)
            raise CommandError(f"{folder}: no gateway runs here, and there is no queue either", os.EX_NOINPUT)
        self._gateway_id = config.gateway.id
        self._own_topics = config.kafka.own_topics
        self._owner = owner_of(path)
        self._runner = asyncio.Runner()
        ledger = Shape(config.kafka.ledger_topic, config.gateway.id.encode(), ())
        try:
            self._queue = self._run(Queue.open(path, config.queue, SystemClock(), ledger=ledger))
            self._run(note_board(self._queue, self._gateway_id))
        except CommandError:
            self._runner.close()
            raise

    def __enter__(self) -> "LocalQueue":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._run(self._queue.close())
        finally:
            self._runner.close()

    def contents(self) -> Contents:
        return self._run(contents.contents(self._queue))

    def peek(self, lane: str, after: int | None, limit: int) -> list[StoredRecord]:
        return self._run(contents.peek(self._queue, lane, after, limit))

    def export(self) -> Iterator[bytes]:
        frames = export_frames(self._queue, self._gateway_id)

        async def following() -> bytes | None:
            return await anext(frames, None)

        while (frame := self._run(following())) is not None:
            yield frame

    def import_part(self, file: str, start: int, transfer: bytes) -> Imported:
        return self._run(import_part(self._queue, file, start, transfer, self._own_topics))

    def dead(self, limit: int) -> list[Buried]:
        return self._run(contents.dead(self._queue, limit))

    def dead_record(self, row_id: int) -> StoredRecord:
        record = self._run(contents.dead_record(self._queue, row_id))
        if record is None:
            raise CommandError("there is no such dead letter", os.EX_NOINPUT)
        return record

    def retry(self, ids: list[int]) -> int:
        return self._run(self._queue.retry(ids))

    def adopt(self, answer: Answer | None) -> None:
        self._run(adopt(self._queue, self._gateway_id, answer))

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        """As the queue's owner; what commands read and write beside it is for the user who called."""
        try:
            with acting_as(self._owner):
                return self._runner.run(work)
        except StorageUnwritable as error:
            raise CommandError(f"{error}; {WAITS}", os.EX_TEMPFAIL) from error
        except (Refused, StorageError) as error:
            raise CommandError(str(error), os.EX_TEMPFAIL) from error
        except BadTransfer as error:
            raise CommandError(str(error)) from error
