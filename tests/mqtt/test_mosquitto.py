"""The same bytes to mosquitto and to our front door: both answer alike or close, but for what drivers/mqtt/README.md lists."""

import asyncio
import os
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from drivers.mqtt import protocol as mqtt
from drivers.mqtt.protocol import V5, V311, Malformed, Packet, Property
from gateway.testing.emit import FakeEmit
from gateway.testing.kafka import free_ports
from tests.fuzz.mqtt import TOKENS, seeds
from tests.fuzz.mutate import Mutator
from tests.mqtt.rig import WITHIN_S, connect, front_door, publish
from tests.proof import Row, tell

STREAMS = int(os.environ.get("N", "300"))
SEED = os.environ.get("SEED", "1")
PACKET_BYTES_MAX = 1 << 16
LAST = 0xFFFF
"""Packet id of a message that ends each stream: its PUBACK says that all before it was answered."""

Answer = tuple[str, ...]


def valid(chance: random.Random, version: int) -> list[bytes]:
    """A device's whole connection."""
    v5 = version == V5
    asked = {Property.SESSION_EXPIRY: 60} if v5 and chance.random() < 0.5 else {}
    packets = [connect(f"c{chance.randrange(1 << 30)}", version=version, properties=asked)]
    for number in range(1, chance.randrange(2, 6)):
        qos = chance.randrange(3)
        retain, dup = chance.random() < 0.2, qos > 0 and chance.random() < 0.2
        packets.append(publish("a/b", b"x" * number, qos, number, retain=retain, dup=dup, v5=v5))
        if qos == 2 and chance.random() < 0.7:
            packets.append(mqtt.encode_ack(Packet.PUBREL, number))
    return packets


def changed(chance: random.Random) -> list[bytes]:
    """Packets, of which one or two are not as they should be; the others are whole."""
    packets = valid(chance, chance.choice((V311, V5)))
    mutator = Mutator(chance, TOKENS, [*seeds(), *packets])
    for _ in range(chance.randrange(1, 3)):
        at = chance.randrange(len(packets))
        packets[at] = mutator.changed(packets[at])
    if chance.random() < 0.2:
        packets.insert(chance.randrange(len(packets) + 1), chance.choice(seeds()))
    return packets


def whole(stream: bytes) -> bytes | None:
    """What can be answered now: without a packet's half, and with a last message; None for what subscribes."""
    packets, used, rest = [], 0, stream
    try:
        while (found := mqtt.split(rest, PACKET_BYTES_MAX))[0]:
            packets += found[0]
            used += found[1]
            rest = stream[used:]
    except Malformed:
        used = len(stream)
    if any(first >> 4 in (Packet.SUBSCRIBE, Packet.UNSUBSCRIBE) for first, _, _ in packets):
        return None
    v5 = b"MQTT\5" in stream[:20]
    return stream[:used] + publish("end", b"", 1, LAST, v5=v5)


async def answers(port: int, stream: bytes) -> list[Answer]:
    """What came but for pings, up to the last message's answer or "closed". Passed over are a PUBCOMP's reason, for ours
    says when there was nothing to complete, and PUBREL, for we never send QoS 2 and take no PUBREC for an answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    found: list[Answer] = []
    try:
        writer.write(stream)
        async with asyncio.timeout(WITHIN_S):
            while True:
                packet = await reader.readexactly(2)
                body = await reader.readexactly(packet[1])
                kind = Packet(packet[0] >> 4)
                if kind is Packet.CONNACK:
                    found.append((kind.name, "yes" if body[1] == 0 else "no"))
                elif kind not in (Packet.DISCONNECT, Packet.PINGRESP, Packet.PUBREL):
                    number = int.from_bytes(body[:2], "big")
                    reason = body[2] if len(body) > 2 and kind is not Packet.PUBCOMP else 0
                    found.append((kind.name, str(number), "no" if reason >= 0x80 else "yes"))
                    if number == LAST:
                        return found
    except (asyncio.IncompleteReadError, ConnectionError):
        return [*found, ("closed",)]
    finally:
        writer.transport.abort()


@asynccontextmanager
async def mosquitto(folder: Path) -> AsyncIterator[int]:
    port = free_ports(1)[0]
    file = folder / "mosquitto.conf"
    file.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nmax_packet_size {PACKET_BYTES_MAX}\n")
    process = await asyncio.create_subprocess_exec(
        "mosquitto", "-c", str(file), stderr=asyncio.subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(WITHIN_S):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except OSError:
                    await asyncio.sleep(0.02)
                else:
                    writer.close()
                    break
        yield port
    finally:
        process.terminate()
        await process.wait()


STRICTER = "we close: flags, types or lengths that a client's packet may not have"
DOLLAR = "we refuse: topics that begin with $"
UNKNOWN_USER = "we refuse: a user name that nobody has"
ODD_TEXT = "we take: control characters and non-characters in names"
AGAIN_WITHOUT_DUP = "we answer: a QoS 2 message that comes again without DUP, more than twice"
ODD_PROPERTIES = (
    "we take: properties of MQTT 5 in packets where they have no meaning, in acknowledgements of any form"
)


def difference(stream: bytes, ours: list[Answer], theirs: list[Answer]) -> str | None:
    """None where both did alike: a connection that both close may lose answers on its way. Else which of the differences
    in drivers/mqtt/README.md it is, or "" for none of them."""
    if ours == theirs:
        return None
    we_close, they_close = ours[-1] == ("closed",), theirs[-1] == ("closed",)
    if we_close and they_close:
        shorter, longer = sorted(([*filter(_said_yes, one)] for one in (ours, theirs)), key=len)
        return None if longer[: len(shorter)] == shorter or _has_user(stream) else ""
    packets = _packets(stream)
    if any(
        first >> 4 == Packet.PUBLISH and stream[start + 2 : start + 3] == b"$" for first, start, _ in packets
    ):
        return DOLLAR
    if we_close:
        if _has_user(stream):
            return UNKNOWN_USER
        return STRICTER if any(_is_strict(stream, *packet) for packet in packets) else ""
    if they_close:
        if any(_has_odd_text(stream, *packet) for packet in packets):
            return ODD_TEXT
        again = Counter(stream[start:end] for first, start, end in packets if first & 0xF6 == 0x34)
        if max(again.values(), default=0) > 2:
            return AGAIN_WITHOUT_DUP
        if any(_has_properties(stream, *packet) for packet in packets):
            return ODD_PROPERTIES
    return ""


def _said_yes(answer: Answer) -> bool:
    return answer[-1] == "yes"


def _packets(stream: bytes) -> list[tuple[int, int, int]]:
    found, at = [], 0
    with suppress(Malformed):
        while (split := mqtt.split(stream[at:], PACKET_BYTES_MAX))[0]:
            found += [(first, at + start, at + end) for first, start, end in split[0]]
            at += split[1]
    return found


def _has_user(stream: bytes) -> bool:
    return stream[:1] == b"\x10" and stream[9] & 0x80 > 0


def _is_strict(stream: bytes, first: int, start: int, end: int) -> bool:
    match first >> 4:
        case Packet.PUBLISH:
            return first & 0x0E == 0x08
        case Packet.PUBACK | Packet.PUBREC | Packet.PUBCOMP:
            return first & 0x0F != 0 or end - start != 2
        case Packet.PUBREL:
            return end - start != 2
        case Packet.PINGREQ | Packet.DISCONNECT:
            return first & 0x0F != 0 or end != start
    return first >> 4 != Packet.CONNECT


def _has_odd_text(stream: bytes, first: int, start: int, end: int) -> bool:
    text = ""
    if first >> 4 == Packet.PUBLISH:
        text = stream[start + 2 : start + 2 + int.from_bytes(stream[start : start + 2], "big")].decode(
            errors="replace"
        )
    elif first >> 4 == Packet.CONNECT:
        with suppress(Malformed):
            asked = mqtt.connect(stream, first, start, end)
            text = asked.client_id + (asked.will.topic.decode(errors="replace") if asked.will else "")
    return any(ord(sign) < 0x20 or 0x7F <= ord(sign) < 0xA0 or ord(sign) & 0xFFFE == 0xFFFE for sign in text)


def _has_properties(stream: bytes, first: int, start: int, end: int) -> bool:
    if first >> 4 == Packet.PUBLISH:
        with suppress(Malformed):
            return bool(mqtt.publish(stream, first, start, end, V5).properties)
    return first >> 4 in range(Packet.PUBACK, Packet.PUBCOMP + 1) and end - start > 2


@pytest.mark.slow
@pytest.mark.proof
@pytest.mark.timeout(3600)
async def test_mosquitto_answers_the_same(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    found: Counter[str | None] = Counter()
    async with (
        mosquitto(tmp_path) as theirs,
        front_door(FakeEmit(), packet_bytes_max=PACKET_BYTES_MAX) as ours,
    ):
        for number in range(STREAMS):
            stream = whole(b"".join(changed(chance)))
            if stream is not None:
                both = await asyncio.gather(answers(ours, stream), answers(theirs, stream))
                found[difference(stream, *both)] += 1
                assert found[""] == 0, f"stream {number} of SEED={SEED}: {stream.hex()}: {both}"
    print(found)
    what = "mqtt: changed streams, answered as mosquitto answers them, or refused"
    command = f"N={STREAMS} SEED={SEED} pytest tests/mqtt/test_mosquitto.py"
    tell(Row("33", what, found.total(), None, None, None, None, command))
