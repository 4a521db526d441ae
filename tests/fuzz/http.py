"""HTTP requests as the driver reads them, but for the socket."""

import gzip
import json
import random
from pathlib import Path

import h11

from drivers.http import Config, ingest, protocol
from drivers.http.ingest import Ingest
from drivers.http.protocol import Answer, Head, Problem
from gateway.clock import SystemClock
from gateway.driver import Context
from gateway.settings import Address
from gateway.testing.emit import FakeEmit
from tests.fuzz.target import Target, pieces

BODY_BYTES_MAX = 1 << 16
CASES = Path(protocol.__file__).parent / "cases"
TOKENS = [
    *(b"POST", b"PUT", b"GET", b"HEAD", b"/ingest/", b"/health", b" HTTP/1.1\r\n", b"\r\n", b"\r\n\r\n"),
    *(b"%", b"%2F", b"%00", b"%ff", b"http://h/ingest/a", b"?a=b", b"+", b"#"),
    b"Content-Length: 0\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Content-Encoding: gzip\r\n",
    b"Content-Type: application/x-ndjson\r\n",
    b"Content-Type: application/json\r\n",
    b"Content-Type: ",
    b"Idempotency-Key: ",
    b'"a\\"b"',
    b"X-Device: \xc3\xa4\r\n",
    b"Expect: 100-continue\r\n",
    *(b"[", b"]", b"{", b"}", b'"', b",", b":", b"\\u", b"\\ud800", b"1e999", b"NaN", b"-", b"\xff"),
    b"[" * 2000,
    b'{"a":' * 400,
    b"9" * 5000,
]


def request(
    body: bytes, *headers: bytes, target: bytes = b"/ingest/press/4", method: bytes = b"POST"
) -> bytes:
    lines = [method + b" " + target + b" HTTP/1.1", b"Host: g", *headers, b"Content-Length: %d" % len(body)]
    return b"\r\n".join([*lines, b"", body])


def seeds() -> list[bytes]:
    wires = [(case / "wire").read_bytes() for case in sorted(CASES.iterdir())]
    return [
        *(wire for wire in wires if len(wire) < BODY_BYTES_MAX),
        request(b"1"),
        request(b"", target=b"/health", method=b"GET"),
        request(b'[1, {"a": [true, null, "\xc3\xa4"]} ,\n"x"]', b"Content-Type: application/json"),
        request(b'{"a":1}\r\n\n [2] \n"x"', b"Content-Type: application/x-ndjson"),
        request(
            gzip.compress(b"[1,2]", mtime=0), b"Content-Encoding: gzip", b"Content-Type: application/json"
        ),
        request(gzip.compress(bytes(100_000), mtime=0), b"Content-Encoding: gzip"),
        request(b"1", b'Idempotency-Key: "8e03\\"978e"', b"X-Device: press 4"),
        request(b"1", target=b"http://gateway/ingest/a%20b/%C3%A4?x=1"),
        b"POST /ingest/a HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n[1]\r\n0\r\nX: y\r\n\r\n",
    ]


_ingest = Ingest(
    Config(listen=Address("127.0.0.1", 1), anonymous=True), Context("fuzz", SystemClock()), FakeEmit()
)


def run(data: bytes, chance: random.Random) -> bool:
    whole = _take([data])
    assert _take(pieces(data, chance)) == whole
    return isinstance(whole, list)


def _take(parts: list[bytes]) -> list[bytes] | int:
    """The first request's records, or the status that refuses it; 0 if it isn't whole."""
    http = h11.Connection(h11.SERVER, max_incomplete_event_size=protocol.HEAD_BYTES_MAX)
    permit, body = None, b""
    try:
        for part in parts:
            http.receive_data(part)
            while (event := http.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
                if isinstance(event, h11.Request):
                    head = protocol.request_head(event.method, event.target, list(event.headers))
                    permit = _admit(head)
                    if isinstance(permit, Answer):
                        return permit.status
                elif isinstance(event, h11.Data):
                    body += event.data
                elif isinstance(event, h11.EndOfMessage):
                    assert isinstance(permit, ingest.Permit)
                    return _records(permit, body)
                else:
                    return 0
            if event is h11.PAUSED:
                return 0
    except h11.RemoteProtocolError as error:
        return error.error_status_hint
    except Problem as problem:
        assert 400 <= problem.status < 500
        json.loads(problem.answer().body)
        return problem.status
    return 0


def _admit(head: Head) -> ingest.Permit | Answer:
    permit = _ingest.admit(head)
    if isinstance(permit, ingest.Permit):
        assert permit.channel
        assert not set(permit.channel + permit.device) & set("+#\0\n")
    return permit


def _records(permit: ingest.Permit, body: bytes) -> list[bytes]:
    if permit.zipped:
        body = protocol.inflate(body, BODY_BYTES_MAX)
        assert len(body) <= BODY_BYTES_MAX
    records, batch = protocol.split(body, permit.content_type)
    if batch:
        assert all(record in body for record in records)
        again = b"[" + b",".join(records) + b"]"
        assert protocol.split(again, protocol.JSON) == ([one.strip(b" \t\r\n") for one in records], True)
    return records


TARGETS = [Target("http", [protocol], seeds(), TOKENS, run, 400)]
