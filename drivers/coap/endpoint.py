"""The UDP socket and aiocoap's message layer on it, with what both leave open closed: copies of messages are told by
`Exchanges`, which is bounded and outlives a restart; what can't be decoded is counted; the port is taken for itself."""

import asyncio
import logging
import socket
import struct
from collections.abc import Callable
from functools import partial
from hashlib import blake2b
from typing import Any

from aiocoap import Context, Message
from aiocoap.message import Direction
from aiocoap.messagemanager import MessageManager
from aiocoap.numbers import OptionNumber
from aiocoap.numbers.codes import EMPTY, SERVICE_UNAVAILABLE
from aiocoap.numbers.constants import TransportTuning
from aiocoap.numbers.types import ACK, CON
from aiocoap.pipe import Pipe
from aiocoap.tokenmanager import TokenManager
from aiocoap.transports.udp6 import MessageInterfaceUDP6, UDP6EndpointAddress
from aiocoap.util import socknumbers
from aiocoap.util.asyncio.recvmsg import create_recvmsg_datagram_endpoint

from drivers.coap.exchanges import FINGERPRINT_BYTES, Exchanges
from drivers.coap.protocol import ACCEPT, CONTENT_FORMAT, Problem, parse, understood
from gateway.driver import cannot_listen
from gateway.settings import Address

LOGGER = "drivers.coap.aiocoap"
BUSY_RETRY_S = 10
RECEIVE_BUFFER_BYTES = 1 << 20

_KEY = struct.Struct(">HIH")

Count = Callable[[str], None]


class Tuning(TransportTuning):
    """An empty acknowledgement ends a device's retransmissions and promises nothing: the shorter the time between it
    and the commit, the fewer messages are lost with the gateway. It goes out before the device would send again."""

    EMPTY_ACK_DELAY = 1.0


TUNING = Tuning()


class Messages(MessageManager):
    def __init__(
        self, tokens: TokenManager, exchanges: Exchanges, count: Count, no_room: Callable[[], None]
    ) -> None:
        super().__init__(tokens)
        self._exchanges = exchanges
        self._count = count
        self._no_room = no_room

    def dispatch_message(self, message: Any) -> None:
        message.transport_tuning = TUNING
        super().dispatch_message(message)

    def send_message(self, message: Any, messageerror_monitor: Any) -> Callable[[], None] | None:
        """The result ends what was begun with a request: nobody waits for its answer any more, or it is here."""
        if message.code.is_response() and _is_unwanted(message):
            mid, timer = self._piggyback_opportunities.pop((message.remote, message.token), (None, None))
            if timer is not None:
                timer.cancel()
                self._send_empty_ack(message.remote, mid, "no response is wanted")
            return None
        super().send_message(message, messageerror_monitor)
        return partial(self._abandon, message) if message.code.is_request() else None

    def _abandon(self, request: Any) -> None:
        """Else a silent device would get copies of old requests for a minute and a half before any new one."""
        if self._active_exchanges is None:
            return
        exchange = self._active_exchanges.pop((request.remote, request.mid), None)
        if exchange is not None:
            exchange[1].cancel()
            self._continue_backlog(request.remote)
        elif waiting := self._backlogs.get(request.remote):
            waiting[:] = [entry for entry in waiting if entry[0] is not request]

    def _send_initially(self, message: Any, messageerror_monitor: Any = None) -> None:
        super()._send_initially(message, messageerror_monitor)
        if message.code.is_request():
            message.left.set()

    def _retransmit(self, message: Any, timeout: float, retransmission_counter: int) -> None:
        """Whoever asked has a time-out of his own; given up here, the request is no fault of those that wait behind it."""
        given_up = retransmission_counter >= message.transport_tuning.MAX_RETRANSMIT
        if given_up and message.code.is_request():
            self._abandon(message)
        else:
            super()._retransmit(message, timeout, retransmission_counter)

    async def shutdown(self) -> None:
        for _, timer in self._piggyback_opportunities.values():
            timer.cancel()
        await super().shutdown()

    def _deduplicate_message(self, message: Any) -> bool:
        key, fingerprint = message.exchange
        seen = self._exchanges.find(key, fingerprint)
        if seen is not None:
            self._count("messages that came again")
            if message.mtype is CON and seen.answer:
                self._acknowledge(message, seen.answer)
            return True
        if self._exchanges.begin(key, fingerprint):
            return False
        self._count("messages refused for want of room for answers")
        if message.code.is_request():
            self._no_room()
        if message.mtype is CON:
            refusal = Message(code=SERVICE_UNAVAILABLE, max_age=BUSY_RETRY_S)
            self._acknowledge(message, encode_answer(refusal))
        return True

    def _acknowledge(self, message: Any, answer: bytes) -> None:
        copy = Message(code=answer[0], _mtype=ACK, _mid=message.mid)
        copy.payload = copy.opt.decode(answer[1:])
        if answer[0] != EMPTY:
            copy.token = message.token
        copy.remote = message.remote.as_response_address()
        self._send_initially(copy)

    def _send_empty_ack(self, remote: Any, mid: int, reason: str) -> None:
        self._exchanges.interim(exchange_key(remote.sockaddr, mid), bytes((EMPTY,)))
        super()._send_empty_ack(remote, mid, reason)

    def _store_response_for_duplicates(self, message: Any) -> None:
        """Whoever answers a request tells `Exchanges`."""


class Wire(MessageInterfaceUDP6):
    def __init__(self, messages: Messages, log: logging.Logger, count: Count) -> None:
        super().__init__(messages, log, asyncio.get_running_loop())
        self._count = count
        self._failure: OSError | None = None

    def send(self, message: Any) -> None:
        """The kernel tells of a datagram that nobody took when the next one is sent, to whomever, and doesn't send that:
        so it is tried twice. Whose the first failure was comes by the error queue."""
        for _ in range(2):
            self._failure = None
            super().send(message)
            if self._failure is None:
                return
        self.loop.call_soon(self._ctx.dispatch_error, self._failure, message.remote)

    def error_received(self, exc: OSError) -> None:
        self._failure = exc

    def datagram_msg_received(self, data: bytes, ancdata: Any, flags: int, address: Any) -> None:
        try:
            message = decode(b"" if flags & socket.MSG_TRUNC else data)
        except ValueError:
            self._count("malformed datagrams")
            return
        pktinfo = next((content for _, kind, content in ancdata if kind == socket.IPV6_PKTINFO), None)
        message.remote = UDP6EndpointAddress(address, self, pktinfo=pktinfo)
        message.exchange = (
            exchange_key(address, message.mid),
            blake2b(data, digest_size=FINGERPRINT_BYTES).digest(),
        )
        self._ctx.dispatch_message(message)


class Endpoint(Context):
    """`serve` is called with each request that is not a copy, in a Pipe that takes its answer; `no_room` for each that is
    refused here."""

    def __init__(self, serve: Callable[[Pipe], None], no_room: Callable[[], None]) -> None:
        super().__init__(loop=asyncio.get_running_loop(), loggername=LOGGER)
        self.log.setLevel(logging.ERROR)
        self._serve = serve
        self._no_room = no_room

    def render_to_pipe(self, pipe: Pipe) -> None:
        self._serve(pipe)

    async def open(self, listen: Address | None, exchanges: Exchanges, count: Count) -> None:
        """Without an address: a port of the system's choice, for what the gateway asks. Raises DeviceError."""
        tokens = TokenManager(self)
        messages = Messages(tokens, exchanges, count, self._no_room)
        bound = await _bound(listen or Address("::", 0))
        try:
            _, wire = await create_recvmsg_datagram_endpoint(
                self.loop, lambda: Wire(messages, self.log, count), sock=bound
            )
        except BaseException:
            bound.close()
            raise
        await wire.ready
        messages.message_interface = wire
        tokens.token_interface = messages
        self.request_interfaces.append(tokens)

    async def ask(
        self, request: Any, on_event: Callable[[Any], object]
    ) -> tuple[asyncio.Event, Callable[[], None]]:
        """`on_event` takes each answer, and what ends them; it returns whether it takes more. The result tells when the
        request is on its way, for a device gets one at a time; and ends it. Raises aiocoap.error.Error."""
        interface = await self.find_remote_and_interface(request)
        pipe = Pipe(request, self.log)
        request.left = asyncio.Event()

        def take(event: Any) -> bool:
            request.left.set()
            return bool(on_event(event))

        stop: Callable[[], None] = pipe.on_event(take)
        interface.request(pipe)
        return request.left, stop


async def _bound(address: Address) -> socket.socket:
    """An IPv6 socket, where IPv4 addresses are mapped ones. No other process may share its port."""
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(
            *address, family=socket.AF_INET6, type=socket.SOCK_DGRAM, flags=socket.AI_V4MAPPED
        )
        bound = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    except OSError as error:
        raise cannot_listen(address, error) from error
    try:
        bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        bound.setsockopt(socket.IPPROTO_IPV6, socknumbers.IPV6_RECVERR, 1)
        bound.setsockopt(socket.IPPROTO_IP, socknumbers.IP_RECVERR, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        bound.bind(found[0][4])
    except OSError as error:
        bound.close()
        raise cannot_listen(address, error) from error
    return bound


def exchange_key(address: tuple[Any, ...], mid: int) -> bytes:
    host, port, _, zone = address
    return socket.inet_pton(socket.AF_INET6, host.partition("%")[0]) + _KEY.pack(port, zone, mid)


def decode(data: bytes) -> Any:
    """A message, with what aiocoap would keep for good if it read numbers of anybody's choice: `content_format` and
    `accept`, and as `problem` an option that can't be passed over. Raises ValueError."""
    datagram = parse(data)
    message = Message(code=datagram.code, payload=datagram.payload, _mid=datagram.mid, _mtype=datagram.kind)
    message.token = datagram.token
    message.direction = Direction.INCOMING
    message.content_format = message.accept = message.problem = None
    try:
        for number, value in understood(datagram.options):
            if number == CONTENT_FORMAT:
                message.content_format = int.from_bytes(value, "big")
            elif number == ACCEPT:
                message.accept = int.from_bytes(value, "big")
            else:
                message.opt.add_option(OptionNumber(number).create_option(decode=value))
    except Problem as problem:
        message.problem = problem
    return message


def _is_unwanted(answer: Any) -> bool:
    """RFC 7967, 2.1: a bit for each class of answers."""
    unwanted = answer.request.opt.no_response or 0
    return bool(unwanted >> answer.code.class_ - 1 & 1)


def encode_answer(message: Any) -> bytes:
    """Without header and token, which are the request's."""
    payload = b"\xff" + message.payload if message.payload else b""
    return bytes((message.code,)) + bytes(message.opt.encode()) + payload
