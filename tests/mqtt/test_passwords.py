"""Whoever tries passwords holds nobody up but those of the same address, and those not for long."""

import asyncio
from pathlib import Path

from drivers.mqtt import User
from drivers.mqtt.passwords import hashed
from tests.mqtt.rig import CONNACK, WITHIN_S, Client, connect, gateway

USERS = {"press": User(password=hashed("secret"))}
WRONG, UNAVAILABLE = b"\x20\x02\0\4", b"\x20\x02\0\3"


def login(password: str) -> bytes:
    return connect("press", user="press", password=password)


async def test_wrong_passwords_of_one_address_lock_nobody_out(tmp_path: Path) -> None:
    """200 of them take longer than a client has from its connection to CONNACK."""
    async with gateway(tmp_path, anonymous=False, users=USERS, connect_timeout=3) as one:
        liars = [await Client.open(one.port, login(f"wrong {number}")) for number in range(200)]
        elsewhere = await Client.open(one.port, login("secret"), address="127.0.0.2")
        await elsewhere.expect(CONNACK)
        answers = {await liar.rest() for liar in liars}
        assert answers == {WRONG, UNAVAILABLE}


async def test_a_device_at_the_address_of_one_that_tries_passwords_gets_in(tmp_path: Path) -> None:
    """At most it is told to come again, at once."""
    async with gateway(tmp_path, anonymous=False, users=USERS, connect_timeout=3) as one:
        for number in range(200):
            await Client.open(one.port, login(f"wrong {number}"))
        async with asyncio.timeout(WITHIN_S):
            while True:
                device = await Client.open(one.port, login("secret"))
                answer = await device.packet()
                if answer == CONNACK:
                    break
                assert answer == UNAVAILABLE


async def test_devices_that_come_at_once_from_one_address_all_get_in(tmp_path: Path) -> None:
    users = {f"d{number}": User(password=hashed("secret")) for number in range(10)}
    async with gateway(tmp_path, anonymous=False, users=users) as one:
        clients = [await Client.open(one.port, connect(name, user=name, password="secret")) for name in users]
        for client in clients:
            await client.expect(CONNACK)
