"""The only way to a cluster: a proxy before each of its nodes, broken together."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.testing.cluster import KafkaCluster
from gateway.testing.proxy import Direction, Frame, Proxy, Trap

FRAMES_MAX = 2000


class Links:
    """`addresses` are where clients begin, and stay; those that the nodes name change when the cluster moves."""

    def __init__(self, cluster: KafkaCluster) -> None:
        self._nodes = list(cluster.nodes.values())
        self._entries = [Proxy(node.address("proxied")) for node in self._nodes]
        self._named: list[Proxy] = []

    @classmethod
    @asynccontextmanager
    async def to(cls, cluster: KafkaCluster) -> AsyncIterator["Links"]:
        links = cls(cluster)
        for proxy in links._entries:
            await proxy.restore()
        try:
            await links.follow()
            yield links
        finally:
            await links.cut()

    @property
    def addresses(self) -> list[str]:
        return [proxy.address for proxy in self._entries]

    async def follow(self) -> None:
        """To where the nodes are now."""
        for proxy in self._named:
            await proxy.cut()
        self._named = [
            Proxy(node.address("proxied"), node.advertised_port("proxied")) for node in self._nodes
        ]
        for entry, node in zip(self._entries, self._nodes, strict=True):
            entry.lead_to(node.address("proxied"))
        await self.restore()

    async def cut(self) -> None:
        for proxy in self._all():
            await proxy.cut()

    async def reset(self) -> None:
        for proxy in self._all():
            await proxy.reset()

    async def restore(self) -> None:
        """As Proxy.restore, and lets go of what was held."""
        for proxy in self._all():
            for trap in proxy.traps:
                trap.release()
            proxy.traps.clear()
            await proxy.restore()

    def black_hole(self) -> None:
        for proxy in self._all():
            proxy.black_hole()

    def shape(self, *, delay_s: float, bytes_per_s: int) -> None:
        for proxy in self._all():
            for direction in Direction:
                proxy.shape(direction, delay_s=delay_s, bytes_per_s=bytes_per_s)

    def trap(self, api_key: int, direction: Direction, cut_after: int | None = None) -> Trap:
        """For the first such frame on any of the links: cut after so many bytes, or held."""
        trap = Trap(api_key, direction, 0, cut_after)
        for proxy in self._all():
            proxy.traps.append(trap)
        return trap

    def frames(self, api_key: int, direction: Direction) -> list[Frame]:
        """All such frames until now, of one link after the other."""
        return [
            frame
            for proxy in self._all()
            for frame in proxy.frames
            if (frame.api_key, frame.direction) == (api_key, direction)
        ]

    def forget(self) -> None:
        """All frames but the latest."""
        for proxy in self._all():
            del proxy.frames[:-FRAMES_MAX]

    def _all(self) -> list[Proxy]:
        return [*self._entries, *self._named]
