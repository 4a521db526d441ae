"""The listening socket and its connections."""

import asyncio
import errno
import socket
import ssl

from drivers.http import Config, Tls
from drivers.http.connection import READ_BYTES, Connection, Limits
from drivers.http.ingest import Ingest
from gateway.driver import Context, Emit, cannot_listen
from gateway.errors import DeviceError
from gateway.settings import Address

HANDSHAKE_S = 10.0
STOP_S = 1.0
BACKLOG = 128
NO_ROOM_PAUSE_S = 1.0
NO_ROOM = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))


class HttpDriver:
    def __init__(self, config: Config, context: Context) -> None:
        self._config = config
        self._context = context
        self._connections: dict[asyncio.Task[None], Connection | None] = {}

    async def run(self, emit: Emit) -> None:
        config = self._config
        ingest = Ingest(config, self._context, emit)
        limits = Limits(
            config.body_bytes_max, config.buffer_bytes_max, config.request_timeout, config.idle_timeout
        )
        tls = None if config.tls is None else _tls(config.tls)
        listener = await _listen(config.listen)
        async with asyncio.TaskGroup() as group:
            try:
                while True:
                    device = await _accept(listener)
                    if len(self._connections) < config.connections_max:
                        task = group.create_task(self._serve(device, tls, ingest, limits))
                        self._connections[task] = None
                        task.add_done_callback(self._connections.pop)
                    else:
                        device.close()
            finally:
                listener.close()
                await self._finish()

    async def _serve(
        self, device: socket.socket, tls: ssl.SSLContext | None, ingest: Ingest, limits: Limits
    ) -> None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(READ_BYTES)
        protocol = asyncio.StreamReaderProtocol(reader)
        try:
            transport, _ = await loop.connect_accepted_socket(
                lambda: protocol, device, ssl=tls, ssl_handshake_timeout=HANDSHAKE_S if tls else None
            )
        except OSError:
            device.close()
            return
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        connection = Connection(reader, writer, ingest, limits)
        task = asyncio.current_task()
        if task is not None:
            self._connections[task] = connection
        await connection.serve()

    async def _finish(self) -> None:
        """A device whose records are being stored gets its answer; else it would send them again."""
        busy = []
        for task, connection in self._connections.items():
            if connection and connection.busy:
                connection.finish()
                busy.append(task)
        if busy:
            await asyncio.wait(busy, timeout=STOP_S)


def _tls(settings: Tls) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(settings.cert, settings.key)
    except OSError as error:
        raise DeviceError(f"certificate {settings.cert} or its key: {error}") from error
    return context


async def _listen(address: Address) -> socket.socket:
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
        family, _, _, _, where = found[0]
        both = address.host == "::" and socket.has_dualstack_ipv6()
        listener = socket.create_server(where, family=family, backlog=BACKLOG, dualstack_ipv6=both)
    except OSError as error:
        raise cannot_listen(address, error) from error
    listener.setblocking(False)
    return listener


async def _accept(listener: socket.socket) -> socket.socket:
    loop = asyncio.get_running_loop()
    while True:
        try:
            return (await loop.sock_accept(listener))[0]
        except ConnectionAbortedError:
            continue
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            await asyncio.sleep(NO_ROOM_PAUSE_S)
