"""Subscribers that don't read, don't acknowledge or are away: what is kept for them is bounded in bytes."""

import asyncio

import pytest

from drivers.mqtt import protocol as mqtt
from drivers.mqtt.backlog import ALL_BYTES_MAX, BYTES_MAX
from drivers.mqtt.broker import UNACKNOWLEDGED_BYTES_MAX
from drivers.mqtt.losses import SESSIONS, SLOW, WAITING
from drivers.mqtt.protocol import V311, Packet
from drivers.mqtt.subscribers import ABSENT_SESSIONS_MAX, MESSAGES_BYTES_MAX
from gateway.testing.emit import FakeEmit
from tests.mqtt.rig import CONNACK, CONNACK_PRESENT, Client, ack, connect, front_door, publish, subscribe

LARGE = bytes(200_000)
KERNEL_BYTES = 40 << 20
"""More than both ends of a socket take before the gateway's own memory is needed."""


async def subscriber(port: int, client_id: str, topic: str, qos: int = 0) -> Client:
    client = await Client.open(port, connect(client_id, keep_alive=0xFFFF))
    await client.expect(CONNACK)
    await client.send(subscribe(1, topic, qos=qos))
    await client.expect(mqtt.encode_suback(V311, 1, bytes((qos,))))
    return client


async def published(port: int, topic: str, count: int) -> None:
    device = await Client.open(port, connect("press"))
    await device.expect(CONNACK)
    for number in range(1, count + 1):
        await device.send(publish(topic, LARGE, 1, number))
        await device.expect(ack(Packet.PUBACK, number))


async def test_a_subscriber_that_does_not_read_is_cut_off_and_status_says_why(
    caplog: pytest.LogCaptureFixture,
) -> None:
    emit = FakeEmit()
    async with front_door(emit) as port:
        deaf = await subscriber(port, "deaf", "a")
        await published(port, "a", KERNEL_BYTES // len(LARGE))
        await emit.until(lambda: any("does not read" in why for who, why in emit.failures if who == "deaf"))
        assert "subscriber deaf: cut off: it does not read" in caplog.text
        assert len(await deaf.rest()) < KERNEL_BYTES
        await published(port, "a", 1)


async def test_a_subscriber_that_acknowledges_nothing_is_closed() -> None:
    emit = FakeEmit()
    async with front_door(emit) as port:
        rude = await subscriber(port, "rude", "a", qos=1)
        reading = asyncio.create_task(rude.rest())
        await published(port, "a", 2 * UNACKNOWLEDGED_BYTES_MAX // len(LARGE))
        await emit.until(lambda: any("acknowledge" in why for who, why in emit.failures if who == "rude"))
        await reading


async def test_messages_that_wait_for_subscribers_take_bounded_memory() -> None:
    """The newest are dropped: all of them are on their way to Kafka."""
    emit = FakeEmit()
    kept = MESSAGES_BYTES_MAX // (len(LARGE) + 200)
    async with front_door(emit, in_flight_bytes_max=64 << 20) as port:
        client = await subscriber(port, "dashboard", "a")
        device = await Client.open(port, connect("press"))
        await device.expect(CONNACK)
        emit.hold()
        for number in range(1, 2 * kept):
            await device.send(publish("a", b"%05d" % number + LARGE, 1, number))
        await emit.until(lambda: sum(len(call.records) for call in emit.held) == 2 * kept - 1)
        emit.release()
        await device.expect(*(ack(Packet.PUBACK, number) for number in range(1, 2 * kept)))
        await client.expect(*(publish("a", b"%05d" % number + LARGE, 0) for number in range(1, kept + 1)))
        await device.send(publish("a", b"end"))
        await client.expect(publish("a", b"end", 0))
        assert len(emit.records) == 2 * kept
        assert emit.events[SLOW] == kept - 1


async def test_what_waits_is_counted_until_it_is_on_its_way() -> None:
    """amqtt takes a few messages at a time: what it has taken nobody counts."""
    emit = FakeEmit()
    count = MESSAGES_BYTES_MAX // (len(LARGE) + 200)
    async with front_door(emit, in_flight_bytes_max=64 << 20) as port:
        await subscriber(port, "dashboard", "a")
        device = await Client.open(port, connect("press"))
        await device.expect(CONNACK)
        emit.hold()
        for number in range(1, 2 * count):
            await device.send(publish("a", LARGE, 1, number))
        await emit.until(lambda: sum(len(call.records) for call in emit.held) == 2 * count - 1)
        emit.release(len(emit.held) // 2)
        for _ in range(
            3
        ):  # turns of the loop: the first half is told, and goes to amqtt as far as it takes it
            await asyncio.sleep(0)
        emit.release()
        await device.expect(*(ack(Packet.PUBACK, number) for number in range(1, 2 * count)))
        assert emit.events[SLOW] > 0


async def absent(port: int, client_id: str) -> None:
    """A lasting session that is subscribed to "a" and whose client has gone."""
    client = await Client.open(port, connect(client_id, clean=False))
    await client.expect(CONNACK)
    await client.send(subscribe(1, "a", qos=1))
    await client.expect(mqtt.encode_suback(V311, 1, b"\1"))
    await client.send(b"\xe0\0")
    await client.rest()


@pytest.mark.parametrize("count", [1, 12], ids=["one session", "many sessions"])
async def test_messages_for_absent_subscribers_take_bounded_memory(count: int) -> None:
    """The oldest go, and are counted; what is left reaches a client that reads."""
    emit = FakeEmit()
    sent = 20
    kept_each = BYTES_MAX // (len(LARGE) + 300)
    kept = min(count * kept_each, ALL_BYTES_MAX // (len(LARGE) + 300))
    async with front_door(emit) as port:
        for number in range(count):
            await absent(port, f"panel {number}")
        await published(port, "a", sent)
        await emit.until(lambda: emit.events[WAITING] >= count * sent - kept)
        assert emit.events[WAITING] == count * sent - kept
        if count == 1:
            client = await Client.open(port, connect("panel 0", clean=False))
            await client.expect(CONNACK_PRESENT)
            last = (publish("a", LARGE, 1, number, retain=True) for number in range(1, kept_each + 1))
            await client.expect(*last)
            await client.send(*(ack(Packet.PUBACK, number) for number in range(1, kept_each + 1)))
            await published(port, "a", 1)
            await client.expect(publish("a", LARGE, 1, kept_each + 1))


async def test_there_are_so_many_absent_sessions_and_the_one_absent_longest_is_forgotten() -> None:
    """It hears that it has no session when it comes back. The others' are there."""
    emit = FakeEmit()
    async with front_door(emit) as port:
        for number in range(ABSENT_SESSIONS_MAX + 5):
            await absent(port, f"panel {number}")
        await subscriber(port, "dashboard", "a")
        assert emit.events[SESSIONS] > 0
        first = await Client.open(port, connect("panel 0", clean=False))
        await first.expect(CONNACK)
        last = await Client.open(port, connect(f"panel {ABSENT_SESSIONS_MAX}", clean=False))
        await last.expect(CONNACK_PRESENT)
