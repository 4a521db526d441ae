"""The only way to a cluster: a proxy before each of its nodes, broken together."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from gateway.testing.cluster import KafkaCluster
from gateway.testing.proxy import Direction, Frame, Proxy, Trap


class Links:
    def __init__(self, proxies: list[Proxy]) -> None:
        self.proxies = proxies

    @classmethod
    @asynccontextmanager
    async def to(cls, cluster: KafkaCluster) -> AsyncIterator["Links"]:
        async with AsyncExitStack() as stack:
            yield cls(
                [
                    await stack.enter_async_context(
                        Proxy(node.address("proxied"), node.advertised_port("proxied"))
                    )
                    for node in cluster.nodes.values()
                ]
            )

    @property
    def addresses(self) -> list[str]:
        return [proxy.address for proxy in self.proxies]

    async def cut(self) -> None:
        for proxy in self.proxies:
            await proxy.cut()

    async def reset(self) -> None:
        for proxy in self.proxies:
            await proxy.reset()

    async def restore(self) -> None:
        """As Proxy.restore, and lets go of what was held."""
        for proxy in self.proxies:
            for trap in proxy.traps:
                trap.release()
            proxy.traps.clear()
            await proxy.restore()

    def black_hole(self) -> None:
        for proxy in self.proxies:
            proxy.black_hole()

    def shape(self, *, delay_s: float, bytes_per_s: int) -> None:
        for proxy in self.proxies:
            for direction in Direction:
                proxy.shape(direction, delay_s=delay_s, bytes_per_s=bytes_per_s)

    def trap(self, api_key: int, direction: Direction, cut_after: int | None = None) -> Trap:
        """For the first such frame on any of the links: cut after so many bytes, or held."""
        trap = Trap(api_key, direction, 0, cut_after)
        for proxy in self.proxies:
            proxy.traps.append(trap)
        return trap

    def frames(self, api_key: int, direction: Direction) -> list[Frame]:
        """All such frames until now, of one link after the other."""
        return [
            frame
            for proxy in self.proxies
            for frame in proxy.frames
            if (frame.api_key, frame.direction) == (api_key, direction)
        ]
