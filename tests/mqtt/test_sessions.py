"""When a client's packet ids are remembered, and when they mean new messages."""

import asyncio
from pathlib import Path

import pytest

from drivers.mqtt import protocol as mqtt
from drivers.mqtt.protocol import V5, V311, Packet, Property, Reason
from gateway.errors import QueueFull
from gateway.testing.emit import FakeEmit
from tests.mqtt.rig import CONNACK, WITHIN_S, Client, ack, connect, front_door, gateway, publish

ENDED = b"\0"
LASTING = {Property.SESSION_EXPIRY: 600}


def returns(version: int) -> bytes:
    """The CONNECT of a client whose session lasts."""
    return connect("press", version=version, clean=False, properties=LASTING)


def subscription(version: int) -> bytes:
    return mqtt.packet(0x82, b"\0\1" + b"\0" * (version == V5) + mqtt.text("x") + b"\0")


def disconnect(expiry_s: int) -> bytes:
    return mqtt.packet(0xE0, b"\0" + mqtt.encode_properties({Property.SESSION_EXPIRY: expiry_s}))


async def test_a_disconnect_may_end_a_session_that_was_to_last(tmp_path: Path) -> None:
    async with gateway(tmp_path) as one:
        client = await Client.open(one.port, connect("press", version=V5, properties=LASTING))
        await client.packet()
        await client.send(publish("a", b"old", 2, 7, v5=True))
        await client.expect(ack(Packet.PUBREC, 7))
        await client.send(disconnect(0))
        await client.rest()
        client = await Client.open(one.port, connect("press", version=V5, clean=False, properties=LASTING))
        assert (await client.packet())[2:3] == ENDED
        await client.send(publish("a", b"new", 2, 7, v5=True))
        await client.expect(ack(Packet.PUBREC, 7))
        assert await one.bodies() == [b"old", b"new"]


async def test_a_disconnect_may_not_prolong_a_session_that_ends_with_it(tmp_path: Path) -> None:
    async with gateway(tmp_path) as one:
        client = await Client.open(one.port, connect("press", version=V5))
        await client.packet()
        await client.send(disconnect(60))
        assert await client.rest() == mqtt.encode_disconnect(Reason.PROTOCOL_ERROR)


async def test_a_session_that_was_to_end_with_its_connection_does_not_outlive_a_kill(tmp_path: Path) -> None:
    async with gateway(tmp_path) as one:
        client = await Client.open(one.port, connect("press", version=V5))
        await client.packet()
        await client.send(publish("a", b"old", 2, 7, v5=True))
        await client.expect(ack(Packet.PUBREC, 7))
        await one.kill_and_restart()
        client = await Client.open(one.port, connect("press", version=V5, clean=False, properties=LASTING))
        assert (await client.packet())[2:3] == ENDED
        await client.send(publish("a", b"new", 2, 7, v5=True))
        await client.expect(ack(Packet.PUBREC, 7))
        assert await one.bodies() == [b"old", b"new"]


async def subscribe(client: Client, topic: str) -> None:
    await client.send(mqtt.packet(0x82, b"\0\1\0" + mqtt.text(topic) + b"\0"))
    await client.expect(b"\x90\x04\0\1\0\0")


async def published(port: int, topic: str) -> None:
    device = await Client.open(port, connect("press"), publish(topic, b"1"))
    await device.expect(CONNACK, ack(Packet.PUBACK))


@pytest.mark.parametrize("how", ["clean start", "ended by its DISCONNECT", "expired", "taken over"])
async def test_subscriptions_end_with_their_session(how: str) -> None:
    """Though the next one of the same client lasts too."""
    asked = {Property.SESSION_EXPIRY: 1 if how == "expired" else 600}
    async with front_door(FakeEmit()) as port:
        client = await Client.open(port, connect("dashboard", version=V5, properties=asked))
        await client.packet()
        await subscribe(client, "old")
        if how != "taken over":
            await client.send(disconnect(0) if how.startswith("ended") else b"\xe0\0")
            await client.rest()
        if how == "expired":
            await asyncio.sleep(asked[Property.SESSION_EXPIRY])
        clean = how in ("clean start", "taken over")
        again = await Client.open(port, connect("dashboard", version=V5, clean=clean, properties=LASTING))
        assert (await again.packet())[2:3] == ENDED
        await published(port, "old")
        await subscribe(again, "new")
        await published(port, "new")
        await again.expect(publish("new", b"1", 0, v5=True))


async def test_a_lasting_session_does_not_subscribe_while_the_disk_fails() -> None:
    """The next process could not tell that the subscriptions are lost."""
    emit = FakeEmit()
    async with front_door(emit) as port:
        client = await Client.open(port, connect("dashboard", version=V5, properties=LASTING))
        await client.packet()
        emit.refuse = QueueFull("full")
        await client.send(mqtt.packet(0x82, b"\0\1\0" + mqtt.text("a") + b"\0"))
        assert await client.rest() == mqtt.encode_disconnect(Reason.SERVER_UNAVAILABLE)
        emit.refuse = None
        again = await Client.open(port, connect("dashboard", version=V5, properties=LASTING))
        await again.packet()
        await subscribe(again, "a")


@pytest.mark.parametrize("version", [V311, V5])
async def test_after_a_restart_took_the_subscriptions_a_packet_id_may_mean_a_new_message(
    version: int, tmp_path: Path
) -> None:
    """Session Present is 0: one client sends again what it had begun, and says DUP; another has forgotten it."""
    v5 = version == V5
    async with gateway(tmp_path, qos2_in_flight_max=3) as one:
        client = await Client.open(one.port, returns(version))
        await client.packet()
        await client.send(subscription(version))
        await client.packet()
        await client.send(publish("a", b"1", 2, 7, v5=v5), publish("a", b"2", 2, 8, v5=v5))
        await client.expect(ack(Packet.PUBREC, 7), ack(Packet.PUBREC, 8))
        await one.kill_and_restart()
        client = await Client.open(one.port, returns(version))
        assert (await client.packet())[2:3] == ENDED
        await client.send(publish("a", b"1", 2, 7, dup=True, v5=v5), publish("a", b"new", 2, 8, v5=v5))
        await client.send(publish("a", b"new", 2, 8, dup=True, v5=v5), publish("a", b"newer", 2, 9, v5=v5))
        await client.expect(*(ack(Packet.PUBREC, number) for number in (7, 8, 8, 9)))
        assert await one.bodies() == [b"1", b"2", b"new", b"newer"]


@pytest.mark.parametrize("version", [V311, V5])
async def test_a_packet_id_that_a_client_forgot_means_a_new_message_on_a_later_connection_too(
    version: int, tmp_path: Path
) -> None:
    """It subscribed anew before its link broke: Session Present is 1 then, and says nothing of the time before."""
    v5 = version == V5
    async with gateway(tmp_path) as one:
        client = await Client.open(one.port, returns(version))
        await client.packet()
        await client.send(subscription(version))
        await client.packet()
        await client.send(publish("a", b"old", 2, 7, v5=v5))
        await client.expect(ack(Packet.PUBREC, 7))
        await one.kill_and_restart()
        for present in (ENDED, b"\1"):
            client = await Client.open(one.port, returns(version))
            assert (await client.packet())[2:3] == present
            await client.send(subscription(version))
            await client.packet()
            client.cut()
        client = await Client.open(one.port, returns(version))
        await client.packet()
        await client.send(publish("a", b"new", 2, 7, v5=v5), publish("a", b"new", 2, 7, dup=True, v5=v5))
        await client.expect(ack(Packet.PUBREC, 7), ack(Packet.PUBREC, 7))
        assert await one.bodies() == [b"old", b"new"]


async def test_a_session_that_goes_on_has_its_subscriptions(tmp_path: Path) -> None:
    async with gateway(tmp_path) as one:
        client = await Client.open(one.port, connect("dashboard", version=V5, properties=LASTING))
        await client.packet()
        await subscribe(client, "old")
        await client.send(b"\xe0\0")
        await client.rest()
        again = await Client.open(one.port, connect("dashboard", version=V5, clean=False, properties=LASTING))
        assert (await again.packet())[2:3] == b"\1"
        await published(one.port, "old")
        await again.expect(publish("old", b"1", 0, v5=True))


async def test_a_subscriber_that_takes_its_own_older_connection_over_goes_on_getting_messages() -> None:
    """A client that lost its network comes back before the gateway has noticed."""
    async with front_door(FakeEmit()) as port:
        old = await Client.open(port, connect("dashboard", version=V5, properties=LASTING))
        await old.packet()
        await subscribe(old, "a")
        for _ in range(3):
            new = await Client.open(port, connect("dashboard", version=V5, clean=False, properties=LASTING))
            assert (await new.packet())[2:3] == b"\1"
            await new.send(b"\xc0\0")
            await new.expect(b"\xd0\0")
            await published(port, "a")
            await new.expect(publish("a", b"1", 0, v5=True))


async def let_in(port: int, client_id: str) -> Client:
    """As soon as there is a place among the connections."""
    async with asyncio.timeout(WITHIN_S):
        while True:
            client = await Client.open(port, connect(client_id))
            try:
                await client.expect(CONNACK)
            except (asyncio.IncompleteReadError, ConnectionError):
                await asyncio.sleep(0.01)
            else:
                return client


async def test_a_client_that_is_lost_while_the_queue_refuses_leaves_its_place_and_its_session() -> None:
    emit = FakeEmit()
    async with front_door(emit, connections_max=1) as port:
        client = await let_in(port, "press")
        await client.send(publish("a", b"1", 2, 7))
        await client.expect(ack(Packet.PUBREC, 7))
        emit.refuse = QueueFull("full")
        client.cut()
        (await let_in(port, "other")).cut()
        emit.refuse = None
        await let_in(port, "press")
        assert not emit.marks


async def test_what_an_older_connection_sent_and_nobody_read_is_discarded() -> None:
    """The client sends it again where it was not acknowledged; stored now it would come after what is newer."""
    emit = FakeEmit()
    async with front_door(emit, in_flight_bytes_max=4096) as port:
        emit.hold()
        old = await Client.open(port, connect("press", clean=False))
        await old.expect(CONNACK)
        count = 4000
        sent = [publish("a", b"%04d" % number + bytes(2000), 1, number) for number in range(1, count)]
        sending = asyncio.create_task(old.send(*sent))
        await emit.until(lambda: bool(emit.held))
        new = await Client.open(port, connect("press", clean=False), publish("a", b"newer"))
        await old.rest()
        await asyncio.wait([sending])
        assert isinstance(sending.exception(), ConnectionError)
        emit.release()
        await new.expect(CONNACK, ack(Packet.PUBACK))
        numbers = [int(record.body[:4]) for record in emit.records[:-1]]
        assert numbers == list(range(1, len(numbers) + 1))
        assert len(numbers) < count - 1
        assert emit.records[-1].body == b"newer"


async def test_wills_and_retained_messages_are_stored_like_others_and_survive_a_kill(tmp_path: Path) -> None:
    async with gateway(tmp_path) as one:
        await one.stop()
        await one.start(unacked_interval=0.01)
        client = await Client.open(one.port, connect("press", will=("state", "gone", True)))
        await client.expect(CONNACK)
        await client.send(publish("state", b"there", retain=True))
        await client.expect(ack(Packet.PUBACK))
        client.cut()
        await one.stored(2)
        await one.kill_and_restart()
        assert await one.bodies() == [b"there", b"gone"]
        kept, will = await one.headers()
        assert kept["tg.retained"] == b"1"
        assert "tg.will" not in kept
        assert (will["tg.retained"], will["tg.will"]) == (b"1", b"1")
