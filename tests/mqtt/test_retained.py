"""Retained messages: who gets them, and that nobody waits for it."""

import asyncio
import time
from pathlib import Path
from typing import Any

from drivers.mqtt import User
from drivers.mqtt import protocol as mqtt
from drivers.mqtt.backlog import Backlogs
from drivers.mqtt.broker import Link, start
from drivers.mqtt.losses import RETAINED, Losses
from drivers.mqtt.passwords import hashed
from drivers.mqtt.protocol import V5, V311, Packet
from drivers.mqtt.retained import BYTES_MAX
from drivers.mqtt.subscribers import LEVELS_MAX
from gateway.testing.emit import FakeEmit
from tests.mqtt.rig import (
    CONNACK,
    CONNACK_PRESENT,
    Client,
    ack,
    connect,
    front_door,
    gateway,
    publish,
    subscribe,
)

PING, PONG = b"\xc0\0", b"\xd0\0"


async def let_in(port: int, client_id: str, **more: Any) -> Client:
    client = await Client.open(port, connect(client_id, **more))
    await client.expect(CONNACK)
    return client


async def subscribed(client: Client, *topics: str, qos: int = 0) -> None:
    await client.send(subscribe(1, *topics, qos=qos))
    await client.expect(mqtt.encode_suback(V311, 1, bytes((qos,)) * len(topics)))


async def test_another_s_subscription_shows_nobody_what_they_may_not_see(tmp_path: Path) -> None:
    users = {
        "admin": User(password=hashed("a"), subscribe=["#"]),
        "bob": User(password=hashed("b"), subscribe=["b/#"]),
    }
    async with gateway(tmp_path, anonymous=False, users=users) as one:
        admin = await let_in(one.port, "admin", user="admin", password="a")
        await subscribed(admin, "secret/#")
        await admin.send(publish("secret/key", b"4711", retain=True))
        await admin.expect(ack(Packet.PUBACK), publish("secret/key", b"4711", 0))
        bob = await let_in(one.port, "bob", user="bob", password="b")
        await subscribed(bob, "b/x")
        await admin.send(publish("b/x", b"for bob", 1, 2))
        await bob.expect(publish("b/x", b"for bob", 0))


async def test_retained_messages_take_bounded_memory_and_the_oldest_go() -> None:
    emit = FakeEmit()
    body = bytes(200_000)
    kept = BYTES_MAX // (len(body) + 200)
    async with front_door(emit) as port:
        device = await let_in(port, "press")
        for number in range(kept + 5):
            await device.send(publish(f"{number:02}", body, retain=True))
            await device.expect(ack(Packet.PUBACK))
        client = await let_in(port, "dashboard")
        await subscribed(client, "#")
        await client.expect(*(publish(f"{number:02}", body, 0, retain=True) for number in range(5, kept + 5)))
        assert emit.events[RETAINED] == 5
        assert len(emit.records) == kept + 5


class Forbidden:
    """A subscriber that may receive what begins with b/."""

    client_id, version, lasting = "bob", V311, False

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.write = self.written.append

    def may_receive(self, topic: str) -> bool:
        return topic.startswith("b/")


async def test_whatever_amqtt_sends_is_measured_by_the_client_s_own_rights() -> None:
    bob = Forbidden()
    amqtt = await start(60)
    link = Link(amqtt, bob, Backlogs(Losses(print)))  # type: ignore[arg-type]
    asked = link.unread_bytes
    link.write(publish("secret/key", b"4711", 1, 5))
    link.write(publish("secret/key", b"4711", 0))
    link.write(publish("b/x", b"for bob", 1, 6))
    assert bob.written == [publish("b/x", b"for bob", 1, 6)]
    assert link.unread_bytes - asked == len(ack(Packet.PUBACK, 5))  # else amqtt would wait for it
    link.end()
    await amqtt.shutdown()


async def test_a_new_subscription_brings_what_was_retained_with_the_lower_qos() -> None:
    async with front_door(FakeEmit()) as port:
        device = await let_in(port, "press")
        await device.send(publish("a/0", b"zero", 0, retain=True), publish("a/1", b"one", 1, 1, retain=True))
        await device.send(publish("a/2", b"gone", 1, 2, retain=True), publish("a/2", b"", 1, 3, retain=True))
        await device.expect(*(ack(Packet.PUBACK, number) for number in (1, 2, 3)))
        client = await let_in(port, "dashboard")
        await subscribed(client, "a/+", qos=1)
        await client.expect(
            publish("a/0", b"zero", 0, retain=True), publish("a/1", b"one", 1, 1, retain=True)
        )
        await client.send(ack(Packet.PUBACK, 1), publish("a/1", b"more", 1, 9))
        await client.expect(ack(Packet.PUBACK, 9), publish("a/1", b"more", 1, 2))
        modern = await Client.open(port, connect("modern", version=V5))
        await modern.packet()
        await modern.send(mqtt.packet(0x82, b"\0\1\0" + mqtt.text("a/1") + b"\0"))
        await modern.expect(b"\x90\x04\0\1\0\0", publish("a/1", b"one", 0, retain=True, v5=True))


async def test_a_session_that_goes_on_gets_what_was_retained_only_for_what_it_subscribes_to() -> None:
    async with front_door(FakeEmit()) as port:
        client = await Client.open(port, connect("dashboard", clean=False))
        await client.expect(CONNACK)
        await subscribed(client, "a")
        await client.send(publish("a", b"1", retain=True))
        await client.expect(ack(Packet.PUBACK), publish("a", b"1", 0))
        client.cut()
        client = await Client.open(port, connect("dashboard", clean=False), PING)
        await client.expect(CONNACK_PRESENT, PONG)
        await client.send(subscribe(1, "a"))
        await client.expect(b"\x90\x03\0\1\0", publish("a", b"1", 0, retain=True))


async def test_many_retained_messages_under_many_filters_hold_nobody_up() -> None:
    """CPU time of the loop between two turns of another task: no other program's load counts."""
    topics, filters = 200, 400
    longest = 0.0

    async def turns() -> None:
        nonlocal longest
        before = time.thread_time()
        while True:
            await asyncio.sleep(0)
            now = time.thread_time()
            longest = max(longest, now - before)
            before = now

    deep = "/x" * (LEVELS_MAX - 2)
    async with front_door(FakeEmit()) as port:
        device = await let_in(port, "press")
        for number in range(topics):
            await device.send(publish(f"{number}{deep}", b"1", retain=True))
            await device.expect(ack(Packet.PUBACK))
        ticking = asyncio.create_task(turns())
        client = await let_in(port, "dashboard")
        await subscribed(client, *(f"+{deep}/{number}" for number in range(filters)))
        await client.send(subscribe(2, "+" + deep))
        await client.expect(mqtt.encode_suback(V311, 2, b"\0"))
        await client.expect(*(publish(f"{number}{deep}", b"1", 0, retain=True) for number in range(topics)))
        again = await let_in(port, "another")
        await again.send(subscribe(1, "b"))
        await again.expect(mqtt.encode_suback(V311, 1, b"\0"))
        ticking.cancel()
    assert longest < 0.2


async def test_what_has_too_many_levels_is_stored_but_nobody_subscribes_to_it(tmp_path: Path) -> None:
    deep = "/".join("x" * (LEVELS_MAX + 1))
    async with gateway(tmp_path) as one:
        client = await let_in(one.port, "dashboard")
        await client.send(subscribe(1, deep), subscribe(2, "#"))
        await client.expect(b"\x90\x03\0\1\x80", b"\x90\x03\0\2\0")
        await client.send(publish(deep, b"1"), publish("x", b"2", 1, 2))
        await client.expect(ack(Packet.PUBACK, 1), ack(Packet.PUBACK, 2), publish("x", b"2", 0))
        assert await one.bodies() == [b"1", b"2"]
