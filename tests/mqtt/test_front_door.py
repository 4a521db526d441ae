"""What a device sees on its socket, and what is on the disk when it sees it."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import drivers.mqtt
from drivers.mqtt import User
from drivers.mqtt import protocol as mqtt
from drivers.mqtt.passwords import hashed
from drivers.mqtt.protocol import V5, V311, Packet, Property, Reason
from gateway.errors import QueueFull
from gateway.record import Record
from gateway.testing.emit import FakeEmit
from tests.mqtt.rig import CONNACK, CONNACK_PRESENT, Client, ack, connect, front_door, gateway, publish

CASES = sorted(path for path in (Path(drivers.mqtt.__file__).parent / "cases").iterdir())
PUBACK, PUBREC, PUBREL, PUBCOMP = Packet.PUBACK, Packet.PUBREC, Packet.PUBREL, Packet.PUBCOMP


@pytest.mark.parametrize("pieces", [1, 7, 10_000])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_case(case: Path, pieces: int, tmp_path: Path) -> None:
    """CONNECT and everything after it in one segment, or cut anywhere."""
    wire = b"".join(bytes.fromhex(line) for line in (case / "wire.hex").read_text().split())
    answers = sorted((case / "answers.hex").read_text().split())
    expected = [json.loads(line) for line in (case / "expected.jsonl").read_text().splitlines()]
    async with gateway(tmp_path) as one:
        client = await Client.open(one.port)
        if pieces == 1:
            await client.send(wire)
        else:
            size = len(wire) // pieces + 1
            for start in range(0, len(wire), size):
                await client.send(wire[start : start + size])
        found = [(await client.packet()).hex() for _ in answers]
        assert sorted(found) == answers
        bodies = [body.decode() for body in await one.stored(len(expected))]
        assert bodies == [record["body"] for record in expected]
        headers = await one.headers()
        for record, header in zip(expected, headers, strict=True):
            assert header["tg.channel"].decode() == record["channel"]
            assert header["tg.device"].decode() == record["device"]
            own = {
                name: value.decode() for name, value in header.items() if name in ("tg.dup", "tg.retained")
            }
            assert own == record["headers"]


async def test_a_packet_id_released_and_used_again_in_one_segment_is_a_new_message(tmp_path: Path) -> None:
    async with gateway(tmp_path) as one:
        client = await Client.open(one.port, connect("press", clean=False))
        await client.expect(CONNACK)
        steps = [publish("a", b"1", 2, 7), ack(PUBREL, 7), publish("a", b"2", 2, 7)]
        await client.send(*steps)
        await client.expect(ack(PUBREC, 7), ack(PUBCOMP, 7), ack(PUBREC, 7))
        await one.kill_and_restart()
        client = await Client.open(one.port, connect("press", clean=False))
        await client.expect(CONNACK_PRESENT)
        await client.send(publish("a", b"2", 2, 7, dup=True))
        await client.expect(ack(PUBREC, 7))
        assert await one.bodies() == [b"1", b"2"]


async def test_a_clean_session_forgets_packet_ids_before_connack(tmp_path: Path) -> None:
    async with gateway(tmp_path) as one:
        client = await Client.open(one.port, connect("press", clean=False), publish("a", b"old", 2, 7))
        await client.expect(CONNACK, ack(PUBREC, 7))
        client.cut()
        client = await Client.open(one.port, connect("press", clean=True))
        await client.expect(CONNACK)
        await one.kill_and_restart()
        client = await Client.open(one.port, connect("press", clean=False), publish("a", b"new", 2, 7))
        await client.expect(CONNACK, ack(PUBREC, 7))
        assert await one.bodies() == [b"old", b"new"]


@pytest.mark.slow
async def test_a_session_that_ended_while_its_client_was_away_is_forgotten(tmp_path: Path) -> None:
    """Its packet ids mean new messages: the client has forgotten them too."""
    expiry = {Property.SESSION_EXPIRY: 1}
    async with gateway(tmp_path) as one:
        client = await Client.open(one.port, connect("press", version=V5, properties=expiry))
        await client.packet()
        await client.send(publish("a", b"old", 2, 7, v5=True))
        await client.expect(ack(PUBREC, 7))
        client.cut()
        present = b"\1"
        async with asyncio.timeout(10):
            while present == b"\1":  # back too early, and gone again
                await asyncio.sleep(1.1)
                client = await Client.open(
                    one.port, connect("press", version=V5, clean=False, properties=expiry)
                )
                present = (await client.packet())[2:3]
                if present == b"\1":
                    client.cut()
        await client.send(publish("a", b"new", 2, 7, v5=True))
        await client.expect(ack(PUBREC, 7))
        assert await one.bodies() == [b"old", b"new"]


async def test_take_over_closes_the_older_connection(tmp_path: Path) -> None:
    async with gateway(tmp_path) as one:
        old = await Client.open(one.port, connect("press"))
        await old.expect(CONNACK)
        new = await Client.open(one.port, connect("press"))
        await new.expect(CONNACK)
        assert await old.rest() == b""
        await new.send(publish("a", b"1"))
        await new.expect(ack(PUBACK))


async def test_the_will_of_a_client_that_vanishes_and_only_of_such_a_one(tmp_path: Path) -> None:
    async with gateway(tmp_path, silence_max=1) as one:
        await one.stop()
        await one.start(unacked_interval=0.05)
        for name, leave in (("polite", True), ("rude", False)):
            client = await Client.open(one.port, connect(name, will=("state/" + name, "gone", True)))
            await client.expect(CONNACK)
            if leave:
                await client.send(b"\xe0\0")
                await client.rest()
            client.cut()
        await one.emit([])
        assert await one.stored(1) == [b"gone"]
        [header] = await one.headers()
        assert (header["tg.channel"], header["tg.will"], header["tg.retained"]) == (b"state/rude", b"1", b"1")


async def test_a_full_queue_gets_silence_or_0x97_and_never_an_acknowledgement(tmp_path: Path) -> None:
    async with gateway(tmp_path) as one:
        await one.stop()
        await one.start(max_bytes=4 << 20, min_free_bytes=1 << 60)
        old = await Client.open(one.port, connect("old"), publish("a", b"1"))
        await old.expect(CONNACK)
        assert await old.rest() == b""
        new = await Client.open(one.port, connect("new", version=V5))
        await new.packet()
        await new.send(publish("a", b"1", 1, 5, v5=True), publish("a", b"1", 2, 6, v5=True))
        await new.expect(b"\x40\x03\0\x05\x97", b"\x50\x03\0\x06\x97")
        await new.send(b"\xc0\0")
        await new.expect(b"\xd0\0")
        assert await one.bodies() == []


async def test_a_qos2_message_whose_commit_failed_is_stored_when_it_comes_again() -> None:
    """The disk is full at the commit, not before: its packet id must not pass for one whose message is stored."""
    emit = FakeEmit()
    async with front_door(emit) as port:
        emit.hold()
        client = await Client.open(port, connect("press", clean=False), publish("a", b"1", 2, 7))
        await emit.until(lambda: len(emit.held) == 1)
        emit.fail(QueueFull("the disk is full"))
        await client.rest()
        emit.release()
        client = await Client.open(port, connect("press", clean=False))
        await client.expect(CONNACK)
        await client.send(publish("a", b"1", 2, 7, dup=True))
        await client.expect(ack(PUBREC, 7))
        assert [record.body for record in emit.records] == [b"1"]


async def test_a_packet_id_whose_release_failed_is_released_when_it_comes_again() -> None:
    emit = FakeEmit()
    async with front_door(emit) as port:
        client = await Client.open(port, connect("press", clean=False), publish("a", b"1", 2, 7))
        await client.expect(CONNACK, ack(PUBREC, 7))
        emit.hold()
        await client.send(ack(PUBREL, 7))
        await emit.until(lambda: len(emit.held) == 1)
        emit.fail(QueueFull("the disk is full"))
        await client.rest()
        emit.release()
        client = await Client.open(port, connect("press", clean=False))
        await client.expect(CONNACK_PRESENT)
        await client.send(ack(PUBREL, 7))
        await client.expect(ack(PUBCOMP, 7))
        assert not emit.marks


class Cramped(FakeEmit):
    """A queue so full that only small records fit."""

    def __call__(self, records: Sequence[Record], **more: Any) -> "asyncio.Future[None]":
        self.refuse = QueueFull("full") if any(len(record.body) > 100 for record in records) else None
        return super().__call__(records, **more)


@pytest.mark.parametrize("version", [V311, V5])
async def test_nothing_is_stored_after_a_refusal_in_the_same_read(version: int) -> None:
    """What comes after a refused release is another message with the same packet id."""
    emit = Cramped()
    v5 = version == V5
    lasting: dict[str, Any] = {
        "clean": False,
        "version": version,
        "properties": {Property.SESSION_EXPIRY: 600},
    }
    async with front_door(emit) as port:
        client = await Client.open(port, connect("press", **lasting))
        await client.packet()
        await client.send(publish("a", b"1", 2, 7, v5=v5))
        await client.expect(ack(PUBREC, 7))
        large = publish("a", bytes(200), 1, 8, v5=v5)
        await client.send(large, ack(PUBREL, 7), publish("a", b"2", 2, 7, v5=v5))
        assert await client.rest() == (mqtt.encode_disconnect(Reason.QUOTA_EXCEEDED) if v5 else b"")
        assert [record.body for record in emit.records] == [b"1"]
        client = await Client.open(port, connect("press", **lasting))
        assert (await client.packet())[2] == 1
        await client.send(ack(PUBREL, 7), publish("a", b"2", 2, 7, v5=v5))
        await client.expect(ack(PUBCOMP, 7), ack(PUBREC, 7))
        assert [record.body for record in emit.records] == [b"1", b"2"]


async def test_mqtt5_goes_on_after_a_refusal_and_says_so_for_each_message() -> None:
    emit = Cramped()
    async with front_door(emit) as port:
        client = await Client.open(port, connect("press", version=V5))
        await client.packet()
        await client.send(publish("a", bytes(200), 1, 1, v5=True))
        await client.expect(b"\x40\x03\0\1\x97")
        await client.send(publish("a", b"2", 1, 2, v5=True))
        await client.expect(ack(PUBACK, 2))


@pytest.mark.parametrize("old_is_lost", [False, True], ids=["taken over", "lost"])
async def test_the_next_connection_waits_for_what_the_older_one_has_under_way(old_is_lost: bool) -> None:
    """Else it hears PUBREC for a message whose commit then fails."""
    emit = FakeEmit()
    async with front_door(emit) as port:
        emit.hold()
        old = await Client.open(port, connect("press", clean=False), publish("a", b"1", 2, 7))
        await emit.until(lambda: len(emit.held) == 1)
        if old_is_lost:
            old.cut()
        again = publish("a", b"1", 2, 7, dup=True)
        new = await Client.open(port, connect("press", clean=False), again)
        if not old_is_lost:
            assert await old.rest() == CONNACK
        other = await Client.open(port, connect("other"))
        await other.expect(CONNACK)  # by now the new one's bytes were read, too
        emit.fail(QueueFull("the disk is full"), calls=1)
        emit.release()
        await new.expect(CONNACK, ack(PUBREC, 7))
        assert [record.body for record in emit.records] == [b"1"]


async def test_a_release_under_way_is_settled_before_the_next_connection_begins() -> None:
    """Else PUBCOMP is told, the mark stays, and the next message with this packet id passes for a stored one."""
    emit = FakeEmit()
    async with front_door(emit) as port:
        old = await Client.open(port, connect("press", clean=False), publish("a", b"1", 2, 7))
        await old.expect(CONNACK, ack(PUBREC, 7))
        emit.hold()
        await old.send(ack(PUBREL, 7))
        await emit.until(lambda: len(emit.held) == 1)
        new = await Client.open(port, connect("press", clean=False), ack(PUBREL, 7))
        await old.rest()
        emit.fail(QueueFull("the disk is full"), calls=1)
        emit.release()
        await new.expect(CONNACK_PRESENT, ack(PUBCOMP, 7))
        assert not emit.marks


async def test_a_clean_session_that_can_not_forget_is_not_let_in() -> None:
    """Its packet ids are still on the disk, and would be known again after a restart."""
    emit = FakeEmit()
    async with front_door(emit) as port:
        client = await Client.open(port, connect("press", clean=False), publish("a", b"1", 2, 7))
        await client.expect(CONNACK, ack(PUBREC, 7))
        client.cut()
        emit.hold()
        client = await Client.open(port, connect("press"))
        await emit.until(lambda: len(emit.held) == 1)
        emit.fail(QueueFull("the disk is full"))
        assert await client.rest() == b"\x20\x02\0\3"
        emit.release()
        client = await Client.open(port, connect("press"))
        await client.expect(CONNACK)
        assert not emit.marks


async def test_a_full_queue_refuses_no_message_that_is_stored_already() -> None:
    """0x97 would free the packet id at the client, and the next message with it would pass for the old one."""
    emit = FakeEmit()
    lasting = {Property.SESSION_EXPIRY: 600}
    async with front_door(emit) as port:
        client = await Client.open(port, connect("press", version=V5, properties=lasting))
        await client.packet()
        await client.send(publish("a", b"1", 2, 1, v5=True))
        await client.expect(ack(PUBREC, 1))
        client.cut()
        emit.refuse = QueueFull("full")
        client = await Client.open(port, connect("press", clean=False, version=V5, properties=lasting))
        await client.packet()
        both = publish("a", b"1", 2, 1, dup=True, v5=True), publish("a", b"2", 2, 2, v5=True)
        await client.send(*both)
        assert b"\x50\x03\0\x01\x97" not in await client.rest()
        emit.refuse = None
        client = await Client.open(port, connect("press", clean=False, version=V5, properties=lasting))
        await client.packet()
        await client.send(*both)
        await client.expect(ack(PUBREC, 1), ack(PUBREC, 2))
        assert [record.body for record in emit.records] == [b"1", b"2"]


async def test_who_is_let_in_and_where_they_may_publish(tmp_path: Path) -> None:
    users = {"press": User(password=hashed("secret"), publish=["site/{user}/#", "by/{client}"])}
    async with gateway(tmp_path, anonymous=False, users=users) as one:
        for attempt in (
            connect("a"),
            connect("a", user="press", password="wrong"),
            connect("a", user="nobody", password="secret"),
        ):
            client = await Client.open(one.port, attempt, publish("a", b"1"))
            assert (await client.rest())[:4] in (b"\x20\x02\0\x05", b"\x20\x02\0\x04")
        client = await Client.open(one.port, connect("m7", user="press", password="secret"))
        await client.expect(CONNACK)
        await client.send(publish("site/press/t", b"1", 1, 1), publish("by/m7", b"2", 1, 2))
        await client.expect(ack(PUBACK, 1), ack(PUBACK, 2))
        await client.send(publish("by/m8", b"3", 1, 3))
        assert await client.rest() == b""
        client = await Client.open(one.port, connect("m7", version=V5, user="press", password="secret"))
        await client.packet()
        await client.send(publish("by/m8", b"3", 1, 3, v5=True), publish("by/m7", b"4", 1, 4, v5=True))
        await client.expect(b"\x40\x03\0\x03\x87", ack(PUBACK, 4))
        assert await one.bodies() == [b"1", b"2", b"4"]


@pytest.mark.parametrize(("version", "answer"), [(V311, b""), (V5, b"\x20\x03\0\x90\0")])
async def test_a_will_that_can_not_be_published_is_refused_at_once(version: int, answer: bytes) -> None:
    """3.1.1 has no code for it."""
    async with front_door(FakeEmit(), connect_timeout=60) as port:
        client = await Client.open(port, connect("press", version=version, will=("state/+", "gone", False)))
        assert await client.rest() == answer


async def test_who_is_not_let_in_shows_at_its_address_and_not_at_the_device_it_claims_to_be() -> None:
    emit = FakeEmit()
    async with front_door(emit) as port:
        for number in range(10):
            stranger = connect(f"press {number}", user="nobody", password="guess")
            await (await Client.open(port, stranger)).rest()
        assert {device for device, _ in emit.failures} == {"127.0.0.1"}
        assert "'press 9' not let in: wrong user name or password" in emit.failures[-1]


async def test_mqtt5_says_what_it_offers_and_takes_content_types(tmp_path: Path) -> None:
    async with gateway(tmp_path, qos2_in_flight_max=5) as one:
        client = await Client.open(one.port, connect("", version=V5))
        connack = await client.packet()
        assert connack[2:4] == b"\0\0"
        assert bytes((Property.RECEIVE_MAXIMUM, 0, 5)) in connack
        assert bytes((Property.ASSIGNED_CLIENT_ID,)) in connack
        properties = mqtt.encode_properties({Property.CONTENT_TYPE: "text/csv"})
        properties = (
            bytes((properties[0] + 13,)) + properties[1:] + b"\x26" + mqtt.text("unit") + mqtt.text("mbar")
        )
        await client.send(mqtt.packet(0x32, mqtt.text("a") + b"\0\1" + properties + b"1,2"))
        await client.expect(ack(PUBACK))
        [header] = await one.headers()
        assert (header["content-type"], header["unit"]) == (b"text/csv", b"mbar")
        for number in range(1, 7):
            await client.send(publish("a", b"x", 2, number, v5=True))
        await client.expect(*(ack(PUBREC, number) for number in range(1, 6)))
        await client.expect(mqtt.encode_disconnect(Reason.RECEIVE_MAXIMUM_EXCEEDED))


@pytest.mark.fault("input", "what is no MQTT")
@pytest.mark.parametrize(
    "wire",
    [
        publish("a", b"1"),
        b"GET / HTTP/1.1\r\n\r\n",
        connect("a") + connect("a"),
        connect("a") + b"\x00\x00",
        connect("a") + publish("a/+", b"1"),
        connect("a") + publish("", b"1"),
        connect("a") + publish("$SYS/x", b"1"),
        connect("a") + b"\x32\xff\xff\xff\x7f",
        connect("", clean=False),
    ],
    ids=[
        "no CONNECT",
        "HTTP",
        "two CONNECTs",
        "type 0",
        "wildcard",
        "no topic",
        "$SYS",
        "huge",
        "no client id",
    ],
)
async def test_what_is_not_mqtt_closes_the_connection_and_stores_nothing(wire: bytes, tmp_path: Path) -> None:
    async with gateway(tmp_path) as one:
        client = await Client.open(one.port, wire)
        assert (await client.rest()).replace(CONNACK, b"")[:2] in (b"", b"\x20\x02")
        assert await one.bodies() == []


async def test_the_slow_and_the_silent_are_closed(tmp_path: Path) -> None:
    async with gateway(tmp_path, connect_timeout=0.3, silence_max=1) as one:
        slow = await Client.open(one.port, connect("slow")[:5])
        silent = await Client.open(one.port, connect("silent", keep_alive=0))
        await silent.expect(CONNACK)
        assert await slow.rest() == b""
        assert await silent.rest() == b""


async def test_connections_beyond_the_limit_are_closed_and_the_others_served(tmp_path: Path) -> None:
    async with gateway(tmp_path, connections_max=2) as one:
        clients = [await Client.open(one.port, connect(f"c{number}")) for number in range(2)]
        for client in clients:
            await client.expect(CONNACK)
        assert await (await Client.open(one.port, connect("c3"))).rest() == b""
        await clients[0].send(publish("a", b"1"))
        await clients[0].expect(ack(PUBACK))


async def test_a_client_that_sends_faster_than_the_disk_is_not_read(tmp_path: Path) -> None:
    async with gateway(tmp_path, in_flight_bytes_max=4096) as one:
        client = await Client.open(one.port, connect("fast"))
        await client.expect(CONNACK)
        sent = [publish("a", b"%03d" % number + b"x" * 1000, 1, number) for number in range(1, 301)]
        sending = asyncio.ensure_future(client.send(*sent))
        await client.expect(*(ack(PUBACK, number) for number in range(1, 301)))
        await sending
        assert [body[:3] for body in await one.bodies()] == [b"%03d" % number for number in range(1, 301)]


async def test_a_client_that_waits_for_nothing_does_not_wait_for_the_interval_either(tmp_path: Path) -> None:
    async with gateway(tmp_path, in_flight_bytes_max=4096) as one:
        client = await Client.open(one.port, connect("fast"))
        await client.expect(CONNACK)
        await client.send(*(publish("a", b"%04d" % number + bytes(1000), 0) for number in range(2000)))
        assert [int(body[:4]) for body in await one.stored(2000)] == list(range(2000))
