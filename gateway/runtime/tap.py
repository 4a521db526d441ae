"""Records as they are accepted, for whoever looks on. A slow onlooker loses records, never holds the gateway up."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from gateway.record import Record

BACKLOG_RECORDS = 1000
BACKLOG_BYTES = 4 << 20
"""Of one onlooker; a record has up to 1 MiB."""


class Seen(NamedTuple):
    """`lost` records were not shown before this one, because the onlooker was too slow."""

    driver: str
    record: Record
    lost: int


class Onlooker:
    def __init__(self, driver: str | None, device: str | None) -> None:
        self._driver = driver
        self._device = device
        self._waiting: asyncio.Queue[Seen] = asyncio.Queue(BACKLOG_RECORDS)
        self._bytes = 0
        self._lost = 0

    async def next(self) -> Seen:
        seen = await self._waiting.get()
        self._bytes -= _size(seen.record)
        return seen

    def show(self, driver: str, records: Sequence[Record]) -> None:
        if self._driver not in (None, driver):
            return
        for record in records:
            if self._device not in (None, record.device):
                continue
            size = _size(record)
            if self._waiting.full() or self._bytes + size > BACKLOG_BYTES:
                self._lost += 1
            else:
                self._bytes += size
                self._waiting.put_nowait(Seen(driver, record, self._lost))
                self._lost = 0


class Tap:
    def __init__(self) -> None:
        self.onlookers: list[Onlooker] = []

    def show(self, driver: str, records: Sequence[Record]) -> None:
        for onlooker in self.onlookers:
            onlooker.show(driver, records)

    @contextmanager
    def watch(self, driver: str | None = None, device: str | None = None) -> Iterator[Onlooker]:
        """Records of one driver and one device, or of all."""
        onlooker = Onlooker(driver, device)
        self.onlookers.append(onlooker)
        try:
            yield onlooker
        finally:
            self.onlookers.remove(onlooker)


def _size(record: Record) -> int:
    return len(record.body) + sum(len(value) for _, value in record.headers)
