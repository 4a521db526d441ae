"""The control socket, and the metrics over TCP."""

import asyncio
import json
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from gateway.config import Config
from gateway.control import address, contents
from gateway.control.contract import Gateway
from gateway.control.http import Exchange, Handler, Problem, serve
from gateway.control.tail import send_tail
from gateway.control.transfer import PART_BYTES_MAX, BadTransfer, export_frames, import_part
from gateway.control.wire import record_to_json, to_json
from gateway.driver import cannot_listen
from gateway.errors import CommandError, Refused, StorageError, TidegateError
from gateway.queue import LANES
from gateway.settings import Address

CONNECTIONS_MAX = 32
"""At each door: who scrapes metrics must not keep the operator out."""

BODY_BYTES_MAX = 64 << 10
SOCKET_MODE = 0o660
PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"
NUMBER_DIGITS_MAX = 16
NUMBER_MAX = 10**NUMBER_DIGITS_MAX - 1
METRICS_AGAIN_S = 10.0

_log = logging.getLogger(__name__)


class ControlServer:
    def __init__(self, gateway: Gateway, gateway_id: str) -> None:
        self._gateway = gateway
        self._gateway_id = gateway_id
        self._importing = asyncio.Lock()
        self._socket: asyncio.Server | None = None
        self._path: Path | None = None
        self._metrics: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._closed = False
        self._routes: Mapping[str, tuple[str, Handler]] = {
            "/status": ("GET", self._status),
            "/metrics": ("GET", self._show_metrics),
            "/verify": ("GET", self._verify),
            "/tail": ("GET", self._tail),
            "/queue": ("GET", self._contents),
            "/queue/peek": ("GET", self._peek),
            "/queue/export": ("GET", self._export),
            "/queue/import": ("POST", self._import),
            "/queue/dead": ("GET", self._dead),
            "/queue/dead/record": ("GET", self._dead_record),
            "/queue/dead/retry": ("POST", self._retry),
            "/adopt": ("POST", self._adopt),
        }

    async def open_socket(self, path: Path) -> None:
        """Raises OSError; StorageError if another gateway serves this path."""
        self._socket = await asyncio.start_unix_server(self._accept(self._control), sock=_bind(path))
        self._path = path

    async def open_metrics(self, listen: Address | None) -> None:
        """Instead of where they were served so far. Raises OSError."""
        if self._metrics is not None:
            self._metrics.close()
            self._metrics = None
        if listen is not None:
            self._metrics = await asyncio.start_server(self._accept(self._scrape), listen.host, listen.port)

    @property
    def metrics_port(self) -> int | None:
        return self._metrics.sockets[0].getsockname()[1] if self._metrics else None

    async def close(self) -> None:
        self._closed = True
        for server in (self._socket, self._metrics):
            if server is not None:
                server.close()
        for task in self._connections:
            task.cancel()
        if self._connections:
            await asyncio.wait(self._connections)
        if self._path is not None:
            with suppress(
                OSError
            ):  # on a disk that takes no writes; the next start looks whether somebody answers
                self._path.unlink(missing_ok=True)

    def _accept(self, handler: Handler) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]:
        here: set[asyncio.Task[None]] = set()

        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if self._closed or len(here) >= CONNECTIONS_MAX:
                writer.transport.abort()
                return
            task = asyncio.create_task(serve(reader, writer, handler), name="control connection")
            here.add(task)
            self._connections.add(task)
            task.add_done_callback(here.discard)
            task.add_done_callback(partial(self._disconnected, writer))

        return connected

    def _disconnected(self, writer: asyncio.StreamWriter, task: asyncio.Task[None]) -> None:
        writer.transport.abort()  # a task that was cancelled at once has not
        self._connections.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.error("a request to the control socket failed", exc_info=task.exception())

    async def _control(self, exchange: Exchange) -> None:
        method, handler = self._routes.get(exchange.path, ("", None))
        if handler is None:
            raise Problem(404, f"there is no {exchange.path}; there are {', '.join(self._routes)}")
        if exchange.method != method:
            raise Problem(405, f"{exchange.path} takes {method}")
        await _translated(handler(exchange))

    async def _scrape(self, exchange: Exchange) -> None:
        if exchange.path != "/metrics":
            raise Problem(404, "here is only /metrics")
        if exchange.method != "GET":
            raise Problem(405, "/metrics takes GET")
        await _translated(self._show_metrics(exchange))

    async def _status(self, exchange: Exchange) -> None:
        await exchange.reply_json(to_json(await self._gateway.status()))

    async def _show_metrics(self, exchange: Exchange) -> None:
        await exchange.reply((await self._gateway.prometheus()).encode(), PROMETHEUS)

    async def _verify(self, exchange: Exchange) -> None:
        await exchange.reply_json(to_json(await self._gateway.verify()))

    async def _tail(self, exchange: Exchange) -> None:
        with self._gateway.tap.watch(exchange.query.get("driver"), exchange.query.get("device")) as onlooker:
            await send_tail(exchange, onlooker)

    async def _contents(self, exchange: Exchange) -> None:
        await exchange.reply_json(to_json(await contents.contents(self._gateway.queue)))

    async def _peek(self, exchange: Exchange) -> None:
        lane = exchange.query.get("lane", "main")
        if lane not in LANES:
            raise Problem(400, f"there is no lane {lane!r}; there are {', '.join(LANES)}")
        after = _number(exchange, "after") if "after" in exchange.query else None
        found = await contents.peek(self._gateway.queue, lane, after, _number(exchange, "limit", 10))
        await exchange.reply_json([record_to_json(record) for record in found])

    async def _export(self, exchange: Exchange) -> None:
        await exchange.start("application/vnd.tidegate.records")
        async for frame in export_frames(self._gateway.queue, self._gateway_id):
            await exchange.write(frame)
        await exchange.finish()

    async def _import(self, exchange: Exchange) -> None:
        file = exchange.query.get("file", "")
        if not 1 <= len(file) <= 100:
            raise Problem(400, "file= must name the import, in 1 to 100 characters")
        start = _number(exchange, "start")
        part = await exchange.body(PART_BYTES_MAX)
        async with self._importing:
            own_topics = self._gateway.own_topics
            imported = await import_part(self._gateway.queue, file, start, part, own_topics)
        await exchange.reply_json(imported._asdict())

    async def _dead(self, exchange: Exchange) -> None:
        letters = await contents.dead(self._gateway.queue, _number(exchange, "limit", contents.DEAD_MAX))
        await exchange.reply_json(to_json(letters))

    async def _dead_record(self, exchange: Exchange) -> None:
        record = await contents.dead_record(self._gateway.queue, _number(exchange, "id"))
        if record is None:
            raise Problem(404, "there is no such dead letter")
        await exchange.reply_json(record_to_json(record))

    async def _retry(self, exchange: Exchange) -> None:
        ids = (await _json(exchange)).get("ids")
        if not isinstance(ids, list) or not all(type(one) is int and 0 <= one <= NUMBER_MAX for one in ids):
            raise Problem(400, 'the body must be {"ids": [...]}, whole numbers')
        await exchange.reply_json({"retried": await self._gateway.queue.retry(ids)})

    async def _adopt(self, exchange: Exchange) -> None:
        answer = (await _json(exchange)).get("assume")
        if answer not in (None, "delivered", "lost", "fork"):
            raise Problem(400, '"assume" must be "delivered", "lost", "fork" or null')
        await self._gateway.adopt(answer)
        await exchange.reply_json({"adopted": True})


@asynccontextmanager
async def attached(gateway: Gateway, config: Config) -> AsyncIterator[None]:
    """Serve while the context lasts. What can't be opened is said and left out: devices are more important."""
    server = ControlServer(gateway, config.gateway.id)
    try:
        await server.open_socket(address.to_serve_on(config.gateway.id, config.gateway.data_dir))
    except (OSError, StorageError) as error:
        _log.error("no control socket: %s", error)
    opening = asyncio.create_task(_open_metrics(server, config.metrics.listen), name="metrics")
    try:
        yield
    finally:
        opening.cancel()
        await server.close()


async def _open_metrics(server: ControlServer, listen: Address | None) -> None:
    """The port may be another program's, and the address not there yet: tried until it can be had, as drivers do."""
    if listen is None:
        return
    told = False
    while True:
        try:
            await server.open_metrics(listen)
        except OSError as error:
            if not told:
                reason = cannot_listen(listen, error)
                _log.warning("metrics: %s; trying again every %g s", reason, METRICS_AGAIN_S)
            told = True
            await asyncio.sleep(METRICS_AGAIN_S)
        else:
            if told:
                _log.info("metrics are served now")
            return


async def _translated(work: Awaitable[None]) -> None:
    try:
        await work
    except BadTransfer as error:
        raise Problem(400, str(error)) from error
    except Refused as error:
        raise Problem(507, str(error)) from error
    except CommandError as error:
        raise Problem(409, str(error)) from error
    except TidegateError as error:
        raise Problem(503, str(error)) from error


async def _json(exchange: Exchange) -> Mapping[str, Any]:
    try:
        data = json.loads(await exchange.body(BODY_BYTES_MAX))
    except (ValueError, RecursionError) as error:
        raise Problem(400, f"the body is not JSON: {error}") from error
    if not isinstance(data, dict):
        raise Problem(400, "the body must be a JSON object")
    return data


def _number(exchange: Exchange, name: str, default: int | None = None) -> int:
    text = exchange.query.get(name)
    if text is None and default is not None:
        return default
    if text is None or not (text.isascii() and text.isdigit() and len(text) <= NUMBER_DIGITS_MAX):
        raise Problem(400, f"{name}= must be a whole number")
    return int(text)


def _bind(path: Path) -> socket.socket:
    if address.answers(path):
        raise StorageError(f"{path}: another gateway answers here")
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    try:
        with address.short(path) as name:
            listener.bind(name)
        path.chmod(SOCKET_MODE)
    except OSError:
        listener.close()
        raise
    return listener
