"""OSCORE (RFC 8613) with aiocoap's cryptography. What a context must remember is in marks: no file of its own is written.

Numbers of what is sent are reserved in blocks, each on disk before its first number is used. They begin no lower than
the wall clock says: a lost or an old data directory gives no number twice, as long as the clock is right (and the numbers
are not short: there the clock's are too few to be sure). An answer
always has a number of its own, never its request's, so that no request sent again can have a nonce used twice.

Which numbers came is stored along with the records that came with them: a record is stored once. Without such a mark,
the first message of a device is answered with a challenge (Echo, RFC 8613, B.1.2), which it must repeat.
"""

import asyncio
import secrets
import struct
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from aiocoap import Message
from aiocoap.error import UnparsableMessage
from aiocoap.oscore import (
    DEFAULT_ALGORITHM,
    DEFAULT_HASHFUNCTION,
    CanProtect,
    CanUnprotect,
    ContextUnavailable,
    DecodeError,
    NotAProtectedMessage,
    ProtectionInvalid,
    ReplayError,
    ReplayErrorWithEcho,
    ReplayWindow,
    SecurityContextUtils,
    algorithms,
    hashfunctions,
    verify_start,
)

from drivers.coap import SECRET_BYTES_MIN, Oscore, protocol
from drivers.coap.protocol import Problem
from gateway.clock import Clock
from gateway.driver import Emit, Mark
from gateway.errors import DeviceError, Refused

RESERVED = 1000
SHORT_RESERVED = 40
"""Each start spends as many: ten seconds of the clock, where there are four numbers a second."""

RETRY_S = 10
GROUP_FLAG = 0x20
WINDOW_BITS = 64
MARK_LIFETIME_S = 3650 * 86400
EPOCH_MS = 1_577_836_800_000
"""2020."""

NUMBERS_A_SECOND = 256
"""Of a number's 40 bits, 32 for seconds: enough for 136 years."""

SHORT_NUMBERS_A_SECOND = 4
"""Of 31 bits, 29 for seconds: enough until 2037."""

SENT = b"sent"
SHORT_SENT = b"sent/short"
CAME = b"came"
_SENT = struct.Struct(">Q")
_CAME = struct.Struct(">QQ")


class Protection(CanProtect, CanUnprotect, SecurityContextUtils):
    """One context: two parties, one of which is the gateway. Raises DeviceError when its secret can't be read."""

    def __init__(self, name: str, settings: Oscore, driver: str, emit: Emit, clock: Clock) -> None:
        self.name = name
        self.sender_id = bytes.fromhex(settings.sender_id)
        self.recipient_id = bytes.fromhex(settings.recipient_id)
        self.id_context = None if settings.id_context is None else bytes.fromhex(settings.id_context)
        self.alg_aead = algorithms[DEFAULT_ALGORITHM]
        self.hashfun = hashfunctions[DEFAULT_HASHFUNCTION]
        self.derive_keys(bytes.fromhex(settings.salt), _secret(name, settings))
        self.echo_recovery = secrets.token_bytes(8)
        self.recipient_replay_window = ReplayWindow(WINDOW_BITS, lambda: None)
        self._scope = f"coap/{driver}/oscore/{name}"
        self._sent, self._block = (SHORT_SENT, SHORT_RESERVED) if settings.short_numbers else (SENT, RESERVED)
        self._emit = emit
        marks = emit.recall(self._scope)
        self.sender_sequence_number = max(
            _reserved(marks, self._sent), _by_clock(clock, settings.short_numbers)
        )
        self._limit = self.sender_sequence_number
        self._reserving = False
        if CAME in marks:
            index, bits = _CAME.unpack(marks[CAME])
            self.recipient_replay_window.initialize_from_persisted({"index": index, "bitfield": bits})

    def reserve(self) -> asyncio.Future[None]:
        """Numbers to send with, once the future is done. Raises Refused, as the future does."""
        limit = self.sender_sequence_number + self._block
        mark = Mark(self._scope, self._sent, _SENT.pack(limit), MARK_LIFETIME_S)
        stored = asyncio.ensure_future(self._emit((), remember=(mark,)))
        stored.add_done_callback(partial(self._reserved, limit))
        self._reserving = True
        return stored

    def new_sequence_number(self) -> int:
        if self.sender_sequence_number >= self._limit:
            raise ContextUnavailable("no number is reserved")
        return int(super().new_sequence_number())

    def post_seqnoincrease(self) -> None:
        """In time for a disk that is slow."""
        if not self._reserving and self.sender_sequence_number > self._limit - self._block // 2:
            with suppress(Refused):  # the next number tries again
                self.reserve()

    def came(self) -> Mark:
        """To be stored with the records of the message that was opened last."""
        window = self.recipient_replay_window.persist()
        content = _CAME.pack(window["index"], window["bitfield"])
        return Mark(self._scope, CAME, content, MARK_LIFETIME_S)

    def opened(self, message: Any, request_id: Any = None) -> tuple[Any, Any, Message | None]:
        """What was protected, what its answer is sealed with, and the answer if it is a challenge. Raises Problem."""
        if message.opt.oscore and message.opt.oscore[0] & GROUP_FLAG:
            raise Problem(protocol.BAD_OPTION, "Group OSCORE is not spoken")
        try:
            inner, request_id = self.unprotect(message, request_id)
        except ReplayErrorWithEcho as error:
            return None, None, error.to_message()
        except NotAProtectedMessage as error:
            raise Problem(
                message.code, f"not protected: {message.payload.decode(errors='replace')}"
            ) from error
        except ReplayError as error:
            raise Problem(protocol.UNAUTHORIZED, "replay detected") from error
        except (DecodeError, IndexError) as error:
            raise Problem(protocol.BAD_OPTION, "the OSCORE option can't be read") from error
        except (ProtectionInvalid, UnparsableMessage, ValueError) as error:
            raise Problem(protocol.BAD_REQUEST, "decryption failed") from error
        request_id.can_reuse_nonce = False
        inner.remote = message.remote
        inner.mtype = message.mtype
        inner.content_format, inner.accept = inner.opt.content_format, inner.opt.accept
        try:
            list(
                protocol.understood(
                    [(int(option.number), option.encode()) for option in inner.opt.option_list()]
                )
            )
            inner.problem = None
        except Problem as problem:
            inner.problem = problem
        return inner, request_id, None

    def sealed(self, message: Any, request_id: Any = None) -> tuple[Any, Any]:
        """Raises Problem while no number is reserved."""
        try:
            outer, request_id = self.protect(message, request_id)
        except ContextUnavailable as error:
            raise Problem(protocol.UNAVAILABLE, str(error), max_age=RETRY_S) from error
        outer.remote = message.remote
        if message.code.is_response() and message.opt.observe is not None:
            outer.opt.observe = self.sender_sequence_number % (1 << 24)
        return outer, request_id

    def _reserved(self, limit: int, stored: asyncio.Future[None]) -> None:
        self._reserving = False
        if not stored.cancelled() and stored.exception() is None:
            self._limit = limit


class Protections:
    """All contexts of a driver."""

    def __init__(self, settings: Mapping[str, Oscore], driver: str, emit: Emit, clock: Clock) -> None:
        self._by_name = {name: Protection(name, one, driver, emit, clock) for name, one in settings.items()}

    def __getitem__(self, name: str) -> Protection:
        return self._by_name[name]

    async def reserve(self) -> None:
        """Raises DeviceError."""
        try:
            for protection in self._by_name.values():
                await protection.reserve()
        except Refused as refused:
            raise DeviceError(f"OSCORE has no numbers to send with: {refused}") from refused

    def of(self, request: Any) -> Protection:
        """Raises Problem."""
        try:
            unprotected = verify_start(request)
        except (DecodeError, IndexError) as error:
            raise Problem(protocol.BAD_OPTION, "the OSCORE option can't be read") from error
        for protection in self._by_name.values():
            if protection.get_oscore_context_for(unprotected) is not None:
                return protection
        raise Problem(protocol.UNAUTHORIZED, "no such OSCORE context")


def _secret(name: str, settings: Oscore) -> bytes:
    try:
        secret = bytes.fromhex(settings.secret.reveal())
    except (OSError, LookupError) as error:
        raise DeviceError(f"secret of OSCORE context {name}: {error}") from error
    except ValueError as error:
        raise DeviceError(f"secret of OSCORE context {name}: not hexadecimal") from error
    if len(secret) < SECRET_BYTES_MIN:
        raise DeviceError(f"secret of OSCORE context {name}: less than {SECRET_BYTES_MIN} bytes")
    return secret


def _reserved(marks: Mapping[bytes, bytes], key: bytes) -> int:
    return int(_SENT.unpack(marks[key])[0]) if key in marks else 0


def _by_clock(clock: Clock, short: bool) -> int:
    a_second = SHORT_NUMBERS_A_SECOND if short else NUMBERS_A_SECOND
    return max(0, clock.wall_ms() - EPOCH_MS) * a_second // 1000
