"""What the control socket needs of a running gateway. gateway.runtime and gateway.testing.gateway implement it."""

from collections.abc import Set
from typing import Protocol

from gateway.queue import Queue
from gateway.runtime.status import Status, Verification
from gateway.runtime.tap import Tap
from gateway.sync import Answer


class Gateway(Protocol):
    @property
    def queue(self) -> Queue: ...

    @property
    def tap(self) -> Tap: ...

    @property
    def own_topics(self) -> Set[str]:
        """Where nobody else's records may go."""

    async def status(self) -> Status: ...

    async def prometheus(self) -> str:
        """Every series, as Prometheus reads it."""

    async def verify(self) -> Verification:
        """Count every side of the conservation law from its own source; reads the whole queue."""

    async def adopt(self, answer: Answer | None) -> None:
        """An operator's word: the place found now is right, and what was in doubt was delivered or lost."""
