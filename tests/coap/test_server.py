"""What a device sees that sends to the gateway, and what is on the disk when it sees it."""

import asyncio
import json
import socket
from pathlib import Path
from typing import Any

import pytest

import drivers.coap
from gateway.routing import Router, RouteSettings
from gateway.settings import Address
from gateway.testing.conformance import free_address
from tests.coap.rig import (
    ACK,
    BLOCK1,
    CON,
    CONTENT_FORMAT,
    GET,
    MAX_AGE,
    NO_RESPONSE,
    NON,
    REQUEST_TAG,
    SIZE1,
    URI_PATH,
    URI_QUERY,
    Gateway,
    Message,
    block,
    blocks,
    gateway,
    post,
)

CASES = sorted((Path(drivers.coap.__file__).parent / "cases").iterdir())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_case(case: Path, tmp_path: Path) -> None:
    """Datagrams one after the other, each answered before the next."""
    lines = (case / "wire").read_text().splitlines()
    wire = [bytes.fromhex(line) for line in lines if not line.startswith("#")]
    answers = [json.loads(line) for line in (case / "answers.jsonl").read_text().splitlines()]
    expected = [json.loads(line) for line in (case / "expected.jsonl").read_text().splitlines()]
    async with gateway(tmp_path) as one:
        device = one.device()
        for datagram, wanted in zip(wire, answers, strict=True):
            answer = await device.ask(Message.decode(datagram))
            found = {"code": answer.status, "payload": answer.payload.decode()}
            assert {field: found[field] for field in wanted} == wanted
        assert [body.decode() for body in await one.bodies()] == [record["body"] for record in expected]
        for record, header in zip(expected, await one.headers(), strict=True):
            assert header["tg.channel"] == record["channel"]
            assert header["tg.device"] == record["device"]
            assert header.get("content-type", "") == record["content_type"]
            assert json.loads(header.get("units", "{}")) == record.get("units", {})


@pytest.mark.fault("repeat", "a confirmable message again, also after a restart", "34")
async def test_a_message_sent_again_is_stored_once_also_over_a_restart(tmp_path: Path) -> None:
    message = post(0x1234, b"21.5")
    async with gateway(tmp_path) as one:
        device = one.device()
        first = await device.ask(message)
        again = await device.ask(message)
        assert (first.kind, first.status, first.mid) == (ACK, "2.04", 0x1234)
        assert again == first
        await one.kill_and_restart()
        assert await device.ask(message) == first
        assert await one.bodies() == [b"21.5"]
        assert one.events() == {"messages that came again": 1}


@pytest.mark.fault("repeat", "the gateway dies between the commit and the answer", "34")
async def test_an_answer_lost_with_the_gateway_is_given_after_the_restart(tmp_path: Path) -> None:
    """The commit came, the acknowledgement never."""
    *before, last = blocks(b"x" * 40, 1, 0)
    async with gateway(tmp_path) as one:
        device = one.device()
        for message in before:
            assert (await device.ask(message)).status == "2.31"
        await device.send(last)
        await one.stored(1)
        await one.kill_and_restart()
        answers = [await device.ask(last)]
        assert [(answer.status, answer.option(BLOCK1)) for answer in answers] == [("2.04", b"\x20")]
        assert await one.bodies() == [b"x" * 40]


async def test_a_device_that_begins_anew_with_its_message_ids_is_believed(tmp_path: Path) -> None:
    async with gateway(tmp_path) as one:
        device = one.device()
        for payload in (b"1", b"2", b"3"):
            assert (await device.ask(post(1, payload, token=b""))).status == "2.04"
        await one.kill_and_restart()
        assert (await device.ask(post(1, b"4", token=b""))).status == "2.04"
        assert await one.bodies() == [b"1", b"2", b"3", b"4"]


async def test_non_confirmable_messages_ride_along(tmp_path: Path) -> None:
    async with gateway(tmp_path) as one:
        device = one.device()
        await device.send(post(1, b"1", kind=NON), post(1, b"1", kind=NON))
        answer = await device.receive()
        assert (answer.kind, answer.status) == (NON, "2.04")
        await device.send(post(2, b"2", "press/4", (NO_RESPONSE, b"\x1a"), kind=NON))
        assert (await device.ask(post(3, b"3"))).status == "2.04"
        assert sorted(await one.stored(3)) == [b"1", b"2", b"3"]


async def test_who_wants_no_response_gets_none(tmp_path: Path) -> None:
    async with gateway(tmp_path) as one:
        device = one.device()
        await device.send(post(1, b"1", "press/4", (NO_RESPONSE, b"\x02")))
        assert await device.receive() == Message(ACK, 0, 1)
        await device.send(post(2, b"2", "press/4", (NO_RESPONSE, b"\x1a"), kind=NON))
        assert await one.stored(2) == [b"1", b"2"]
        assert (await device.ask(post(3, b"3", "press/+", (NO_RESPONSE, b"\x02")))).status == "4.00"


async def test_a_full_queue_says_when_to_come_again(tmp_path: Path) -> None:
    async with gateway(tmp_path) as one:
        await one.kill_and_restart(min_free_bytes=1 << 60)
        answer = await one.device().ask(post(1))
        assert (answer.status, answer.option(MAX_AGE)) == ("5.03", b"\x0a")
        shown = one.emit.devices.by_name["127.0.0.1"]
        assert (shown.failures, shown.error) == (1, f"5.03: {answer.payload.decode()}")
        assert await one.bodies() == []


async def test_what_no_topic_may_have_need_not_be_sent_again(tmp_path: Path) -> None:
    async with gateway(tmp_path) as one:
        one.emit.router = Router(
            [RouteSettings(from_="field", match="#", topic="{1}")], None, {"tidegate-ledger"}
        )
        answer = await one.device().ask(post(1, b"1", "tidegate-ledger"))
        assert answer.status == "4.03"
        assert b"no record may go to topic 'tidegate-ledger'" in answer.payload
        assert one.emit.devices.by_name["127.0.0.1"].error == f"4.03: {answer.payload.decode()}"


async def status(one: Gateway, mid: int) -> dict[str, Any]:
    path = ((URI_PATH, b"tidegate"), (URI_PATH, b"status"))
    answer = await one.device().ask(Message(CON, GET, mid, mid.to_bytes(2, "big"), path))
    told: dict[str, Any] = json.loads(answer.payload or b"{}")
    return told


async def test_status_counts_every_message_that_was_refused(tmp_path: Path) -> None:
    async with gateway(tmp_path, body_bytes_max=100) as one:
        device = one.device()
        one.emit.router = Router(
            [RouteSettings(from_="field", match="#", topic="{1}")], None, {"tidegate-ledger"}
        )
        for number, (message, answered) in enumerate(
            (
                (post(1), "2.04"),
                (post(2, b"2", "press/+"), "4.00"),
                (post(3, b"3", "press/4", (9999, b"")), "4.02"),
                (post(4, b"4", "tidegate-ledger"), "4.03"),
                (post(5, b"5", "tidegate/status"), "4.05"),
                (post(6, b"x" * 16, "a", block(2, True, 0)), "4.08"),
                (post(7, b"x" * 101), "4.13"),
                (post(8, b"{", "press/4", (CONTENT_FORMAT, b"\x6e")), "4.00"),
            )
        ):
            assert (await device.ask(message)).status == answered
            assert await status(one, 100 + number) == {"takes": True, "accepted": 1, "refused": number}
        await one.kill_and_restart(min_free_bytes=1 << 60)
        assert (await device.ask(post(9))).status == "5.03"
        assert await status(one, 200) == {"takes": False, "accepted": 0, "refused": 1}


async def test_status_counts_what_there_was_no_room_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("drivers.coap.exchanges.SPAN_S", 1.0)
    async with gateway(tmp_path, exchanges_max=2) as one:
        device = one.device()
        answers = [(await device.ask(post(number))).status for number in range(4)]
        assert answers == ["2.04", "2.04", "5.03", "5.03"]
        refused = 2
        async with asyncio.timeout(10):
            while not (told := await status(one, 100 + refused)):
                refused += 1
                await asyncio.sleep(0.05)
        assert told == {"takes": True, "accepted": 2, "refused": refused}


@pytest.mark.slow
async def test_a_slow_commit_is_answered_in_a_message_of_its_own(tmp_path: Path) -> None:
    async with gateway(tmp_path) as one:
        await one.kill_and_restart(commit_interval=1.5)
        device = one.device()
        assert (await device.ask(post(1, b"1"))).status == "2.04"
        await device.send(post(2, b"2"))
        empty = await device.receive()
        assert (empty.kind, empty.code, empty.mid) == (ACK, 0, 2)
        await device.send(post(2, b"2"))
        assert await device.receive() == empty
        answer = await device.receive()
        assert (answer.kind, answer.status, answer.token) == (CON, "2.04", b"\0\2")
        await device.send(Message(ACK, 0, answer.mid))
        assert await one.bodies() == [b"1", b"2"]


@pytest.mark.fault("repeat", "blocks too large, too many, in the wrong order", "34")
async def test_blocks_are_bounded_in_size_number_and_order(tmp_path: Path) -> None:
    async with gateway(tmp_path, body_bytes_max=100, transfers_max=2) as one:
        device = one.device()
        assert (await device.ask(post(1, b"x" * 16, "a", block(0, True, 0)))).status == "2.31"
        assert (await device.ask(post(2, b"x" * 16, "b", block(0, True, 0)))).status == "2.31"
        assert (await device.ask(post(3, b"x" * 16, "c", block(0, True, 0)))).status == "4.13"
        assert (await device.ask(post(4, b"x" * 16, "a", block(2, True, 0)))).status == "4.08"
        announced = await device.ask(post(5, b"x" * 16, "b", block(0, True, 0), (SIZE1, b"\xff\xff")))
        assert (announced.status, announced.option(SIZE1)) == ("4.13", b"\x64")
        for number in range(6):
            assert (
                await device.ask(post(10 + number, b"x" * 16, "b", block(number, True, 0)))
            ).status == "2.31"
        assert (await device.ask(post(16, b"x" * 16, "b", block(6, True, 0)))).status == "4.13"
        assert (await device.ask(post(17, b"x" * 15, "b", block(0, True, 0)))).status == "4.00"
        assert (await device.ask(post(18, b"x" * 200, "b"))).status == "4.13"
        assert await one.bodies() == []


async def test_names_have_no_control_characters(tmp_path: Path) -> None:
    async with gateway(tmp_path) as one:
        device = one.device()
        for number, character in enumerate("\x1b\x7f\u0080\u009b\u009f"):
            assert (await device.ask(post(2 * number, b"1", f"press{character}4"))).status == "4.00"
            query = (URI_QUERY, f"d=a{character}".encode())
            assert (await device.ask(post(2 * number + 1, b"1", "press/4", query))).status == "4.00"
        assert await one.bodies() == []


async def test_one_sender_can_not_take_all_transfers(tmp_path: Path) -> None:
    """Whatever it calls them, and from however many ports."""
    async with gateway(tmp_path) as one:
        for number in range(64):
            first = post(number, b"x" * 16, "a", block(0, True, 0), (REQUEST_TAG, bytes((number,))))
            answer = await one.device().ask(first)
            assert answer.status == ("2.31" if number < 32 else "4.13")
        press = one.device(source="127.0.0.2")
        assert (await press.ask(post(1, b"x" * 16, "b", block(0, True, 0)))).status == "2.31"
        assert (await press.ask(post(2, b"y", "b", block(1, False, 0)))).status == "2.04"
        assert await one.bodies() == [b"x" * 16 + b"y"]


@pytest.mark.fault("repeat", "a flood of first blocks", "34")
async def test_the_rest_of_a_flood_of_first_blocks_is_refused(tmp_path: Path) -> None:
    async with gateway(tmp_path, buffer_bytes_max=64 << 10, transfers_max=10_000) as one:
        device = one.device()
        for number in range(200):
            answer = await device.ask(post(number, b"x" * 1024, f"c/{number}", block(0, True, 6)))
            assert answer.status == ("2.31" if number < 64 else "4.13")
        assert (await device.ask(post(1000, b"1" * 1024))).status == "5.03"


async def test_no_room_for_another_answer_is_no_loss(tmp_path: Path) -> None:
    async with gateway(tmp_path, exchanges_max=3) as one:
        device = one.device()
        answers = [await device.ask(post(number)) for number in range(4)]
        assert [answer.status for answer in answers] == ["2.04", "2.04", "2.04", "5.03"]
        assert await device.ask(post(0)) == answers[0]
        assert await one.bodies() == [b"1"] * 3


async def test_ipv6_and_ipv4_at_the_same_port(tmp_path: Path) -> None:
    port = free_address().port
    async with gateway(tmp_path, listen=Address("::", port)) as one:
        assert (await one.device(socket.AF_INET6).ask(post(1))).status == "2.04"
        one.address = Address("127.0.0.1", port)
        assert (await one.device().ask(post(2))).status == "2.04"
        assert [header["tg.device"] for header in await one.headers()] == ["::1", "127.0.0.1"]


@pytest.mark.fault("input", "what is no CoAP")
async def test_what_is_no_coap_is_counted_and_takes_no_room(tmp_path: Path) -> None:
    async with gateway(tmp_path, exchanges_max=1) as one:
        device = one.device()
        await device.send(
            b"\x40",
            b"\x00\x01\x00\x01",
            b"\x49\x01\x00\x01123456789",
            b"\x44\x01\x00\x0112",
            b"\x40\x00\x00\x01\xff1",
            b"\x40\x02\x00\x01\xb2\xff\xfe",
            b"\x40\x02\x00\x01\xbf",
            b"\x60\x02\x00\x01",
            b"\x70\x45\x00\x01",
            b"\x50\x00\x00\x01",
            b"x" * 5000,
        )
        assert (await device.ask(post(1))).status == "2.04"
        assert one.events() == {"malformed datagrams": 11}
