"""Packets do not come as segments: lengths of one to four bytes, and cuts anywhere."""

import asyncio
from pathlib import Path

import pytest

from drivers.mqtt import protocol as mqtt
from drivers.mqtt.protocol import V5, V311, Packet, Reason
from tests.mqtt.rig import CONNACK, Client, ack, connect, gateway, publish

HEAD_BYTES = len(publish("a", b"")) - 2
"""Of a QoS 1 PUBLISH to "a", without its first byte and its length."""


async def test_remaining_lengths_of_one_to_three_bytes(tmp_path: Path) -> None:
    lengths = (127, 128, 16_383, 16_384, 1 << 20)
    async with gateway(tmp_path, packet_bytes_max=1 << 20) as one:
        client = await Client.open(one.port, connect("press"))
        await client.expect(CONNACK)
        bodies = [bytes([number]) * (length - HEAD_BYTES) for number, length in enumerate(lengths)]
        for number, body in enumerate(bodies, 1):
            await client.send(publish("a", body, 1, number))
            await client.expect(ack(Packet.PUBACK, number))
        assert await one.bodies() == bodies


@pytest.mark.parametrize("version", [V311, V5])
@pytest.mark.parametrize("length", [b"\xff\xff\x7f", b"\x80\x80\x80\x01", b"\xff\xff\xff\x7f"])
async def test_a_packet_that_is_too_large_is_refused_by_its_length(
    length: bytes, version: int, tmp_path: Path
) -> None:
    """2 MiB less a byte, 2 MiB, 256 MiB; none of it is waited for."""
    async with gateway(tmp_path, packet_bytes_max=1 << 20) as one:
        client = await Client.open(one.port, connect("press", version=version))
        await client.packet()
        await client.send(b"\x32" + length)
        told = mqtt.encode_disconnect(Reason.PACKET_TOO_LARGE) if version == V5 else b""
        assert await client.rest() == told


async def test_connect_and_publish_in_pieces_of_every_size(tmp_path: Path) -> None:
    wire = connect("press") + publish("a", b"first") + publish("a", b"second", 2, 2)
    async with gateway(tmp_path) as one:
        for size in range(1, len(wire) + 1):
            client = await Client.open(one.port)
            for start in range(0, len(wire), size):
                await client.send(wire[start : start + size])
                for _ in range(2):  # the driver, in this same loop, reads the piece
                    await asyncio.sleep(0)
            await client.expect(CONNACK, ack(Packet.PUBACK, 1), ack(Packet.PUBREC, 2))
        assert await one.bodies() == [b"first", b"second"] * len(wire)
