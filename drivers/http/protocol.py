"""Requests to records and answers: bytes in, values out."""

import json
import re
import sys
import zlib
from collections import Counter
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes

from gateway.limits import EMIT_RECORDS_MAX, NAME_BYTES_MAX, RECORD_BYTES_MAX

PREFIX = b"/ingest/"
NDJSON = frozenset((b"application/x-ndjson", b"application/ndjson", b"application/jsonl"))
JSON = b"application/json"
KEY_BYTES_MAX = 255
HEAD_BYTES_MAX = 16 << 10

_SPACE = re.compile(r"[ \t\r\n]*")
_ABSOLUTE = re.compile(rb"https?://[^/?]*", re.IGNORECASE)
_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_NOT_IN_CHANNEL = re.compile(r"[+#\x00-\x1f\x7f-\x9f]")
_NOT_IN_TYPE = re.compile(rb"[^\t\x20-\x7e]")
_SF_STRING = re.compile(rb'"((?:[\x20-\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"')

ONCE = frozenset((b"authorization", b"content-type", b"content-encoding", b"idempotency-key", b"x-device"))
"""Headers that mean something here; with two of them nobody knows which."""

Headers = tuple[tuple[bytes, bytes], ...]


class Answer(NamedTuple):
    status: int
    headers: Headers
    body: bytes


class Problem(Exception):
    """A refusal, answered as application/problem+json (RFC 9457). `index` names the record of a batch, from 0."""

    def __init__(self, status: int, detail: str, *, index: int | None = None, headers: Headers = ()) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.index = index
        self.headers = headers

    def answer(self) -> Answer:
        body: dict[str, str | int] = {"title": HTTPStatus(self.status).phrase, "status": self.status}
        body["detail"] = self.detail
        if self.index is not None:
            body["index"] = self.index
        encoded = json.dumps(body, ensure_ascii=False).encode() + b"\n"
        return Answer(self.status, ((b"content-type", b"application/problem+json"), *self.headers), encoded)


class Head(NamedTuple):
    """What the first lines of a request say. Header names are lower case; `repeated` are those that came twice."""

    method: bytes
    target: bytes
    headers: dict[bytes, bytes]
    repeated: frozenset[bytes]


def request_head(method: bytes, target: bytes, headers: Sequence[tuple[bytes, bytes]]) -> Head:
    """Raises Problem: h11 limits a head that comes in pieces, one that is whole in one read passes."""
    fields = sum(len(name) + len(value) + len(b": \r\n") for name, value in headers)
    if len(method) + len(target) + fields > HEAD_BYTES_MAX:
        raise Problem(431, f"the head of the request has more than {HEAD_BYTES_MAX} bytes")
    counts = Counter(name for name, _ in headers)
    repeated = frozenset(name for name, count in counts.items() if count > 1)
    return Head(method, target, dict(headers), repeated)


def path(target: bytes) -> bytes:
    """Without scheme, authority and query."""
    return _ABSOLUTE.sub(b"", target, count=1).partition(b"?")[0]


def channel(of_path: bytes) -> str:
    encoded = of_path[len(PREFIX) :]
    if _BAD_ESCAPE.search(encoded):
        raise Problem(400, "a % in the path begins no escape")
    raw = unquote_to_bytes(encoded)
    if len(raw) > NAME_BYTES_MAX:
        raise Problem(414, f"the channel has more than {NAME_BYTES_MAX} bytes")
    return name(raw, "channel")


def name(raw: bytes, what: str) -> str:
    """A channel or device. Raises Problem."""
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise Problem(400, f"the {what} is not UTF-8") from error
    if not text or len(raw) > NAME_BYTES_MAX or _NOT_IN_CHANNEL.search(text):
        raise Problem(400, f"the {what} is empty, too long, or has a wildcard or a control character")
    return text


def content_type(value: bytes) -> bytes:
    """Raises Problem: h11 takes control characters for part of a header."""
    if len(value) > NAME_BYTES_MAX or _NOT_IN_TYPE.search(value):
        raise Problem(400, "the content type is too long, not ASCII, or has a control character")
    return value


def idempotency_key(value: bytes) -> bytes:
    """The key, quoted as the draft's structured field string or bare as many clients send it."""
    quoted = _SF_STRING.fullmatch(value)
    key = re.sub(rb"\\(.)", rb"\1", quoted[1]) if quoted else value
    if not 0 < len(key) <= KEY_BYTES_MAX:
        raise Problem(400, f"Idempotency-Key must have 1 to {KEY_BYTES_MAX} characters")
    return key


def inflate(body: bytes, limit: int) -> bytes:
    """One gzip member, not a byte more than `limit`."""
    stream = zlib.decompressobj(wbits=31)
    try:
        plain = stream.decompress(body, limit + 1)
    except zlib.error as error:
        raise Problem(400, "the body is not gzip") from error
    if len(plain) > limit:
        raise Problem(413, f"the body inflates to more than {limit} bytes")
    if not stream.eof or stream.unused_data:
        raise Problem(400, "the body is not one whole gzip member")
    return plain


def split(body: bytes, content_type: bytes) -> tuple[list[bytes], bool]:
    """The bodies of the records in a request, each as it was sent, and whether they came as a batch.

    Lines of NDJSON and elements of a JSON array are records; anything else is one record. Raises Problem.
    """
    media_type = content_type.partition(b";")[0].strip().lower()
    if media_type in NDJSON:
        bodies, batch = _lines(body), True
    elif media_type == JSON:
        bodies, batch = _json(body)
    else:
        bodies, batch = [body], False
    if len(bodies) > EMIT_RECORDS_MAX:
        raise Problem(413, f"more than {EMIT_RECORDS_MAX} records in a request")
    if len(body) > RECORD_BYTES_MAX:
        for index, record in enumerate(bodies):
            if len(record) > RECORD_BYTES_MAX:
                detail = f"a record has more than {RECORD_BYTES_MAX} bytes; nothing was stored"
                raise Problem(413, detail, index=index if batch else None)
    return bodies, batch


def _no_constant(literal: str) -> Any:
    raise ValueError(literal)


# Numbers stay text: nobody reads them here, and a long one must not cost time.
_decoder = json.JSONDecoder(parse_float=str, parse_int=str, parse_constant=_no_constant)


def _value_end(text: str, start: int, index: int | None) -> int:
    """Where the JSON value that begins at `start` ends. Raises Problem with the record's index."""
    try:
        return _decoder.raw_decode(text, start)[1]
    except (ValueError, RecursionError) as error:
        detail = "not JSON" if index is None else "a record is not JSON; nothing was stored"
        raise Problem(400, detail, index=index) from error


def _text(body: bytes) -> str:
    """One character a byte, so that positions in the text are positions in the body; JSON's own signs are ASCII."""
    try:
        body.decode()
    except UnicodeDecodeError as error:
        raise Problem(400, "not UTF-8; nothing was stored") from error
    return body.decode("latin-1")


def _lines(body: bytes) -> list[bytes]:
    text = _text(body)
    bodies: list[bytes] = []
    start = 0
    size = len(text)
    while start < size:
        end = text.find("\n", start)
        if end < 0:
            end = size
        first = _after_space(text, start, end)
        if first < end:
            stop = _value_end(text, first, len(bodies))
            if stop > end or _after_space(text, stop, end) != end:
                raise Problem(400, "a line is not one JSON value; nothing was stored", index=len(bodies))
            bodies.append(body[start : end - 1 if text[end - 1] == "\r" else end])
        start = end + 1
    return bodies


def _json(body: bytes) -> tuple[list[bytes], bool]:
    text = _text(body)
    start = _after_space(text, 0)
    if text[start : start + 1] != "[":
        end = _value_end(text, start, None)
        if _after_space(text, end) != len(text):
            raise Problem(400, "more than one JSON value")
        return [body], False
    bodies: list[bytes] = []
    at = _after_space(text, start + 1)
    if text[at : at + 1] != "]":
        while True:
            end = _value_end(text, at, len(bodies))
            bodies.append(body[at:end])
            at = _after_space(text, end)
            if text[at : at + 1] != ",":
                break
            at = _after_space(text, at + 1)
    if text[at : at + 1] != "]" or _after_space(text, at + 1) != len(text):
        raise Problem(400, "not a JSON array; nothing was stored", index=len(bodies))
    return bodies, True


def _after_space(text: str, start: int, end: int = sys.maxsize) -> int:
    match = _SPACE.match(text, start, end)
    return match.end() if match else start
