"""Who waits until a record is on disk."""

import asyncio
from collections.abc import Mapping


class Arrivals:
    def __init__(self) -> None:
        self._waiting: list[tuple[str, int, asyncio.Future[None]]] = []

    async def wait(self, lane: str, after: int) -> None:
        """Until a record of the lane with a number > after is on disk."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((lane, after, future))
        await future

    def stored(self, next_seq: Mapping[str, int]) -> None:
        """All below these numbers is on disk."""
        waiting, self._waiting = self._waiting, []
        for lane, after, future in waiting:
            if next_seq[lane] - 1 <= after:
                self._waiting.append((lane, after, future))
            elif not future.done():
                future.set_result(None)
