"""Cut and kill between any two steps of a delivery. Afterwards the device does what MQTT tells it to, and uses the same
packet id for another message."""

from pathlib import Path

import pytest

from drivers.mqtt.protocol import Packet
from tests.mqtt.rig import CONNACK, Client, Gateway, ack, connect, gateway, publish

PUBACK, PUBREC, PUBREL, PUBCOMP = Packet.PUBACK, Packet.PUBREC, Packet.PUBREL, Packet.PUBCOMP
PING, PONG = b"\xc0\0", b"\xd0\0"
ID = 7


async def interrupt(one: Gateway, client: Client, how: str) -> Client:
    """The next connection of the same device."""
    client.cut()
    if how == "kill":
        await one.kill_and_restart()
    else:
        one.disk_goes_on()
    client = await Client.open(one.port, connect("press", clean=False))
    await client.packet()
    return client


async def read_but_not_stored(one: Gateway, client: Client, packet: bytes) -> None:
    one.disk_stands_still()
    await client.send(packet, PING)
    await client.expect(PONG)


@pytest.mark.fault(
    "repeat", "QoS 1: cut, or the gateway killed, after every step; repeats carry tg.dup", "31"
)
@pytest.mark.parametrize("how", ["cut", "kill"])
@pytest.mark.parametrize("after", ["PUBLISH", "its commit", "PUBACK"])
async def test_qos1(after: str, how: str, tmp_path: Path) -> None:
    async with gateway(tmp_path) as one:
        client = await Client.open(one.port, connect("press", clean=False))
        await client.expect(CONNACK)
        if after == "PUBLISH":
            await read_but_not_stored(one, client, publish("a", b"once", 1, ID))
        else:
            await client.send(publish("a", b"once", 1, ID))
            await one.stored(1)
        if after == "PUBACK":
            await client.expect(ack(PUBACK, ID))
        client = await interrupt(one, client, how)
        if after != "PUBACK":
            await client.send(publish("a", b"once", 1, ID, dup=True))
            await client.expect(ack(PUBACK, ID))
        await client.send(publish("a", b"another", 1, ID))
        await client.expect(ack(PUBACK, ID))
        found = [
            (body, header.get("tg.dup"))
            for body, header in zip(await one.bodies(), await one.headers(), strict=True)
        ]
        first, again = (b"once", None), (b"once", b"1")
        wanted = {"PUBLISH": [again] if how == "kill" else [first, again], "its commit": [first, again]}
        assert found == [*wanted.get(after, [first]), (b"another", None)]


STEPS = ("PUBLISH", "its commit", "PUBREC", "PUBREL", "the release's commit", "PUBCOMP")


@pytest.mark.fault("repeat", "QoS 2: cut, or the gateway killed, after every step", "31")
@pytest.mark.parametrize("how", ["cut", "kill"])
@pytest.mark.parametrize("after", STEPS)
async def test_qos2(after: str, how: str, tmp_path: Path) -> None:
    step = STEPS.index(after)
    async with gateway(tmp_path) as one:
        client = await Client.open(one.port, connect("press", clean=False))
        await client.expect(CONNACK)
        if after == "PUBLISH":
            await read_but_not_stored(one, client, publish("a", b"once", 2, ID))
        else:
            await client.send(publish("a", b"once", 2, ID))
            await one.stored(1)
        if step >= STEPS.index("PUBREC"):
            await client.expect(ack(PUBREC, ID))
        if after == "PUBREL":
            await read_but_not_stored(one, client, ack(PUBREL, ID))
        elif step > STEPS.index("PUBREL"):
            await client.send(ack(PUBREL, ID))
            await client.expect(ack(PUBCOMP, ID))  # only what is on the disk tells the two steps apart
        client = await interrupt(one, client, how)
        if step < STEPS.index("PUBREC"):
            await client.send(publish("a", b"once", 2, ID, dup=True))
            await client.expect(ack(PUBREC, ID))
        if step < STEPS.index("PUBCOMP"):
            await client.send(ack(PUBREL, ID))
            await client.expect(ack(PUBCOMP, ID))
        await client.send(publish("a", b"another", 2, ID))
        await client.expect(ack(PUBREC, ID))
        await client.send(ack(PUBREL, ID))
        await client.expect(ack(PUBCOMP, ID))
        assert await one.bodies() == [b"once", b"another"]
