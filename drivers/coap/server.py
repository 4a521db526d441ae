"""What devices ask of the gateway: records to store, and reading about it."""

import asyncio
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from aiocoap import Message
from aiocoap.numbers import OptionNumber
from aiocoap.numbers.codes import GET, POST, PUT
from aiocoap.numbers.types import CON
from aiocoap.pipe import Pipe

from drivers.coap import Config, protocol
from drivers.coap.about import CORE, STATUS, Status, links
from drivers.coap.blocks import Block, Budget, Transfers, check_size
from drivers.coap.content import mime, records
from drivers.coap.endpoint import encode_answer
from drivers.coap.exchanges import LIFETIME_S, Exchanges
from drivers.coap.protocol import Problem
from gateway.driver import Context, Emit, Mark
from gateway.errors import Refused, TooLarge, Unroutable
from gateway.pattern import Pattern
from gateway.record import Record

if TYPE_CHECKING:
    from drivers.coap.oscore import Protection, Protections

BUSY_RETRY_S = 1
BLOCK_EXPONENT_MAX = 6
"""Blocks of 1 KiB; 7 is for TCP (RFC 7959, 2.2)."""


class Sender(NamedTuple):
    """Who asks: the name of an OSCORE context, or the address of anybody."""

    name: str
    channels: Sequence[Pattern]
    protection: "Protection | None"


class Ask(NamedTuple):
    """`request` is what came, without its protection; its answer is sealed with `request_id`."""

    pipe: Pipe
    request: Any
    sender: Sender
    request_id: Any

    def seal(self, answer: Message) -> Message:
        """Raises Problem."""
        if self.sender.protection is None:
            return answer
        return self.sender.protection.sealed(answer, self.request_id)[0]


class Server:
    def __init__(
        self,
        config: Config,
        context: Context,
        emit: Emit,
        exchanges: Exchanges,
        protections: "Protections | None",
    ) -> None:
        self._config = config
        self._clock = context.clock
        self._emit = emit
        self._exchanges = exchanges
        self._protections = protections
        self._scope = scope(context.name)
        self._everything = [Pattern("#")]
        self._allowed = {
            name: [Pattern(text) for text in one.channels] for name, one in config.oscore.items()
        }
        self._budget = Budget(config.buffer_bytes_max)
        self._transfers = Transfers(
            config.transfers_max, config.body_bytes_max, self._budget, context.clock.monotonic
        )
        self._status = Status()

    def no_room(self) -> None:
        self._status.refused()

    def serve(self, pipe: Pipe) -> None:
        try:
            ask = self._opened(pipe)
        except Problem as problem:
            self._refuse(pipe, host(pipe.request), problem, lambda answer: answer)
            return
        if ask is None:
            return
        try:
            self._answer(ask)
        except Problem as problem:
            self._refuse(pipe, _device(ask), problem, ask.seal)

    def _opened(self, pipe: Pipe) -> Ask | None:
        """None for what was answered with a challenge. Raises Problem."""
        request = pipe.request
        if self._config.listen is None:
            raise Problem(protocol.NOT_FOUND, "nobody listens here")
        if request.problem is not None:
            raise request.problem
        if request.opt.oscore is None:
            if not self._config.anonymous:
                raise Problem(protocol.UNAUTHORIZED, "only what OSCORE protects is taken")
            return Ask(pipe, request, Sender(host(request), self._everything, None), None)
        if self._protections is None:
            raise Problem(protocol.BAD_OPTION, "OSCORE is not set up here")
        protection = self._protections.of(request)
        opened, request_id, challenge = protection.opened(request)
        if challenge is not None:
            self._send(pipe, challenge)
            return None
        sender = Sender(protection.name, self._allowed[protection.name], protection)
        return Ask(pipe, opened, sender, request_id)

    def _answer(self, ask: Ask) -> None:
        """Raises Problem."""
        if ask.request.problem is not None:
            raise ask.request.problem
        path = ask.request.opt.uri_path
        if ask.request.code in (POST, PUT) and path not in (STATUS, CORE):
            self._take(ask)
        elif ask.request.code != GET:
            raise Problem(protocol.METHOD_NOT_ALLOWED, "not a method for this path")
        elif path not in (STATUS, CORE):
            raise Problem(protocol.METHOD_NOT_ALLOWED, "records are sent with POST or PUT")
        else:
            self._tell(ask, links() if path == CORE else self._status.answer())

    def _tell(self, ask: Ask, answer: Message) -> None:
        """Raises Problem."""
        if ask.request.accept not in (None, answer.opt.content_format):
            raise Problem(protocol.NOT_ACCEPTABLE, f"there is only {mime(answer.opt.content_format)}")
        observes = ask.request.opt.uri_path == STATUS and ask.request.opt.observe == 0
        first = self._status.observe(ask.pipe, ask.seal) if observes else None
        self._send(ask.pipe, ask.seal(first or answer), last=first is None)

    def _take(self, ask: Ask) -> None:
        """Raises Problem."""
        request = ask.request
        channel = protocol.channel(request.opt.uri_path)
        if not any(pattern.match(channel) is not None for pattern in ask.sender.channels):
            raise Problem(protocol.FORBIDDEN, "this OSCORE context may not send to this channel")
        device = protocol.device(request.opt.uri_query, ask.sender.name)
        block = request.opt.block1
        body: bytes | None = request.payload
        if block is None:
            check_size(len(request.payload), self._config.body_bytes_max)
        elif block.size_exponent > BLOCK_EXPONENT_MAX:
            raise Problem(protocol.BAD_REQUEST, "a block size that is reserved")
        else:
            body = self._transfers.take(
                ask.sender.name,
                _transfer_key(ask),
                Block(block.block_number, block.more, block.size),
                request.payload,
                request.opt.size1 or 0,
            )
        if body is None:
            self._send(ask.pipe, ask.seal(Message(code=protocol.CONTINUE, block1=block)))
            return
        found = records(channel, device, body, request.content_format, self._clock.wall_ms())
        answer = Message(code=protocol.CHANGED, block1=block)
        self._store(ask, found, len(body), answer)

    def _store(self, ask: Ask, found: list[Record], size: int, answer: Message) -> None:
        """What follows from a commit happens though the device be gone by then. Raises Problem."""
        sealed = ask.seal(answer)
        if not self._budget.take(size):
            raise Problem(
                protocol.UNAVAILABLE, "too many requests at a time; nothing was stored", max_age=BUSY_RETRY_S
            )
        waits = ask.request.mtype is CON
        try:
            stored = asyncio.ensure_future(
                self._emit(found, remember=self._marks(ask, sealed, waits), waits=waits)
            )
        except Refused as refused:
            self._budget.give_back(size)
            raise self._by_queue(refused) from refused
        stored.add_done_callback(partial(self._stored, ask, len(found), size, sealed))

    def _marks(self, ask: Ask, sealed: Message, waits: bool) -> list[Mark]:
        """Only a device that waits sends its message again; anybody may replay one that was protected, of either kind."""
        marks = []
        if waits:
            key, fingerprint = ask.pipe.request.exchange
            marks.append(Mark(self._scope, key, fingerprint + encode_answer(sealed), LIFETIME_S))
        if ask.sender.protection is not None:
            marks.append(ask.sender.protection.came())
        return marks

    def _stored(self, ask: Ask, count: int, size: int, sealed: Message, stored: asyncio.Future[None]) -> None:
        self._budget.give_back(size)
        if stored.cancelled():
            return
        error = stored.exception()
        if error is None:
            self._emit.accepted(count)
            self._status.accepted(count)
            self._send(ask.pipe, sealed, stored=ask.request.mtype is CON)
        elif isinstance(error, Refused):
            self._refuse(ask.pipe, _device(ask), self._by_queue(error), ask.seal)
        else:
            raise error

    def _by_queue(self, refused: Refused) -> Problem:
        problem = refused_by_queue(refused)
        if problem.code == protocol.UNAVAILABLE:
            self._status.takes_nothing()
        return problem

    def _refuse(self, pipe: Pipe, device: str, problem: Problem, seal: Callable[[Message], Message]) -> None:
        self._emit.device_failed(device, str(problem))
        self._status.refused()
        answer = Message(
            code=problem.code,
            payload=problem.detail.encode(),
            max_age=problem.max_age,
            size1=problem.size1,
        )
        with suppress(Problem):  # then unprotected, which an error may be (RFC 8613, 8.2)
            answer = seal(answer)
        self._send(pipe, answer)

    def _send(self, pipe: Pipe, answer: Message, stored: bool = False, last: bool = True) -> None:
        key, _ = pipe.request.exchange
        self._exchanges.end(key, encode_answer(answer), stored)
        pipe.add_response(answer, is_last=last)


def scope(driver: str) -> str:
    return f"coap/{driver}"


def _transfer_key(ask: Ask) -> Hashable:
    """What blocks of one body have in common (RFC 7959, 2.5; RFC 9175, 3.3)."""
    request = ask.request
    options = request.opt
    return (
        request.remote,
        ask.sender.name,
        request.code,
        tuple(options.uri_path),
        tuple(options.uri_query),
        request.content_format,
        tuple(option.value for option in options.get_option(OptionNumber.REQUEST_TAG)),
    )


def _device(ask: Ask) -> str:
    try:
        return protocol.device(ask.request.opt.uri_query, ask.sender.name)
    except Problem:
        return ask.sender.name


def host(request: Any) -> str:
    """The sender's address, as people write it; its port changes too often to name anybody."""
    address: str = request.remote.sockaddr[0]
    return address.removeprefix("::ffff:") if "." in address else address


def refused_by_queue(refused: Refused) -> Problem:
    if isinstance(refused, TooLarge):
        return Problem(protocol.TOO_LARGE, "larger than the gateway can store; nothing was stored")
    if isinstance(refused, Unroutable):
        return Problem(protocol.FORBIDDEN, f"nothing was stored: {refused}")
    return Problem(protocol.UNAVAILABLE, f"nothing was stored: {refused}", max_age=refused.retry_after_s)
