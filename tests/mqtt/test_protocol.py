"""Bytes to packets: whatever comes in whatever pieces gives the same packets or Malformed, and nothing else."""

import json
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.mqtt import protocol as mqtt
from drivers.mqtt.protocol import V5, V311, Malformed, Packet
from tests.mqtt.rig import connect, publish

LIMIT = 4096
PARSERS = {
    Packet.CONNECT: lambda data, first, start, end, version: mqtt.connect(data, first, start, end),
    Packet.PUBLISH: mqtt.publish,
    Packet.PUBACK: mqtt.packet_id,
    Packet.PUBREC: mqtt.packet_id,
    Packet.PUBREL: mqtt.packet_id,
    Packet.PUBCOMP: mqtt.packet_id,
    Packet.SUBSCRIBE: mqtt.subscribe,
    Packet.UNSUBSCRIBE: mqtt.unsubscribe,
    Packet.DISCONNECT: mqtt.disconnect,
}
SEEDS = [
    connect("press"),
    connect("press", version=V5, properties={0x11: 60, 0x21: 20}, will=("a", "gone", True)),
    connect("press", user="u", password="p"),
    publish("site/4", b"x" * 200, 2, 9),
    publish("site/4", b"x", 1, 9, v5=True),
    mqtt.packet(0x30, mqtt.text("a") + mqtt.encode_properties({0x03: "text/plain"}) + b"x"),
    mqtt.packet(0x82, b"\0\1" + mqtt.text("a/#") + b"\1"),
    mqtt.packet(0xA2, b"\0\1" + mqtt.text("a/#")),
    b"\x62\x02\0\1",
    b"\xc0\0",
    b"\xe0\0",
]


def parse(data: bytes, version: int) -> list[object]:
    """All packets, or what came before the malformed one and its reason."""
    found: list[object] = []
    try:
        while (split := mqtt.split(data, LIMIT))[0]:
            for first, start, end in split[0]:
                parser = PARSERS.get(Packet(first >> 4)) if first >> 4 else None
                found.append(parser(data, first, start, end, version) if parser else data[start:end])
            data = data[split[1] :]
        found.append(data)
    except Malformed as error:
        found.append(error.reason)
    return found


mutated = st.builds(
    lambda seeds, position, replacement: (
        (joined := b"".join(seeds))[: position % (len(joined) + 1)]
        + replacement
        + joined[position % (len(joined) + 1) + len(replacement) // 2 :]
    ),
    st.lists(st.sampled_from(SEEDS), min_size=1, max_size=4),
    st.integers(0, 1000),
    st.binary(max_size=6),
)


@pytest.mark.fault("input", "random and damaged packets")
@given(st.one_of(st.binary(max_size=300), mutated), st.sampled_from([V311, V5]))
def test_any_bytes_are_packets_or_malformed(data: bytes, version: int) -> None:
    parse(data, version)


@given(st.lists(st.sampled_from(SEEDS), max_size=5), st.lists(st.integers(1, 50), max_size=20))
def test_pieces_give_the_same_packets(seeds: list[bytes], sizes: list[int]) -> None:
    data = b"".join(seeds)
    whole = [data[start:end] for _, start, end in mqtt.split(data, LIMIT)[0]]
    found, rest, at = [], b"", 0
    for size in [*sizes, len(data)]:
        rest += data[at : at + size]
        at += size
        packets, used = mqtt.split(rest, LIMIT)
        found += [rest[start:end] for _, start, end in packets]
        rest = rest[used:]
    assert found == whole
    assert rest == b""


def short_way(data: bytes, packets: list[tuple[int, int, int]], version: int) -> None:
    """It reads what the long way reads, and leaves to it only what has more to it."""
    index = 0
    while index < len(packets):
        topics, payloads, acks, after = mqtt.plain(data, packets, index, version)
        wanted = b""
        for topic, payload, packet in zip(topics, payloads, packets[index:after], strict=True):
            message = mqtt.publish(data, *packet, version)
            assert message[:2] == (topic, payload)
            assert (message.retain, message.dup, message.properties) == (False, False, {})
            wanted += mqtt.encode_ack(Packet.PUBACK, message.packet_id) if message.qos else b""
        assert acks == wanted
        if after < len(packets) and packets[after][0] in (0x30, 0x32):
            with suppress(Malformed):
                assert mqtt.publish(data, *packets[after], version).properties
        index = after + 1


@given(
    st.one_of(st.lists(st.sampled_from(SEEDS), max_size=6).map(b"".join), mutated),
    st.sampled_from([V311, V5]),
)
def test_the_short_way_reads_the_same_messages(data: bytes, version: int) -> None:
    try:
        packets, _ = mqtt.split(data, LIMIT)
    except Malformed:
        return
    short_way(data, packets, version)


@pytest.mark.parametrize("size", [0, 1, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152])
def test_remaining_lengths_of_one_to_four_bytes(size: int) -> None:
    packet = mqtt.packet(0x30, b"x" * size)
    [(first, start, end)], used = mqtt.split(packet, 1 << 28)
    assert (first, end - start, used) == (0x30, size, len(packet))
    for cut in range(min(5, len(packet))):
        assert mqtt.split(packet[:cut], 1 << 28) == ([], 0)


@pytest.mark.parametrize(
    ("packet", "message"),
    [
        (b"\x30\xff\xff\xff\xff\x01", "more than four bytes"),
        (mqtt.packet(0x36, mqtt.text("a") + b"\0\1"), "QoS 3"),
        (mqtt.packet(0x32, mqtt.text("a") + b"\0\0"), "packet id of 0"),
        (mqtt.packet(0x38, mqtt.text("a")), "DUP with QoS 0"),
        (mqtt.packet(0x30, b"\0\5ab"), "shorter than its topic"),
        (mqtt.packet(0x10, mqtt.text("HTTP") + bytes((4, 2, 0, 60)) + mqtt.text("a")), "called MQTT"),
        (mqtt.packet(0x10, mqtt.text("MQTT") + bytes((9, 2, 0, 60)) + mqtt.text("a")), "version 9"),
        (mqtt.packet(0x10, mqtt.text("MQTT") + bytes((4, 3, 0, 60)) + mqtt.text("a")), "exclude each other"),
        (mqtt.packet(0x82, b"\0\1"), "without a topic filter"),
        (mqtt.packet(0x80, b"\0\1" + mqtt.text("a") + b"\0"), "wrong form"),
    ],
)
def test_what_is_malformed_is_said(packet: bytes, message: str) -> None:
    def take() -> None:
        [(first, start, end)], _ = mqtt.split(packet, 1 << 20)
        PARSERS[Packet(first >> 4)](packet, first, start, end, V311)

    with pytest.raises(Malformed, match=message):
        take()


def test_a_length_has_no_more_bytes_than_it_needs() -> None:
    """Section 1.5.5; the remaining length, which was always read so, is left alone."""
    packet = mqtt.packet(0x32, mqtt.text("a") + b"\0\1\x80\0x")
    [(first, start, end)], _ = mqtt.split(packet, LIMIT)
    with pytest.raises(Malformed, match="more bytes than it needs"):
        mqtt.publish(packet, first, start, end, V5)


def test_what_comes_before_a_malformed_length_is_split_off() -> None:
    data = publish("a", b"1") + b"\x30\xff\xff\xff\xff\x01"
    packets, used = mqtt.split(data, LIMIT)
    assert len(packets) == 1
    with pytest.raises(Malformed, match="more than four bytes"):
        mqtt.split(data[used:], LIMIT)


def test_cases_are_what_they_say() -> None:
    """The wire of each case, as devices send it, has as many publishes as records are expected, duplicates aside."""
    for case in (Path(mqtt.__file__).parent / "cases").iterdir():
        wire = b"".join(bytes.fromhex(line) for line in (case / "wire.hex").read_text().split())
        packets, used = mqtt.split(wire, 1 << 20)
        assert used == len(wire)
        published = {wire[start:end] for first, start, end in packets if first >> 4 == Packet.PUBLISH}
        expected = [json.loads(line) for line in (case / "expected.jsonl").read_text().splitlines()]
        assert len(published) == len(expected)
