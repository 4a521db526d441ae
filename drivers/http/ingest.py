"""From a request to stored records to its answer."""

import asyncio
import hashlib
import json
from collections.abc import Callable, Sequence
from typing import NamedTuple

from drivers.http import Config, protocol
from drivers.http.access import ANONYMOUS, Access, Sender
from drivers.http.protocol import PREFIX, Answer, Head, Problem
from drivers.http.replies import Replies
from gateway.driver import Context, Emit, Mark, MarkKey
from gateway.errors import Refused, StorageFailing, TooLarge, Unroutable
from gateway.record import Record

HEALTHY = Answer(200, ((b"content-type", b"text/plain"),), b"ok\n")


class Permit(NamedTuple):
    """A request whose head is in order; its body may come."""

    sender: Sender
    channel: str
    device: str
    content_type: bytes
    zipped: bool
    key: bytes | None


class Ingest:
    """Raises DeviceError when a token can't be read."""

    def __init__(self, config: Config, context: Context, emit: Emit) -> None:
        self._access = Access(config)
        self._clock = context.clock
        self._emit = emit
        self._replies = {
            name: Replies(
                f"http/{context.name}/{name}",
                emit,
                config.idempotency_lifetime,
                config.idempotency_keys_max,
                context.clock,
            )
            for name in (ANONYMOUS, *config.tokens)
        }

    def admit(self, head: Head) -> Permit | Answer:
        """Raises Problem before a byte of the body was read."""
        path = protocol.path(head.target)
        if path == b"/health":
            if head.method not in (b"GET", b"HEAD"):
                raise Problem(405, "health is read with GET", headers=((b"allow", b"GET, HEAD"),))
            return HEALTHY
        if not path.startswith(PREFIX):
            raise Problem(404, "records are sent to /ingest/<channel>")
        if head.method not in (b"POST", b"PUT"):
            raise Problem(405, "records are sent with POST or PUT", headers=((b"allow", b"POST, PUT"),))
        if twice := head.repeated & protocol.ONCE:
            raise Problem(400, f"the header {min(twice).decode()} came twice")
        headers = head.headers
        sender = self._access.sender(headers.get(b"authorization"))
        channel = protocol.channel(path)
        if not sender.may_send(channel):
            raise Problem(403, "this token may not send to this channel")
        encoding = headers.get(b"content-encoding", b"identity").strip().lower()
        if encoding not in (b"identity", b"gzip"):
            raise Problem(415, "only gzip is understood", headers=((b"accept-encoding", b"gzip"),))
        content_type = protocol.content_type(headers.get(b"content-type", b""))
        device = headers.get(b"x-device")
        key = headers.get(b"idempotency-key")
        return Permit(
            sender,
            channel,
            sender.name or channel if device is None else protocol.name(device, "device"),
            content_type,
            encoding == b"gzip",
            None if key is None else protocol.idempotency_key(key),
        )

    async def store(self, permit: Permit, body: bytes) -> Answer:
        """Answer once the records are on disk. Raises Problem; then none of them is stored."""
        try:
            return await self._store(permit, body)
        except Problem as problem:
            if problem.status != 409:
                self._emit.device_failed(permit.device, f"{problem.status}: {problem.detail}")
            raise

    async def _store(self, permit: Permit, body: bytes) -> Answer:
        bodies, batch = protocol.split(body, permit.content_type)
        now_ms = self._clock.wall_ms()
        content_type = "application/json" if batch else permit.content_type.decode("ascii")
        records = [Record(permit.channel, permit.device, one, now_ms, content_type) for one in bodies]
        if permit.key is None:
            await self._commit(records)
            return _accepted(len(records))
        replies = self._replies[permit.sender.name]
        request = _fingerprint(permit, body)
        reply = replies.find(permit.key, request)
        if reply is None:
            mark, forget, end = replies.begin(permit.key, request, len(records))
            await self._commit(records, mark, forget, end)
            return _accepted(len(records))
        return _accepted(reply.accepted)

    async def _commit(
        self,
        records: Sequence[Record],
        mark: Mark | None = None,
        forget: Sequence[MarkKey] = (),
        end: Callable[[bool], None] = lambda stored: None,
    ) -> None:
        """What follows from a commit happens though the connection, and this call with it, be gone by then."""

        def ended(stored: asyncio.Future[None]) -> None:
            good = not stored.cancelled() and stored.exception() is None
            end(good)
            if good:
                self._emit.accepted(len(records))

        try:
            stored = asyncio.ensure_future(
                self._emit(records, remember=() if mark is None else (mark,), forget=forget)
            )
        except Refused as refused:
            end(False)
            raise _refusal(refused) from refused
        stored.add_done_callback(ended)
        try:
            await asyncio.shield(stored)
        except Refused as refused:
            raise _refusal(refused) from refused


def _accepted(count: int) -> Answer:
    return Answer(200, ((b"content-type", b"application/json"),), b'{"accepted":%d}\n' % count)


def _refusal(refused: Refused) -> Problem:
    retry_after = ((b"retry-after", b"%d" % refused.retry_after_s),)
    match refused:
        case TooLarge():
            return Problem(413, "larger than the gateway can store; nothing was stored")
        case Unroutable():
            return Problem(403, f"nothing was stored: {refused}")
        case StorageFailing():
            return Problem(507, "the gateway's disk fails; nothing is confirmed", headers=retry_after)
    return Problem(503, f"nothing was stored: {refused}", headers=retry_after)


def _fingerprint(permit: Permit, body: bytes) -> bytes:
    """Tells requests under the same key apart."""
    head = json.dumps([permit.channel, permit.device, permit.content_type.decode("ascii")])
    return hashlib.sha256(head.encode() + b"\n" + body).digest()
