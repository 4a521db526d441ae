"""What devices ask of the gateway: records to store, and reading about it."""

import asyncio
import json
from functools import partial
from typing import Any

from aiocoap import Message
from aiocoap.numbers import ContentFormat, OptionNumber
from aiocoap.numbers.codes import POST, PUT
from aiocoap.numbers.types import CON
from aiocoap.pipe import Pipe

from drivers.coap import Config, protocol, senml
from drivers.coap.blocks import Block, Budget, Transfers, check_size
from drivers.coap.endpoint import encode_answer
from drivers.coap.exchanges import LIFETIME_S, Exchanges
from drivers.coap.protocol import Problem
from gateway.driver import Context, Emit, Mark
from gateway.errors import Refused, TooLarge
from gateway.record import Record, reading

BUSY_RETRY_S = 1
UNDERSTOOD = frozenset(
    (
        OptionNumber.URI_HOST,
        OptionNumber.URI_PORT,
        OptionNumber.URI_PATH,
        OptionNumber.URI_QUERY,
        OptionNumber.ACCEPT,
        OptionNumber.BLOCK1,
        OptionNumber.BLOCK2,
    )
)
"""Critical options; another one must not be passed over (RFC 7252, 5.4.1)."""


class Server:
    def __init__(self, config: Config, context: Context, emit: Emit, exchanges: Exchanges) -> None:
        self._config = config
        self._clock = context.clock
        self._emit = emit
        self._exchanges = exchanges
        self._scope = scope(context.name)
        self._budget = Budget(config.buffer_bytes_max)
        self._transfers = Transfers(
            config.transfers_max, config.body_bytes_max, self._budget, context.clock.monotonic
        )

    def serve(self, pipe: Pipe) -> None:
        try:
            answer = self._answer(pipe)
        except Problem as problem:
            answer = refusal(problem)
            if problem.code < protocol.UNAVAILABLE:
                self._emit.device_failed(host(pipe.request), str(problem))
        if answer is not None:
            self._send(pipe, answer)

    def _answer(self, pipe: Pipe) -> Message | None:
        """None if it comes later. Raises Problem."""
        request = pipe.request
        check_options(request)
        if request.code in (POST, PUT):
            return self._take(pipe)
        raise Problem(protocol.METHOD_NOT_ALLOWED, "records are sent with POST or PUT")

    def _take(self, pipe: Pipe) -> Message | None:
        request = pipe.request
        channel = protocol.channel(request.opt.uri_path)
        device = protocol.device(request.opt.uri_query, host(request))
        block = request.opt.block1
        body: bytes | None = request.payload
        if block is None:
            check_size(len(request.payload), self._config.body_bytes_max)
        else:
            body = self._transfers.take(
                (request.remote, request.get_cache_key(BLOCK_OPTIONS)),
                Block(block.block_number, block.more, block.size),
                request.payload,
                request.opt.size1 or 0,
            )
        if body is None:
            return Message(code=protocol.CONTINUE, block1=block)
        content_format = request.opt.content_format
        found = records(channel, device, body, content_format, self._clock.wall_ms())
        answer = Message(code=protocol.CHANGED, block1=block, no_response=request.opt.no_response)
        self._store(pipe, found, len(body), answer)
        return None

    def _store(self, pipe: Pipe, records: list[Record], size: int, answer: Message) -> None:
        """What follows from a commit happens though the device be gone by then. Raises Problem."""
        key, fingerprint = pipe.request.exchange
        waits = pipe.request.mtype is CON
        mark = Mark(self._scope, key, fingerprint + encode_answer(answer), LIFETIME_S)
        if not self._budget.take(size):
            raise Problem(
                protocol.UNAVAILABLE, "too many requests at a time; nothing was stored", max_age=BUSY_RETRY_S
            )
        try:
            stored = asyncio.ensure_future(
                self._emit(records, remember=(mark,) if waits else (), waits=waits)
            )
        except Refused as refused:
            self._budget.give_back(size)
            raise refused_by_queue(refused) from refused
        stored.add_done_callback(partial(self._stored, pipe, len(records), size, answer))

    def _stored(
        self, pipe: Pipe, count: int, size: int, answer: Message, stored: asyncio.Future[None]
    ) -> None:
        self._budget.give_back(size)
        if stored.cancelled():
            return
        error = stored.exception()
        if error is None:
            self._emit.accepted(count)
            self._send(pipe, answer, stored=True)
        elif isinstance(error, Refused):
            self._send(pipe, refusal(refused_by_queue(error)))
        else:
            raise error

    def _send(self, pipe: Pipe, answer: Message, stored: bool = False) -> None:
        key, _ = pipe.request.exchange
        self._exchanges.end(key, encode_answer(answer), stored)
        pipe.add_response(answer, is_last=True)


BLOCK_OPTIONS = (OptionNumber.BLOCK1, OptionNumber.BLOCK2, OptionNumber.OBSERVE)


def scope(driver: str) -> str:
    return f"coap/{driver}"


def host(request: Any) -> str:
    """The sender's address, as people write it; its port changes too often to name anybody."""
    address: str = request.remote.sockaddr[0]
    return address.removeprefix("::ffff:") if "." in address else address


def check_options(request: Any) -> None:
    """Raises Problem."""
    for option in request.opt.option_list():
        number = option.number
        if number.is_critical() and number not in UNDERSTOOD:
            if number in (OptionNumber.PROXY_URI, OptionNumber.PROXY_SCHEME):
                raise Problem(protocol.NO_PROXY, "not a proxy")
            raise Problem(protocol.BAD_OPTION, f"option {int(number)} is not understood")


def records(channel: str, device: str, body: bytes, content_format: int | None, now_ms: int) -> list[Record]:
    """SenML becomes a reading for each time in it; anything else passes as it is. Raises Problem."""
    if content_format not in (senml.JSON_FORMAT, senml.CBOR_FORMAT):
        return [Record(channel, device, body, now_ms, mime(content_format))]
    found = []
    for one in senml.readings(body, content_format, now_ms):
        units = (("units", json.dumps(one.units).encode()),) if one.units else ()
        content = reading(device, one.time_ms, one.values, {})
        found.append(Record(channel, device, content, now_ms, "application/json", units))
    return found


def mime(content_format: int | None) -> str:
    """ "" without one; a number that is in no registry stays to be read."""
    if content_format is None:
        return ""
    known = ContentFormat(content_format)
    if not known.is_known():
        return f"application/octet-stream; content-format={int(content_format)}"
    coding = "" if known.encoding == "identity" else f"; content-coding={known.encoding}"
    return f"{known.media_type}{coding}"


def refused_by_queue(refused: Refused) -> Problem:
    if isinstance(refused, TooLarge):
        return Problem(protocol.TOO_LARGE, "larger than the gateway can store; nothing was stored")
    return Problem(protocol.UNAVAILABLE, f"nothing was stored: {refused}", max_age=refused.retry_after_s)


def refusal(problem: Problem) -> Message:
    return Message(
        code=problem.code, payload=problem.detail.encode(), max_age=problem.max_age, size1=problem.size1
    )
