"""Requests to channels, devices and answers: values in, values out. Codes are as on the wire: 0x84 is 4.04."""

import re
from collections.abc import Sequence
from urllib.parse import unquote, urlsplit

from gateway.limits import NAME_BYTES_MAX

TOKEN_BYTES_MAX = 8
DEVICE_QUERY = "d="

CHANGED = 0x44
CONTENT = 0x45
CONTINUE = 0x5F
BAD_REQUEST = 0x80
UNAUTHORIZED = 0x81
BAD_OPTION = 0x82
FORBIDDEN = 0x83
METHOD_NOT_ALLOWED = 0x85
INCOMPLETE = 0x88
TOO_LARGE = 0x8D
UNAVAILABLE = 0xA3
NO_PROXY = 0xA5

_NOT_IN_NAME = re.compile(r"[+#\x00-\x1f\x7f]")


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


def path(uri: str) -> str:
    """Of a device's resource, decoded. Raises ValueError."""
    parts = urlsplit(uri)
    if parts.scheme == "coaps":
        raise ValueError("DTLS is not spoken; protect what passes with OSCORE")
    if parts.scheme != "coap" or not parts.hostname or parts.fragment:
        raise ValueError("not a URI of the form coap://host:port/path?query")
    _ = parts.port  # ValueError where it is none
    return unquote(parts.path, errors="strict").removeprefix("/")


def name(text: str, what: str) -> str:
    if not text or len(text.encode()) > NAME_BYTES_MAX or _NOT_IN_NAME.search(text):
        raise Problem(BAD_REQUEST, f"the {what} is empty, too long, or has a wildcard or a control character")
    return text
