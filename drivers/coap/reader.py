"""One resource of a device, polled or observed."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from aiocoap import Message
from aiocoap.error import Error, MessageError
from aiocoap.numbers.codes import GET

from drivers.coap import Config, Resource, channel, protocol
from drivers.coap.blocks import check_size
from drivers.coap.content import records
from drivers.coap.endpoint import Endpoint
from drivers.coap.protocol import Problem
from drivers.coap.turns import Turns
from gateway.driver import Context, Emit
from gateway.errors import Refused
from gateway.record import Record, reading

if TYPE_CHECKING:
    from drivers.coap.oscore import Protection

NOTIFICATIONS_MAX = 64
REORDER_S = 128
"""A notification later than that is taken for new whatever its number (RFC 7641, 3.4)."""

MAX_AGE_S = 60
"""Without the option (RFC 7252, 5.10.5)."""

WAITS = "waits for another request to this device"

LOST = (Error, OSError, TimeoutError, Problem)
"""What may go wrong with a device."""

_log = logging.getLogger(__name__)


class Reader:
    def __init__(
        self,
        resource: Resource,
        config: Config,
        context: Context,
        emit: Emit,
        endpoint: Endpoint,
        protection: "Protection | None",
        turns: Turns,
    ) -> None:
        self._protection = protection
        self._resource = resource
        self._channel = channel(resource)
        self._config = config
        self._clock = context.clock
        self._emit = emit
        self._endpoint = endpoint
        self._turns = turns
        self._patience_s = config.timeout
        """How long the device may still take. That it can't be asked yet doesn't count."""
        self._failing = False
        self._echo: bytes | None = None
        """What the device wants to see in the next request, to know that it is fresh (RFC 9175, 2.3)."""

    async def run(self) -> None:
        if self._resource.interval is None:
            await self._keep_observing()
        else:
            await self._poll(self._resource.interval)

    async def _poll(self, interval: float) -> None:
        now = self._clock.monotonic
        due = now()
        while True:
            rest_s = 0.0
            self._patience_s = self._config.timeout
            try:
                self._take(await self._whole(await self._ask(self._request())))
            except LOST as error:
                rest_s = self._failed(error)
            due += interval
            if (late := now() + rest_s - due) > 0:
                skipped = int(late / interval) + 1
                self._emit.count("skipped ticks", skipped)
                due += skipped * interval
            await asyncio.sleep(due - now())

    async def _keep_observing(self) -> None:
        while True:
            try:
                await self._observe()
            except LOST as error:
                await asyncio.sleep(max(self._config.timeout, self._failed(error)))

    async def _observe(self) -> None:
        """Until nothing came for longer than Max-Age: the device may have been restarted. Raises what went wrong."""
        now = self._clock.monotonic
        challenged = self._echo is not None
        async with self._notifications() as arriving:
            async with asyncio.timeout(self._config.timeout):
                arrived = await arriving.get()
            self._turns.answered(self)
            number, at = -1, now()
            while True:
                answer = arrived()
                if answer.opt.echo is not None and not challenged:
                    self._echo = answer.opt.echo
                    return
                check(answer)
                latest = answer.opt.observe
                if latest is None:
                    raise Problem(answer.code, "the device doesn't let this resource be observed: poll it")
                if number < 0 or self._is_newer(latest, number, now() - at):
                    number, at = latest, now()
                    self._patience_s = self._config.timeout
                    self._take(await self._whole(answer))
                else:
                    self._emit.count("notifications out of order")
                max_age = MAX_AGE_S if answer.opt.max_age is None else answer.opt.max_age
                silence_s = min(max_age, self._config.max_age_max) + self._config.timeout
                try:
                    async with asyncio.timeout(silence_s):
                        arrived = await arriving.get()
                except TimeoutError:
                    self._emit.count("observations begun again")
                    return

    @asynccontextmanager
    async def _notifications(self) -> AsyncIterator["asyncio.Queue[Callable[[], Message]]"]:
        """Events of an observation; when the block ends, the device is told with a reset at its next one."""
        arriving: asyncio.Queue[Callable[[], Message]] = asyncio.Queue(NOTIFICATIONS_MAX)
        sealed, opened = self._sealed(self._request(observe=0))

        def on_event(event: Any) -> bool:
            try:
                arriving.put_nowait(partial(_message, event, opened))
            except asyncio.QueueFull:
                self._emit.count("notifications dropped")
            return not event.is_last

        self._patience_s = self._config.timeout
        stop = await self._sent(sealed, on_event)
        try:
            yield arriving
        finally:
            stop()

    async def _ask(self, request: Message) -> Message:
        sealed, opened = self._sealed(request)
        events: asyncio.Queue[Any] = asyncio.Queue()
        stop = await self._sent(sealed, events.put_nowait)
        began = self._clock.monotonic()
        try:
            async with asyncio.timeout(self._patience_s):
                answer = _message(await events.get(), opened)
        finally:
            stop()
            self._patience_s -= self._clock.monotonic() - began
        self._turns.answered(self)
        if answer.opt.echo is None or request.opt.echo is not None:
            return answer
        request.opt.echo = answer.opt.echo
        return await self._ask(request)

    async def _sent(self, request: Message, on_event: Callable[[Any], object]) -> Callable[[], None]:
        """Once it is on its way; the result ends it."""
        async with asyncio.timeout(self._patience_s):
            left, stop = await self._endpoint.ask(request, on_event)
        try:
            while not left.is_set():
                try:
                    async with asyncio.timeout(self._config.timeout):
                        await left.wait()
                except TimeoutError:
                    self._tell(WAITS)
        except BaseException:
            stop()
            raise
        return stop

    def _sealed(self, request: Message) -> tuple[Message, Callable[[Message], Message]]:
        """What to send instead, and what opens an answer to it. Raises Problem."""
        protection = self._protection
        if protection is None:
            return request, lambda answer: answer
        sealed, request_id = protection.sealed(request)
        return sealed, lambda answer: protection.opened(answer, request_id)[0]

    def _request(self, **options: Any) -> Message:
        echo, self._echo = self._echo, None
        return Message(code=GET, uri=self._resource.uri, echo=echo, **options)

    async def _whole(self, answer: Message) -> Message:
        """With all blocks of its body (RFC 7959, 2.4). Raises Problem."""
        body = answer.payload
        part = answer
        while True:
            check(part)
            check_size(len(body), self._config.body_bytes_max)
            block = part.opt.block2
            if block is None or not block.more:
                break
            part = await self._ask(
                self._request(block2=(len(body) // block.size, False, block.size_exponent))
            )
            following = part.opt.block2
            if part.opt.etag != answer.opt.etag or following is None or following.start != len(body):
                raise Problem(protocol.INCOMPLETE, "the resource changed while it was read")
            body += part.payload
        answer.payload = body
        return answer

    def _is_newer(self, latest: int, number: int, passed_s: float) -> bool:
        if self._protection is not None:
            return latest > number  # OSCORE's own numbers, which no attacker can choose (RFC 8613, 7.4.1)
        return passed_s > REORDER_S or protocol.fresher(latest, number)

    def _take(self, answer: Message) -> None:
        """Raises Problem for what can't be read."""
        found = records(
            self._channel,
            self._resource.device,
            answer.payload,
            answer.content_format,
            self._clock.wall_ms(),
        )
        self._store(found)
        if self._failing:
            self._failing = False
            _log.info("%s of %s answers again", self._resource.uri, self._resource.device)

    def _failed(self, error: Exception) -> float:
        """The result is how long the device is left to its other resources."""
        self._tell(reason_of(error))
        if isinstance(error, TimeoutError):
            return self._turns.unanswered(self, self._config.timeout)
        return 0.0

    def _tell(self, reason: str) -> None:
        """A record says in `quality` why there is no value: of a polled resource each time, of an observed one the first."""
        again = self._resource.interval is not None
        if not self._failing:
            _log.warning("%s of %s: %s", self._resource.uri, self._resource.device, reason)
        if again or not self._failing:
            now_ms = self._clock.wall_ms()
            body = reading(self._resource.device, now_ms, {}, {self._channel: reason})
            self._store(
                [Record(self._channel, self._resource.device, body, now_ms, "application/json")], reason
            )
        else:
            self._emit.device_failed(self._resource.device, reason)
        self._failing = True

    def _store(self, found: list[Record], failed: str = "") -> None:
        """Nobody waits for these. A record clears a device's failure in status, so that is told afterwards."""
        try:
            stored = asyncio.ensure_future(self._emit(found, waits=False))
        except Refused as refused:
            self._emit.device_failed(self._resource.device, failed or f"not stored: {refused}")
            return
        stored.add_done_callback(partial(self._stored, len(found), failed))

    def _stored(self, count: int, failed: str, stored: asyncio.Future[None]) -> None:
        if stored.cancelled() or stored.exception():
            return
        self._emit.accepted(count)
        if failed:
            self._emit.device_failed(self._resource.device, failed)


def reason_of(error: Exception) -> str:
    if isinstance(error, MessageError):
        return "the device sent a reset"
    if isinstance(error.__cause__, OSError) and error.__cause__.errno:
        return os.strerror(error.__cause__.errno)
    if isinstance(error, TimeoutError):
        return "no answer"
    return str(error) or type(error).__name__


def _message(event: Any, opened: Callable[[Message], Message]) -> Message:
    """Raises what the event tells instead, and Problem for what can't be opened."""
    if event.exception is not None:
        raise event.exception
    return opened(event.message)


def check(answer: Message) -> None:
    """Raises Problem."""
    if answer.problem is not None:
        raise answer.problem
    if answer.code != protocol.CONTENT:
        raise Problem(answer.code, answer.payload.decode(errors="replace") or "the device refuses")
