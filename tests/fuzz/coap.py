"""CoAP datagrams, and what they carry: SenML and CBOR."""

import json
import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import cbor2

from drivers.coap import cbor, content, protocol, senml
from drivers.coap.endpoint import decode, encode_answer
from drivers.coap.protocol import Problem
from tests.coap.rig import Message, post
from tests.coap.test_fuzz import NOW_MS, OPTIONS, _same
from tests.fuzz.target import Target

CASES = Path(protocol.__file__).parent / "cases"
PACK: list[dict[str, Any]] = [
    {"bn": "urn:dev:ow:10e2073a01080063:", "bt": 1_320_067_464, "bu": "%RH", "bv": 1.5, "bs": 2, "bver": 10},
    {"n": "a", "v": 20, "t": 1.5, "ut": 60},
    {"n": "b", "vs": "text", "u": "A"},
    {"n": "c", "vb": True, "s": 3.25},
    {"n": "d", "vd": "3q2-7w", "x": None},
]
CBOR_NAMES = {text: label for label, text in senml._LABELS.items()}  # noqa: SLF001
CBOR_PACK = [{CBOR_NAMES.get(name, name): value for name, value in record.items()} for record in PACK]


def datagrams() -> list[bytes]:
    found = [
        bytes.fromhex(line)
        for case in sorted(CASES.iterdir())
        for line in (case / "wire").read_text().splitlines()
        if not line.startswith("#")
    ]
    every = tuple((number, b"\1") for number in OPTIONS)
    return [
        *(data for data in found if len(data) < 2000),
        post(1).encode(),
        post(2, json.dumps(PACK).encode(), "a", (12, b"\x6e"), (27, b"\x08")).encode(),
        post(3, cbor2.dumps(CBOR_PACK), "a", (12, b"\x70"), (15, b"d=press")).encode(),
        Message(0, 1, 7, b"tokentok", every, b"x").encode(),
        Message(1, 3, 8, b"", ((300, b"x" * 300), (65_000, b"y" * 20)), b"").encode(),
        b"\x40\0\0\1",
        b"\x60\0\0\1",
        b"\x70\0\0\1",
    ]


def run_datagram(data: bytes, chance: random.Random) -> bool:
    try:
        message = decode(data)
    except ValueError:
        return False
    found = protocol.parse(data)
    assert Message(*found[:4], tuple(found.options), found.payload).encode() == data
    if message.problem is None:
        encode_answer(message)
        with suppress(Problem):
            protocol.channel(message.opt.uri_path)
            protocol.device(message.opt.uri_query, "d")
    return True


def run_senml(content_format: int) -> Callable[[bytes, random.Random], bool]:
    def run(data: bytes, chance: random.Random) -> bool:
        try:
            records = content.records("c", "d", data, content_format, NOW_MS)
        except Problem as problem:
            assert problem.code in (protocol.BAD_REQUEST, protocol.TOO_LARGE)
            problem.detail.encode()
            return False
        for record in records:
            assert json.loads(record.body)["values"]
            assert all(isinstance(value, bytes) for _, value in record.headers)
        return True

    return run


def run_cbor(data: bytes, chance: random.Random) -> bool:
    try:
        item = cbor.decode(data)
    except ValueError:
        return False
    assert _same(cbor.decode(cbor2.dumps(item)), item)
    return True


JSON_TOKENS = [
    *(f'"{name}":'.encode() for name in (*CBOR_NAMES, "x", "y_")),
    *(b"[", b"]", b"{", b"}", b",", b'"', b"1e400", b"-1e308", b"NaN", b"true", b"null", b"\\ud800", b"\xff"),
    b"9" * 309,
    b"9" * 5000,
    b"[" * 2000,
]
CBOR_TOKENS = [
    *(bytes((kind << 5 | info,)) for kind in range(8) for info in (0, 1, 23, 24, 25, 26, 27, 28, 31)),
    *(b"\xc4\x82\x20\x19\x01\x00", b"\xc5\x82\x19\x04\x4c\x01", b"\xc4\x82\x3a\xff\xff\xff\xff\x01"),
    *(b"\xf9\x7e\x00", b"\xfb\x7f\xf0\0\0\0\0\0\0", b"\x1b" + b"\xff" * 8, b"\x9f" * 20, b"\xbf\xff"),
]
TARGETS = [
    Target(
        "coap",
        [protocol],
        datagrams(),
        [bytes((n,)) for n in range(0, 256, 13)] + [b"\xff"],
        run_datagram,
        400,
    ),
    Target(
        "senml-json",
        [senml, content],
        [json.dumps(PACK).encode(), b'[{"n":"a","v":1}]', b'[{"n":"a","vs":"\xc3\xa4"}]'],
        JSON_TOKENS,
        run_senml(senml.JSON_FORMAT),
        400,
    ),
    Target(
        "senml-cbor",
        [senml, cbor, content],
        [
            cbor2.dumps(CBOR_PACK),
            cbor2.dumps([{"n": "a", "v": 1.5}]),
            bytes.fromhex("9fbf00616102c48221196ab3ffff"),
        ],
        CBOR_TOKENS,
        run_senml(senml.CBOR_FORMAT),
        400,
    ),
    Target(
        "cbor",
        [cbor],
        [
            cbor2.dumps(CBOR_PACK),
            cbor2.dumps([1.5, -7, 1 << 40, None, True, b"bytes", "text", {"a": [], 1: {}}]),
            bytes.fromhex("7f6161616aff"),
            bytes.fromhex("5f41014102ff"),
            bytes.fromhex("c48221196ab3"),
            bytes.fromhex("c5822003"),
            bytes.fromhex("83f93e00fa3fc00000fb3ff8000000000000"),
        ],
        CBOR_TOKENS,
        run_cbor,
        400,
    ),
]
