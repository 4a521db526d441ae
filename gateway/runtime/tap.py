"""Records as they are accepted, for whoever looks on. A slow onlooker loses records, never holds the gateway up."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from gateway.record import Record

BACKLOG_RECORDS = 1000


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
        self._lost = 0

    async def next(self) -> Seen:
        return await self._waiting.get()

    def show(self, driver: str, records: Sequence[Record]) -> None:
        if self._driver not in (None, driver):
            return
        for record in records:
            if self._device not in (None, record.device):
                continue
            if self._waiting.full():
                self._lost += 1
            else:
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
