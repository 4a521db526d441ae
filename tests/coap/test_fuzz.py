"""Anything may arrive: it is refused or counted, and the driver goes on."""

import asyncio
import json
import math
import random
import resource
from contextlib import suppress
from pathlib import Path
from typing import Any

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.coap import cbor, protocol, senml
from drivers.coap.blocks import IDLE_S, Block, Budget, Transfers
from drivers.coap.endpoint import decode, encode_answer
from drivers.coap.exchanges import LIFETIME_S, SPAN_S, Exchanges
from drivers.coap.protocol import Problem
from tests.coap.rig import ACK, CON, RST, Message, gateway, post
from tests.coap.test_oscore import PRESS

NOW_MS = 1_790_000_000_000
FORMATS = st.sampled_from((senml.JSON_FORMAT, senml.CBOR_FORMAT))

numbers = st.integers(-(1 << 64), (1 << 64) - 1) | st.floats()
scalars = st.none() | st.booleans() | numbers | st.text(max_size=20)
items = st.recursive(
    scalars | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=20,
)
names = st.text("abz09-:./_", min_size=1, max_size=10).map("n".__add__)
labels = st.sampled_from(
    ("bn", "bt", "bu", "bv", "bs", "bver", "n", "u", "v", "vs", "vb", "vd", "s", "t", "ut", "x", "y_")
)
packs = st.lists(st.dictionaries(labels, scalars | names, max_size=6), max_size=5)


@pytest.mark.fault("input", "random and damaged datagrams for the parser")
@given(st.binary(max_size=60))
def test_datagrams(data: bytes) -> None:
    with suppress(ValueError, Problem):
        message = decode(data)
        protocol.channel(message.opt.uri_path)
        protocol.device(message.opt.uri_query, "d")


datagrams = st.builds(
    Message,
    st.integers(0, 3),
    st.integers(1, 255),
    st.integers(0, 0xFFFF),
    st.binary(max_size=8),
    st.lists(st.tuples(st.integers(0, 2000), st.binary(max_size=300)), max_size=5).map(
        lambda options: tuple(sorted(options, key=lambda option: option[0]))
    ),
    st.binary(max_size=20),
)


@given(datagrams)
def test_datagrams_are_read_as_they_were_sent(sent: Message) -> None:
    if sent.kind == RST or (sent.kind == ACK and sent.code < 32):
        with pytest.raises(ValueError, match="fit"):
            protocol.parse(sent.encode())
        return
    found = protocol.parse(sent.encode())
    assert found == (*sent[:4], list(sent.options), sent.payload)


@given(st.integers(0x40, 0xBF), st.binary(max_size=8), st.binary(max_size=60))
def test_answers_survive_their_mark(code: int, option: bytes, payload: bytes) -> None:
    datagram = Message(2, code, 7, b"", ((12, option[:2]), (14, option[:4])), payload).encode()
    message = decode(datagram)
    assert message is not None
    answer = encode_answer(message)
    assert answer[:1] == datagram[1:2]
    again = decode(datagram[:4] + answer[1:])
    assert (again.payload, encode_answer(again)) == (payload, answer)


@pytest.mark.fault("input", "random bytes as CBOR")
@given(st.binary(max_size=80))
def test_cbor_is_read_or_refused(data: bytes) -> None:
    with suppress(ValueError):
        cbor.decode(data)


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float) and math.isnan(one):
        return math.isnan(other)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    return type(one) is type(other) and bool(one == other)


@given(items, st.booleans())
@settings(max_examples=50)
def test_cbor_agrees_with_cbor2(item: Any, canonical: bool) -> None:
    assert _same(cbor.decode(cbor2.dumps(item, canonical=canonical)), item)


@pytest.mark.parametrize(
    ("data", "item"),
    [
        ("9f0102ff", [1, 2]),
        ("bf616101ff", {"a": 1}),
        ("7f6161616aff", "aj"),
        ("5f41014102ff", b"\1\2"),
        ("c48221196ab3", 273.15),
        ("c5822003", 1.5),
        ("f93e00", 1.5),
    ],
)
def test_cbor_as_rfc_8949_has_it(data: str, item: Any) -> None:
    """Appendix A, and 3.4.4."""
    assert cbor.decode(bytes.fromhex(data)) == item


@given(packs | items, FORMATS)
@settings(max_examples=100)
def test_senml_is_read_whole_or_not_at_all(pack: Any, content_format: int) -> None:
    if content_format == senml.JSON_FORMAT:
        encoded = json.dumps(pack, default=lambda value: value.hex()).encode()
    else:
        encoded = cbor2.dumps(pack)
    try:
        found = senml.readings(encoded, content_format, NOW_MS)
    except Problem as problem:
        assert problem.code == 0x80
        return
    for one in found:
        assert one.values
        assert one.units.keys() <= one.values.keys()
        json.dumps(one.values, allow_nan=False)


@pytest.mark.fault("input", "random bytes as SenML")
@given(st.binary(max_size=100), FORMATS)
def test_senml_of_any_bytes(data: bytes, content_format: int) -> None:
    with pytest.raises(Problem):
        senml.readings(data, content_format, NOW_MS)


@given(st.lists(st.tuples(names, numbers.filter(lambda n: abs(n) < 1e300), st.integers(0, 3)), min_size=1))
@settings(max_examples=50)
def test_no_value_of_a_pack_is_lost(entries: list[tuple[str, float, int]]) -> None:
    pack = [{"n": name, "v": value, "t": 1_700_000_000 + at} for name, value, at in entries]
    found = senml.readings(json.dumps(pack).encode(), senml.JSON_FORMAT, NOW_MS)
    values = [(name, value, one.time_ms) for one in found for name, value in one.values.items()]
    sent = [(name, value, (1_700_000_000 + at) * 1000) for name, value, at in entries]
    assert sorted(values) == sorted(sent)
    assert [one.time_ms for one in found] == sorted(one.time_ms for one in found)


def test_a_small_pack_doesn_t_become_a_large_one() -> None:
    pack = b'[{"bn":"%s"}%s]' % (b"n" * 10_000, b',{"v":1}' * 1000)
    with pytest.raises(Problem, match=r"^4\.13"):
        senml.readings(pack, senml.JSON_FORMAT, NOW_MS)


block_steps = st.tuples(
    st.sampled_from("abc"), st.integers(0, 4), st.booleans(), st.integers(0, 17), st.floats(0, 60)
)


@given(st.lists(block_steps, max_size=60))
@settings(max_examples=50)
def test_blocks_never_take_more_than_they_may(steps: list[tuple[str, int, bool, int, float]]) -> None:
    now = 0.0
    budget = Budget(100)
    transfers = Transfers(2, 50, budget, lambda: now)
    for key, number, more, size, passed_s in steps:
        now += passed_s
        try:
            body = transfers.take("press", key, Block(number, more, 16), bytes(size))
        except Problem as problem:
            assert problem.code in (0x80, 0x88, 0x8D)
        else:
            assert (body is None) == more
            assert body is None or len(body) <= 50
        assert len(transfers) <= 2
    now += 1000
    transfers.take("press", "z", Block(0, False, 16), b"")
    assert budget.take(100)


@given(st.lists(st.tuples(st.integers(0, 9), st.booleans(), st.floats(0, 100)), max_size=80))
@settings(max_examples=50)
def test_an_answer_that_may_be_asked_for_is_there(steps: list[tuple[int, bool, float]]) -> None:
    now = 0.0
    exchanges = Exchanges(5, lambda: now, {})
    kept: dict[bytes, float] = {}
    for number, stored, passed_s in steps:
        now += passed_s
        key = bytes((number,))
        seen = exchanges.find(key, b"f")
        if key in kept and now - kept[key] < SPAN_S:
            assert seen is not None
            assert seen.answer == key
        if seen is None and exchanges.begin(key, b"f"):
            kept.pop(key, None)
            exchanges.end(key, key, stored)
            if stored:
                kept[key] = now
        assert seen is None or now - seen.began < LIFETIME_S
        assert sum(now - at < SPAN_S for at in kept.values()) <= 5


OPTIONS = (
    1,
    3,
    4,
    5,
    6,
    7,
    8,
    9,
    11,
    12,
    13,
    14,
    15,
    16,
    17,
    19,
    20,
    21,
    23,
    27,
    28,
    31,
    35,
    39,
    60,
    252,
    258,
    292,
)


def _odd(chance: random.Random) -> bytes:
    """Well-formed, with options that hardly make sense."""
    options = [
        (chance.choice(OPTIONS), chance.randbytes(chance.choice((0, 1, 1, 2, 3, 4, 8, 20))))
        for _ in range(chance.randrange(5))
    ]
    kind, code = chance.randrange(4), chance.choice((0, 1, 2, 3, 4, 5, 6, 7, 31, 65, 69, 95, 131, 163, 225))
    token = chance.randbytes(chance.randrange(4)) if code else b""
    payload = chance.randbytes(chance.randrange(20)) if code else b""
    return Message(kind, code, chance.randrange(99), token, tuple(options) if code else (), payload).encode()


def test_a_transfer_that_stands_still_is_forgotten() -> None:
    now = 0.0
    budget = Budget(32)
    transfers = Transfers(2, 100, budget, lambda: now)
    for key in "ab":
        assert transfers.take("press", key, Block(0, True, 16), bytes(16)) is None
    with pytest.raises(Problem, match=r"^4\.13"):
        transfers.take("press", "c", Block(0, True, 16), bytes(16))
    now += IDLE_S
    assert transfers.take("press", "c", Block(0, False, 16), b"x") == b"x"
    assert budget.take(32)


def test_a_sender_with_many_transfers_gives_way_to_one_with_fewer() -> None:
    budget = Budget(5 * 16)
    transfers = Transfers(4, 100, budget, lambda: 0.0)
    first = Block(0, True, 16)
    for key in range(4):
        transfers.take("greedy", key, first, bytes(16))
    with pytest.raises(Problem, match=r"^4\.13"):
        transfers.take("greedy", 4, first, bytes(16))
    transfers.take("press", 5, first, bytes(16))
    transfers.take("mill", 6, first, bytes(16))
    with pytest.raises(Problem, match=r"^4\.13"):  # nobody has two more than they
        transfers.take("press", 7, first, bytes(16))
    with pytest.raises(Problem, match=r"^4\.08"):
        transfers.take("greedy", 0, Block(1, False, 16), b"x")
    assert transfers.take("press", 5, Block(1, False, 16), b"x") == bytes(16) + b"x"


def test_after_a_restart_there_is_room_though_many_are_remembered() -> None:
    now = 1000.0
    recalled = {bytes((number,)): b"f" * 8 + bytes((number,)) for number in range(9)}
    exchanges = Exchanges(5, lambda: now, recalled)
    assert exchanges.find(b"\x08", b"f" * 8) is not None
    assert exchanges.begin(b"new", b"f" * 8)
    assert exchanges.find(b"\x08", b"f" * 8) is not None


async def _flood(count: int, seed: int, one: Any) -> None:
    """Random datagrams, good ones with some bytes changed, and odd ones."""
    chance = random.Random(seed)
    device = one.device()
    good = post(1, b'[{"n":"a","v":1}]', "a", (12, b"\x6e"), (27, b"\x08"), (9, b"\x09\x01\x02")).encode()
    for number in range(count):
        if number % 3 == 1:
            await device.send(_odd(chance))
        elif number % 3:
            data = bytearray(good)
            for _ in range(chance.randrange(1, 6)):
                data[chance.randrange(len(data))] = chance.randrange(256)
            await device.send(bytes(data[: chance.randrange(1, len(data) + 1)]))
        else:
            await device.send(chance.randbytes(chance.randrange(0, 80)))
        if number % 50 == 0:
            await asyncio.sleep(0)
            with suppress(TimeoutError):
                while True:
                    await device.receive(0.001)
    assert (
        await one.device().ask(Message(CON, 1, 5, b"wk", ((11, b".well-known"), (11, b"core"))))
    ).status == "2.05"


@pytest.mark.fault("input", "random datagrams at the socket")
async def test_random_datagrams(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with gateway(tmp_path, oscore=PRESS) as one:
        await _flood(2_000, 1, one)
        assert one.events()["malformed datagrams"] > 100
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


@pytest.mark.fault("input", "many random datagrams: memory")
@pytest.mark.slow
async def test_many_random_datagrams_take_no_memory(tmp_path: Path) -> None:
    async with gateway(tmp_path, oscore=PRESS) as one:
        await _flood(5_000, 2, one)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        await _flood(50_000, 3, one)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000
