"""`tidegate run`: one process from the configuration to its end, as systemd and people expect it."""

import asyncio
import gc
import logging
import os
import signal
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, closing, suppress
from pathlib import Path
from typing import Any

from gateway.clock import SystemClock
from gateway.config import Config, LogSettings, keep_secrets, load
from gateway.errors import CommandError, ConfigError, StorageError, StorageFailing, StorageUnwritable
from gateway.runtime.logs import configure
from gateway.runtime.notify import Notify, watchdog_interval_s
from gateway.runtime.owner import become, owner_of
from gateway.runtime.runtime import QUEUE_FILE, Runtime

EXIT_OK = 0
EXIT_DISK = 74
"""EX_IOERR of sysexits: the queue's disk failed; systemd starts us again, and start-up looks at what is left."""

STOP_S = 4.5
"""After this the process ends as by kill -9, which loses nothing either."""

STATUS_INTERVAL_S = 10.0

NOT_FOR_OTHERS = 0o027
"""Records are for the gateway's user and group, also where no unit has a UMask."""

GC_ALLOCATIONS = 50_000
"""Between two looks for cycles. A record is a handful of objects and never a cycle: Python's 700 would cost 7 % of the
time under load, and every look at all that lives takes milliseconds."""

START_AGAIN_S = 60.0
"""systemd lets the start take so much longer, each time that it is told that the queue is being opened, or can't be yet."""

OPENING_S_MAX = 6 * 3600.0
"""To save a damaged queue takes as long as its card does. SQLite tells no progress: what takes longer than this hangs."""

Attach = Callable[[Runtime, Config], AbstractAsyncContextManager[None]]
"""What is served beside the runtime while a configuration is in force: gateway.control."""

_log = logging.getLogger(__name__)


def run(path: Path, read: Callable[[], Config], attach: Attach) -> int:
    """Until SIGTERM or SIGINT; SIGHUP reads `path` again. Returns the exit code. `read` gives the configuration to begin with;
    what it raises, ConfigError or CommandError, is raised here unless systemd started us."""
    configure(LogSettings())
    os.umask(os.umask(NOT_FOR_OTHERS) | NOT_FOR_OTHERS)
    return asyncio.run(_run(path, read, attach))


async def _run(path: Path, read: Callable[[], Config], attach: Attach) -> int:
    signals = _Signals()
    with closing(Notify()) as notify:
        try:
            runtime = await _start(read, notify, signals)
        except (StorageError, StorageFailing) as error:
            _log.critical("the queue can't be opened: %s", error)
            return EXIT_DISK
        return EXIT_OK if runtime is None else await _serve(path, runtime, attach, notify, signals)


async def _start(read: Callable[[], Config], notify: Notify, signals: "_Signals") -> Runtime | None:
    """None if told to end meanwhile. What only an operator can mend is waited for, with no file open, so that a disk can be
    mounted anew: systemd would start a process that ends again and again, for years, and fill the journal with it. At a
    terminal only a disk that takes no writes is waited for. The configuration may lie on that disk, and secrets that root
    alone may read: there it is not read again."""
    told = None
    config: Config | None = None
    while True:
        try:
            if config is None or notify.is_heard:
                wanted = read()
                configure(wanted.log)
                _become_owner(wanted)
                config = wanted
            async with _opening(notify):
                return await Runtime.start(config, SystemClock())
        except (ConfigError, CommandError, StorageError) as error:
            if not notify.is_heard and not isinstance(error, StorageUnwritable):
                raise
            # The numbers in what is said of a disk change all the time.
            reason = type(error) if isinstance(error, StorageError) else str(error)
            if reason != told:
                what = "queue can't be opened" if isinstance(error, StorageError) else "gateway can't start"
                _log.critical("the %s: %s; devices are refused until it can", what, error)
            told = reason
            [first, *_] = str(error).splitlines()
            notify(f"EXTEND_TIMEOUT_USEC={START_AGAIN_S * 1e6:.0f}", f"STATUS=devices are refused: {first}")
        with suppress(TimeoutError):
            async with asyncio.timeout(STATUS_INTERVAL_S):
                if await signals.next() != signal.SIGHUP:
                    return None


def _become_owner(config: Config) -> None:
    """Of the queue, if this is root and it is another user's. Raises StorageError."""
    owner = owner_of(config.gateway.data_dir / QUEUE_FILE)
    if owner is not None:
        keep_secrets(config)
        become(owner)
        _log.warning("started by root, runs as user %d, whose %s is", owner.uid, config.gateway.data_dir)


@asynccontextmanager
async def _opening(notify: Notify) -> AsyncIterator[None]:
    """Keeps systemd from ending a salvage that takes its time: the next start would begin it anew, and end like this one."""

    async def tell() -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(OPENING_S_MAX):
                while True:
                    notify(
                        f"EXTEND_TIMEOUT_USEC={START_AGAIN_S * 1e6:.0f}", "STATUS=the queue is being opened"
                    )
                    await asyncio.sleep(STATUS_INTERVAL_S)

    task = asyncio.create_task(tell(), name="opening")
    try:
        yield
    finally:
        task.cancel()


async def _serve(path: Path, runtime: Runtime, attach: Attach, notify: Notify, signals: "_Signals") -> int:
    config = runtime.config
    _log.info("gateway %s runs; queue %s", config.gateway.id, runtime.queue.queue_id)
    gc.freeze()
    gc.set_threshold(GC_ALLOCATIONS)
    async with AsyncExitStack() as beside:
        await beside.enter_async_context(_heartbeat(notify, runtime))
        served = await beside.enter_async_context(AsyncExitStack())
        await served.enter_async_context(attach(runtime, config))
        notify("READY=1", f"STATUS={runtime.summary()}")
        while await _next(signals, runtime.failed) == signal.SIGHUP:
            new = _reload(path)
            if new is None:
                continue
            configure(new.log)
            again = new.metrics != runtime.config.metrics
            await runtime.reconfigure(new)
            if again:
                await served.aclose()
                await served.enter_async_context(attach(runtime, runtime.config))
        notify("STOPPING=1")
        _end_by_force_after(STOP_S, EXIT_DISK if runtime.failed.done() else EXIT_OK)
        await beside.aclose()
        await runtime.stop()
    if runtime.failed.done():
        _log.critical("nothing is accepted any more: %s", runtime.failed.result())
        return EXIT_DISK
    _log.info("ended; %d records wait for the next start", runtime.queue.stats().lanes["main"].pending)
    return EXIT_OK


def _reload(path: Path) -> Config | None:
    try:
        return load(path)
    except ConfigError as error:
        _log.error("the old configuration stays in force")
        for problem in error.problems:
            _log.error("%s", problem)
        return None


class _Signals:
    def __init__(self) -> None:
        self._waiting: asyncio.Queue[int] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self._waiting.put_nowait, number)

    async def next(self) -> int:
        return await self._waiting.get()


async def _next(signals: _Signals, failed: "asyncio.Future[StorageFailing]") -> int:
    """The next signal, or SIGTERM once the queue has failed."""
    arrival = asyncio.ensure_future(signals.next())
    either: list[asyncio.Future[Any]] = [arrival, failed]
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    if failed.done():
        arrival.cancel()
        return signal.SIGTERM
    return arrival.result()


@asynccontextmanager
async def _heartbeat(notify: Notify, runtime: Runtime) -> AsyncIterator[None]:
    """Tells systemd that the loop turns and that no commit takes as long as systemd waits, and how things are."""

    async def beat() -> None:
        interval = watchdog_interval_s()
        while True:
            alive = interval is None or runtime.queue.committing_s() < 2 * interval
            notify(*(["WATCHDOG=1"] if alive else []), f"STATUS={runtime.summary()}")
            await asyncio.sleep(min(STATUS_INTERVAL_S, interval or STATUS_INTERVAL_S))

    task = asyncio.create_task(beat(), name="heartbeat")
    try:
        yield
    finally:
        task.cancel()


def _end_by_force_after(seconds: float, exit_code: int) -> None:
    timer = threading.Timer(seconds, os._exit, [exit_code])
    timer.daemon = True
    timer.start()
