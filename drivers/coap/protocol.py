"""Datagrams to messages, requests to channels and devices: values in, values out. Codes are as on the wire: 0x84 is 4.04."""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from gateway.limits import NAME_BYTES_MAX

PORT = 5683
TOKEN_BYTES_MAX = 8
OPTION_MAX = 0xFFFF
PAYLOAD_MARKER = 0xFF
NON, ACK, RST = 1, 2, 3
EMPTY = 0
REQUEST_MAX = 0x1F

URI_HOST, ETAG, OBSERVE, URI_PORT, OSCORE, URI_PATH, CONTENT_FORMAT = 3, 4, 6, 7, 9, 11, 12
MAX_AGE, URI_QUERY, ACCEPT, BLOCK2, BLOCK1, PROXY_URI, PROXY_SCHEME = 14, 15, 17, 23, 27, 35, 39
SIZE1, ECHO, NO_RESPONSE, REQUEST_TAG = 60, 252, 258, 292

LENGTHS = {
    URI_HOST: (1, 255),
    ETAG: (1, 8),
    OBSERVE: (0, 3),
    URI_PORT: (0, 2),
    OSCORE: (0, 255),
    URI_PATH: (0, 255),
    CONTENT_FORMAT: (0, 2),
    MAX_AGE: (0, 4),
    URI_QUERY: (0, 255),
    ACCEPT: (0, 2),
    BLOCK2: (0, 3),
    BLOCK1: (0, 3),
    SIZE1: (0, 4),
    ECHO: (1, 40),
    NO_RESPONSE: (0, 1),
    REQUEST_TAG: (0, 8),
}
"""Options that are understood, with their least and greatest length."""

REPEATABLE = frozenset((ETAG, URI_PATH, URI_QUERY, REQUEST_TAG))

DEVICE_QUERY = "d="

CHANGED = 0x44
CONTENT = 0x45
CONTINUE = 0x5F
BAD_REQUEST = 0x80
UNAUTHORIZED = 0x81
NOT_ACCEPTABLE = 0x86
BAD_OPTION = 0x82
FORBIDDEN = 0x83
NOT_FOUND = 0x84
METHOD_NOT_ALLOWED = 0x85
INCOMPLETE = 0x88
TOO_LARGE = 0x8D
UNAVAILABLE = 0xA3
NO_PROXY = 0xA5

_NOT_IN_NAME = re.compile(r"[+#\x00-\x1f\x7f-\x9f]")


class Datagram(NamedTuple):
    """`options` are in the order of their numbers."""

    kind: int
    code: int
    mid: int
    token: bytes
    options: list[tuple[int, bytes]]
    payload: bytes


class Problem(Exception):
    """A refusal: `code` with `detail` as diagnostic payload (RFC 7252, 5.5.2), and Max-Age or Size1 where they help."""

    def __init__(
        self, code: int, detail: str, *, max_age: int | None = None, size1: int | None = None
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.max_age = max_age
        self.size1 = size1

    def __str__(self) -> str:
        return f"{self.code >> 5}.{self.code & 0x1F:02}: {self.detail}"


def fresher(number: int, than: int) -> bool:
    """Whether a notification's number, of 24 bits, follows another one (RFC 7641, 3.4)."""
    return 0 < (number - than) % (1 << 24) < 1 << 23


def channel(segments: Sequence[str]) -> str:
    """Segments of Uri-Path, already decoded, as one channel. Raises Problem."""
    return name("/".join(segments), "channel")


def device(query: Sequence[str], otherwise: str) -> str:
    """The one that the query names, as in ?d=press-4. Raises Problem."""
    for argument in query:
        if argument.startswith(DEVICE_QUERY):
            return name(argument[len(DEVICE_QUERY) :], "device")
    return otherwise


def parse(data: bytes) -> Datagram:
    """RFC 7252, 3. Raises ValueError."""
    if len(data) < 4 or data[0] >> 6 != 1:
        raise ValueError("not CoAP")
    length = data[0] & 0x0F
    at = 4 + length
    if length > TOKEN_BYTES_MAX or at > len(data):
        raise ValueError("no whole token")
    kind, code = data[0] >> 4 & 3, data[1]
    if code == EMPTY and len(data) > 4:
        raise ValueError("something in an empty message")
    if (kind == ACK and EMPTY < code <= REQUEST_MAX) or (kind, code == EMPTY) in ((NON, True), (RST, False)):
        raise ValueError("a type that doesn't fit the code")
    options = []
    number = 0
    while at < len(data) and data[at] != PAYLOAD_MARKER:
        head = data[at]
        delta, at = _extended(head >> 4, data, at + 1)
        size, at = _extended(head & 0x0F, data, at)
        number += delta
        if number > OPTION_MAX or at + size > len(data):
            raise ValueError("no whole option")
        options.append((number, data[at : at + size]))
        at += size
    if at == len(data) - 1:
        raise ValueError("a payload without a byte")
    mid = int.from_bytes(data[2:4], "big")
    return Datagram(kind, code, mid, data[4 : 4 + length], options, data[at + 1 :])


def _extended(nibble: int, data: bytes, at: int) -> tuple[int, int]:
    """The value, and where the next one begins."""
    if nibble < 13:
        return nibble, at
    width = nibble - 12
    if width > 2 or at + width > len(data):
        raise ValueError("no whole option")
    return int.from_bytes(data[at : at + width], "big") + (13 if width == 1 else 269), at + width


def understood(options: Sequence[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    """Without those that must be passed over (RFC 7252, 5.4.1, 5.4.3, 5.4.5). Raises Problem for one that must not."""
    last = -1
    for number, value in options:
        least, most = LENGTHS.get(number, (1, 0))
        if least <= len(value) <= most and (number != last or number in REPEATABLE):
            yield number, value
        elif number in (PROXY_URI, PROXY_SCHEME):
            raise Problem(NO_PROXY, "not a proxy")
        elif number & 1:
            raise Problem(BAD_OPTION, f"option {number} is not understood, or not of its form")
        last = number


def path(uri: str) -> str:
    """Of a device's resource, decoded. Raises ValueError."""
    parts = urlsplit(uri)
    if parts.scheme == "coaps":
        raise ValueError("DTLS is not spoken; protect what passes with OSCORE")
    if parts.scheme != "coap" or not parts.hostname or parts.fragment:
        raise ValueError("not a URI of the form coap://host:port/path?query")
    _ = parts.port  # ValueError where it is none
    return unquote(parts.path, errors="strict").removeprefix("/")


def server(uri: str) -> str:
    """Whose resource it is; `uri` is one that `path` takes."""
    parts = urlsplit(uri)
    return f"{parts.hostname}:{parts.port or PORT}"


def name(text: str, what: str) -> str:
    if not text or len(text.encode()) > NAME_BYTES_MAX or _NOT_IN_NAME.search(text):
        raise Problem(BAD_REQUEST, f"the {what} is empty, too long, or has a wildcard or a control character")
    return text
