"""A session belongs to the user that began it: a client id is no secret."""

from pathlib import Path
from typing import Any

import pytest

from drivers.mqtt import User
from drivers.mqtt import protocol as mqtt
from drivers.mqtt.passwords import hashed
from drivers.mqtt.protocol import V5, V311, Packet, Property
from tests.mqtt.rig import CONNACK, CONNACK_PRESENT, Client, ack, connect, gateway, publish, subscribe

PING, PONG = b"\xc0\0", b"\xd0\0"
PUBREC, PUBREL, PUBCOMP = Packet.PUBREC, Packet.PUBREL, Packet.PUBCOMP
REFUSED = {V311: b"\x20\x02\0\2", V5: b"\x20\x03\0\x85\0"}

USERS = {name: User(password=hashed(name), subscribe=["#"]) for name in ("admin", "bob")}
ADMIN: dict[str, Any] = {"user": "admin", "password": "admin"}
BOB: dict[str, Any] = {"user": "bob", "password": "bob"}


async def assert_refused(port: int, who: dict[str, Any]) -> None:
    for version in (V311, V5):
        for clean in (False, True):
            asked: dict[str, Any] = {"properties": {Property.SESSION_EXPIRY: 600}}
            client = await Client.open(port, connect("panel", clean=clean, version=version, **asked, **who))
            assert await client.rest() == REFUSED[version]


@pytest.mark.parametrize("other", [BOB, {}], ids=["bob", "anonymous"])
async def test_another_user_gets_neither_the_session_nor_the_connection(
    other: dict[str, Any], tmp_path: Path
) -> None:
    async with gateway(tmp_path, users=USERS) as one:
        admin = await Client.open(one.port, connect("panel", clean=False, **ADMIN))
        await admin.expect(CONNACK)
        await admin.send(subscribe(1, "secret", qos=1))
        await admin.expect(mqtt.encode_suback(V311, 1, b"\1"))
        await assert_refused(one.port, other)
        await admin.send(PING)
        await admin.expect(PONG)
        admin.cut()
        device = await Client.open(one.port, connect("press", **ADMIN), publish("secret", b"4711"))
        await device.expect(CONNACK, ack(Packet.PUBACK))
        await assert_refused(one.port, other)
        admin = await Client.open(one.port, connect("panel", clean=False, **ADMIN))
        await admin.expect(CONNACK_PRESENT, publish("secret", b"4711", 1, 1, retain=True))


@pytest.mark.parametrize(("first", "other"), [(ADMIN, BOB), ({}, BOB), (ADMIN, {})])
async def test_whose_session_it_is_outlives_a_kill(
    first: dict[str, Any], other: dict[str, Any], tmp_path: Path
) -> None:
    async with gateway(tmp_path, users=USERS) as one:
        client = await Client.open(one.port, connect("panel", clean=False, **first))
        await client.expect(CONNACK)
        await client.send(publish("a", b"1", 2, 7))
        await client.expect(ack(PUBREC, 7))
        await one.kill_and_restart()
        await assert_refused(one.port, other)
        client = await Client.open(one.port, connect("panel", clean=False, **first))
        await client.expect(CONNACK_PRESENT)
        await client.send(publish("a", b"1", 2, 7, dup=True), ack(PUBREL, 7))
        await client.expect(ack(PUBREC, 7), ack(PUBCOMP, 7))
        assert await one.bodies() == [b"1"]


async def test_subscriptions_that_a_kill_ended_keep_their_client_id_for_their_user(tmp_path: Path) -> None:
    async with gateway(tmp_path, users=USERS) as one:
        client = await Client.open(one.port, connect("panel", clean=False, **ADMIN))
        await client.expect(CONNACK)
        await client.send(subscribe(1, "a"))
        await client.expect(mqtt.encode_suback(V311, 1, b"\0"))
        await one.emit([])
        await one.kill_and_restart()
        await assert_refused(one.port, BOB)


async def test_a_client_id_is_free_once_its_session_is_over(tmp_path: Path) -> None:
    async with gateway(tmp_path, users=USERS) as one:
        admin = await Client.open(one.port, connect("panel", **ADMIN))
        await admin.expect(CONNACK)
        await admin.send(subscribe(1, "secret"))
        await admin.expect(mqtt.encode_suback(V311, 1, b"\0"))
        await admin.send(b"\xe0\0")
        await admin.rest()
        bob = await Client.open(one.port, connect("panel", clean=False, **BOB))
        await bob.expect(CONNACK)
        await bob.send(subscribe(1, "b"))
        await bob.expect(mqtt.encode_suback(V311, 1, b"\0"))
        await bob.send(publish("secret", b"4711", 1, 1), publish("b", b"for bob", 1, 2))
        await bob.expect(ack(Packet.PUBACK, 1), ack(Packet.PUBACK, 2), publish("b", b"for bob", 0))


async def test_a_device_that_gets_a_user_name_goes_on_where_it_was_as_an_anonymous_one(
    tmp_path: Path,
) -> None:
    async with gateway(tmp_path) as one:
        client = await Client.open(one.port, connect("panel", clean=False))
        await client.expect(CONNACK)
        await client.send(publish("a", b"1", 2, 7))
        await client.expect(ack(PUBREC, 7))
        one.settings |= {"anonymous": False, "users": USERS}
        await one.kill_and_restart()
        client = await Client.open(one.port, connect("panel", clean=False, **ADMIN))
        await client.expect(CONNACK_PRESENT)
        await client.send(publish("a", b"1", 2, 7, dup=True))
        await client.expect(ack(PUBREC, 7))
        assert await one.bodies() == [b"1"]
