"""Programs that nobody here wrote, as publishers and as subscribers."""

import asyncio
import os
from asyncio.subprocess import PIPE, Process
from pathlib import Path

import pytest
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

from drivers.mqtt import Tls
from drivers.mqtt.protocol import Packet
from gateway.testing.certificates import Authority
from gateway.testing.emit import FakeEmit
from tests.mqtt.rig import CONNACK, WITHIN_S, Client, ack, connect, front_door, gateway, publish

VERSIONS = ("mqttv311", "mqttv5")


async def start(program: str, port: int, *arguments: object) -> Process:
    address = ("-h", "127.0.0.1", "-p", str(port))
    return await asyncio.create_subprocess_exec(
        program, *address, *map(str, arguments), stdout=PIPE, stderr=PIPE
    )


async def mosquitto_pub(port: int, *arguments: object) -> int:
    process = await start("mosquitto_pub", port, *arguments)
    async with asyncio.timeout(WITHIN_S):
        await process.communicate()
    return process.returncode or 0


async def lines(process: Process, count: int) -> list[str]:
    assert process.stdout is not None
    async with asyncio.timeout(WITHIN_S):
        return [(await process.stdout.readline()).decode().strip() for _ in range(count)]


@pytest.mark.parametrize("version", VERSIONS)
async def test_mosquitto_pub(version: str, tmp_path: Path) -> None:
    large = tmp_path / "large"
    large.write_bytes(os.urandom(200_000))
    async with gateway(tmp_path) as one:
        for qos in (0, 1, 2):
            assert await mosquitto_pub(one.port, "-V", version, "-q", qos, "-t", "a/b", "-m", qos) == 0
        assert await mosquitto_pub(one.port, "-V", version, "-q", 2, "-t", "a/b", "-f", large) == 0
        assert await one.stored(4) == [b"0", b"1", b"2", large.read_bytes()]


@pytest.mark.parametrize("version", [paho.MQTTv311, paho.MQTTv5])
async def test_paho(version: int, tmp_path: Path) -> None:
    async with gateway(tmp_path) as one:
        device = paho.Client(CallbackAPIVersion.VERSION2, "press", protocol=version)  # type: ignore[arg-type]
        device.connect("127.0.0.1", one.port)
        device.loop_start()
        for number in range(100):
            device.publish("a/b", b"%d" % number, qos=number % 2 + 1)
        bodies = await one.stored(100)
        device.disconnect()
        await asyncio.to_thread(device.loop_stop)
        assert sorted(map(int, bodies)) == list(range(100))


@pytest.mark.slow
@pytest.mark.parametrize("version", VERSIONS)
async def test_mosquitto_sub_gets_what_is_published_and_what_was_retained(
    version: str, tmp_path: Path
) -> None:
    async with gateway(tmp_path) as one:
        await mosquitto_pub(one.port, "-q", 1, "-r", "-t", "state/press", "-m", "kept")
        arguments = ("-V", version, "-q", 1, "-v", "-t", "state/+", "-t", "site/#")
        subscriber = await start("mosquitto_sub", one.port, *arguments)
        assert await lines(subscriber, 1) == ["state/press kept"]
        for qos in (0, 1, 2):
            await mosquitto_pub(one.port, "-V", version, "-q", qos, "-t", "site/a/b", "-m", qos)
        await mosquitto_pub(one.port, "-q", 1, "-t", "other", "-m", "not asked for")
        await mosquitto_pub(one.port, "-q", 1, "-t", "site", "-m", "last")
        assert await lines(subscriber, 4) == ["site/a/b 0", "site/a/b 1", "site/a/b 2", "site last"]
        subscriber.terminate()
        await subscriber.communicate()


async def test_a_subscriber_gets_nothing_that_is_not_on_disk() -> None:
    emit = FakeEmit()
    async with front_door(emit) as port:
        subscriber = await Client.open(port, connect("dashboard"))
        await subscriber.expect(CONNACK)
        await subscriber.send(b"\x82\x06\0\1\0\1a\0")
        await subscriber.expect(b"\x90\x03\0\1\0")
        emit.hold()
        device = await Client.open(port, connect("press"), publish("a", b"1"))
        await device.expect(CONNACK)
        await emit.until(lambda: len(emit.held) == 1)
        await subscriber.send(b"\xc0\0")
        await subscriber.expect(b"\xd0\0")
        emit.release()
        await device.expect(ack(Packet.PUBACK))
        await subscriber.expect(publish("a", b"1", 0))


@pytest.mark.parametrize("asked", [0, 1, 2])
@pytest.mark.parametrize("sent", [0, 1, 2])
async def test_a_message_comes_with_the_lower_qos_of_the_two(asked: int, sent: int) -> None:
    async with front_door(FakeEmit()) as port:
        subscriber = await Client.open(port, connect("dashboard"))
        await subscriber.expect(CONNACK)
        await subscriber.send(b"\x82\x06\0\1\0\1a", bytes((asked,)))
        granted = min(asked, 1)
        await subscriber.expect(b"\x90\x03\0\1", bytes((granted,)))
        await Client.open(port, connect("press"), publish("a", b"1", sent))
        await subscriber.expect(publish("a", b"1", min(granted, sent)))


async def test_tls_with_the_device_s_own_certificate(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    server, device = authority.issue("gateway"), authority.issue("press")
    tls = Tls(cert=server.certificate, key=server.key, client_ca=authority.path)
    async with gateway(tmp_path, tls=tls) as one:
        message = ("-q", 1, "-t", "a", "-m", "1", "--cafile", authority.path)
        assert await mosquitto_pub(one.port, *message) != 0
        assert await mosquitto_pub(one.port, *message, "--cert", device.certificate, "--key", device.key) == 0
        assert await one.bodies() == [b"1"]
