"""One socket for both directions: what devices send, and what the gateway asks of them."""

import asyncio
from collections import defaultdict

from drivers.coap import Config, protocol
from drivers.coap.endpoint import Endpoint
from drivers.coap.exchanges import Exchanges
from drivers.coap.reader import Reader
from drivers.coap.server import Server, scope
from drivers.coap.turns import Turns
from gateway.driver import Context, Emit


class CoapDriver:
    def __init__(self, config: Config, context: Context) -> None:
        self._config = config
        self._context = context

    async def run(self, emit: Emit) -> None:
        config, context = self._config, self._context
        exchanges = Exchanges(config.exchanges_max, context.clock.monotonic, emit.recall(scope(context.name)))
        protections = None
        if config.oscore:
            from drivers.coap.oscore import Protections  # its libraries are an extra

            protections = Protections(config.oscore, context.name, emit, context.clock)
            await protections.reserve()
        server = Server(config, context, emit, exchanges, protections)
        endpoint = Endpoint(server.serve, server.no_room)
        await endpoint.open(config.listen, exchanges, emit.count)
        turns: defaultdict[str, Turns] = defaultdict(Turns)
        try:
            async with asyncio.TaskGroup() as group:
                for resource in config.resources:
                    protection = protections[resource.oscore] if protections and resource.oscore else None
                    shared = turns[protocol.server(resource.uri)]
                    reader = Reader(resource, config, context, emit, endpoint, protection, shared)
                    group.create_task(reader.run())
                await asyncio.get_running_loop().create_future()
        finally:
            await endpoint.shutdown()
