"""Clients that keep the gateway busy with little: the others have their turn, and what waits is bounded."""

import socket
from contextlib import suppress

import pytest

from drivers.mqtt import protocol as mqtt
from drivers.mqtt.protocol import V5, Packet, Reason
from drivers.mqtt.subscriber import FILTERS_MAX, REQUESTS_MAX
from drivers.mqtt.subscribers import SUBSCRIPTIONS_MAX
from gateway.limits import NAME_BYTES_MAX
from gateway.testing.emit import FakeEmit
from tests.mqtt.rig import CONNACK, Client, ack, connect, front_door, publish, subscribe

COUNT = 25_000
"""Messages of 9 bytes that one read of a socket brings."""


def numbered(number: int) -> bytes:
    return publish("a", b"%04x" % number, 0)


def at_once(port: int, client_id: str) -> socket.socket:
    """A client whose writes are in the gateway's socket before the gateway runs again."""
    client = socket.create_connection(("127.0.0.1", port))
    client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    client.sendall(connect(client_id))
    client.setblocking(False)
    return client


async def test_between_many_tiny_messages_of_one_client_the_others_are_served_and_order_holds() -> None:
    emit = FakeEmit()
    async with front_door(emit) as port:
        with at_once(port, "busy") as busy:
            other = await Client.open(port, connect("other"))
            await other.expect(CONNACK)
            flood = b"".join(map(numbered, range(COUNT)))
            assert busy.send(flood) == len(flood)
            await other.send(publish("b", b"x", 0))
            records = await emit.stored(COUNT + 1)
            bodies = [record.body for record in records]
            assert bodies.index(b"x") <= 2 * mqtt.SPLIT_MAX
            bodies.remove(b"x")
            assert bodies == [b"%04x" % number for number in range(COUNT)]


async def test_a_client_that_goes_after_many_tiny_messages_loses_none() -> None:
    emit = FakeEmit()
    async with front_door(emit) as port:
        with at_once(port, "busy") as busy:
            flood = b"".join(map(numbered, range(COUNT))) + b"\xe0\0"
            assert busy.send(flood) == len(flood)
        assert len(await emit.stored(COUNT)) == COUNT


@pytest.mark.slow
async def test_subscriptions_are_refused_when_there_are_too_many() -> None:
    async with front_door(FakeEmit()) as port:
        for name in range(SUBSCRIPTIONS_MAX // FILTERS_MAX):
            client = await Client.open(port, connect(f"dashboard {name}"))
            await client.expect(CONNACK)
            await client.send(subscribe(1, *(f"{name}/{one}" for one in range(FILTERS_MAX))))
            await client.expect(mqtt.encode_suback(mqtt.V311, 1, bytes(FILTERS_MAX)))
        late = await Client.open(port, connect("late"))
        await late.expect(CONNACK)
        await late.send(subscribe(1, "more"))
        await late.expect(mqtt.encode_suback(mqtt.V311, 1, b"\x80"))
        await client.send(mqtt.packet(0xA2, b"\0\3" + mqtt.text(f"{name}/5")))
        await client.expect(b"\xb0\x02\0\3")
        await late.send(subscribe(2, "more"))
        await late.expect(mqtt.encode_suback(mqtt.V311, 2, b"\0"))


async def test_one_client_has_its_share_of_the_subscriptions() -> None:
    async with front_door(FakeEmit()) as port:
        client = await Client.open(port, connect("greedy"))
        await client.expect(CONNACK)
        await client.send(subscribe(1, *(f"a/{one}" for one in range(FILTERS_MAX))))
        await client.expect(mqtt.encode_suback(mqtt.V311, 1, bytes(FILTERS_MAX)))
        await client.send(subscribe(2, "more"))
        await client.expect(mqtt.encode_suback(mqtt.V311, 2, b"\x80"))
        await client.send(subscribe(3, "a/1"))
        await client.expect(mqtt.encode_suback(mqtt.V311, 3, b"\0"))


async def test_a_client_that_subscribes_faster_than_can_be_served_is_closed() -> None:
    """Without the limit it fills the memory, and holds the others up."""
    async with front_door(FakeEmit()) as port:
        client = await Client.open(port, connect("mad", version=V5))
        await client.packet()
        request = b"\x82\x07\0\1\0\0\1x\0"
        await client.send(request)
        await client.expect(b"\x90\x04\0\1\0\0")
        with suppress(ConnectionError):
            await client.send(request * 2 * REQUESTS_MAX)
        assert (await client.rest()).endswith(mqtt.encode_disconnect(Reason.QUOTA_EXCEEDED))


async def test_requests_with_the_same_packet_id_have_an_answer_each() -> None:
    async with front_door(FakeEmit()) as port:
        client = await Client.open(port, connect("mad"))
        await client.expect(CONNACK)
        await client.send(subscribe(1, "x"), subscribe(1, "y", "z"), subscribe(1, "$share/a/x", "z"))
        answers = mqtt.encode_suback(mqtt.V311, 1, bytes(1)), mqtt.encode_suback(mqtt.V311, 1, bytes(2))
        await client.expect(*answers, mqtt.encode_suback(mqtt.V311, 1, b"\x80\0"))


async def test_a_filter_as_long_as_no_topic_can_be_is_refused() -> None:
    async with front_door(FakeEmit()) as port:
        client = await Client.open(port, connect("greedy"))
        await client.expect(CONNACK)
        await client.send(subscribe(1, "x" * NAME_BYTES_MAX, "x" * (NAME_BYTES_MAX + 1)))
        await client.expect(mqtt.encode_suback(mqtt.V311, 1, b"\0\x80"))


async def test_acknowledgements_of_what_nobody_sent_are_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    async with front_door(FakeEmit()) as port:
        client = await Client.open(port, connect("mad"))
        await client.expect(CONNACK)
        await client.send(subscribe(1, "x"))
        await client.expect(mqtt.encode_suback(mqtt.V311, 1, b"\0"))
        await client.send(ack(Packet.PUBACK) * 50_000, b"\xc0\0")
        await client.expect(b"\xd0\0")
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
