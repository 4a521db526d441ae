"""The listening socket, its connections, and the clock that ends those which are too slow or too silent."""

import asyncio
import ssl

from drivers.mqtt import Config, Tls
from drivers.mqtt.access import Access
from drivers.mqtt.connection import Connection
from drivers.mqtt.door import Door
from drivers.mqtt.protocol import Reason
from drivers.mqtt.room import Room
from drivers.mqtt.sessions import ANONYMOUS, Sessions
from drivers.mqtt.subscribers import Subscribers
from gateway.driver import Context, Emit, cannot_listen
from gateway.errors import DeviceError

BACKLOG = 512
LOOK_INTERVAL_S = 1.0
STOP_S = 1.0


class MqttDriver:
    def __init__(self, config: Config, context: Context) -> None:
        self._config = config
        self._context = context
        self._connections: set[Connection] = set()

    async def run(self, emit: Emit) -> None:
        config, context = self._config, self._context
        users = {*config.users, *([ANONYMOUS] if config.anonymous else [])}
        subscribers = Subscribers(config.retained_max, config.session_expiry, emit.count)
        door = Door(
            name=context.name,
            config=config,
            clock=context.clock,
            emit=emit,
            access=Access(config),
            sessions=Sessions(context.name, emit, config.session_expiry, context.clock.monotonic(), users),
            subscribers=subscribers,
            room=Room(),
        )
        server = await self._listen(door)
        try:
            while True:
                await asyncio.sleep(min(LOOK_INTERVAL_S, config.connect_timeout / 2))
                self._look(context.clock.monotonic())
        finally:
            server.close()
            await self._finish()
            await subscribers.stop()

    async def _listen(self, door: Door) -> asyncio.Server:
        config = self._config
        tls = None if config.tls is None else _tls(config.tls)
        try:
            return await asyncio.get_running_loop().create_server(
                lambda: Connection(door, self._connections),
                config.listen.host,
                config.listen.port,
                ssl=tls,
                ssl_handshake_timeout=config.connect_timeout if tls else None,
                backlog=BACKLOG,
            )
        except OSError as error:
            raise cannot_listen(config.listen, error) from error

    def _look(self, now: float) -> None:
        for connection in list(self._connections):
            if connection.heard:
                connection.heard = False
                connection.heard_at = now
            if not connection.serving:
                if now - connection.began_at > self._config.connect_timeout:
                    connection.give_up(Reason.PROTOCOL_ERROR, "no CONNECT in time")
            elif now - connection.heard_at > connection.keep_alive_s:
                connection.give_up(Reason.KEEP_ALIVE_TIMEOUT, "silent for longer than its keep-alive")

    async def _finish(self) -> None:
        """A device whose records are being stored gets its acknowledgement; else it would send them again."""
        connections = list(self._connections)
        for connection in connections:
            connection.finish()
        if connections:
            await asyncio.wait([connection.gone for connection in connections], timeout=STOP_S)
        for connection in list(self._connections):
            connection.abort()


def _tls(settings: Tls) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(settings.cert, settings.key)
        if settings.client_ca is not None:
            context.load_verify_locations(settings.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except OSError as error:
        raise DeviceError(f"certificate {settings.cert}, its key or the authority: {error}") from error
    return context
