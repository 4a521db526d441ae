"""What the gateway reads from devices: libcoap's coap-server, and devices that misbehave."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiocoap.numbers.constants import TransportTuning

from drivers.coap import Config, Resource
from drivers.coap.driver import CoapDriver
from gateway.clock import SystemClock
from gateway.driver import Context
from gateway.errors import QueueFull
from gateway.settings import Address
from gateway.testing.conformance import free_address
from gateway.testing.emit import FakeEmit
from tests.coap.rig import ACK, CON, CONTENT_FORMAT, MAX_AGE, OBSERVE, RST, URI_PATH, Message

CONTENT = 0x45


@asynccontextmanager
async def reading(emit: FakeEmit, *resources: Resource, **settings: Any) -> AsyncIterator[None]:
    config = Config(resources=list(resources), **{"timeout": 0.3, **settings})
    bugs: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, bug: bugs.append(bug))
    driver = asyncio.create_task(CoapDriver(config, Context("field", SystemClock())).run(emit))
    try:
        yield
    finally:
        driver.cancel()
        await asyncio.wait([driver])
        assert driver.cancelled(), driver.exception()
        assert not bugs


@asynccontextmanager
async def coap_server(address: Address) -> AsyncIterator[None]:
    """libcoap's example, with /time that can be observed, and resources that a PUT makes."""
    server = await asyncio.create_subprocess_exec(
        "coap-server-notls", "-A", address.host, "-p", str(address.port), "-d", "10", "-e"
    )
    try:
        yield
    finally:
        server.kill()
        await server.wait()


class Device(asyncio.DatagramProtocol):
    """Answers each request with what `answer` makes of it; keeps what came."""

    def __init__(self, answer: Callable[[Message], list[Message]]) -> None:
        self._answer = answer
        self.requests: list[Message] = []
        self.others: asyncio.Queue[Message] = asyncio.Queue()

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self.transport = transport

    def datagram_received(self, data: bytes, address: Any) -> None:
        message = Message.decode(data)
        self.gateway = address
        if not 0 < message.code < 32:
            self.others.put_nowait(message)
            return
        self.requests.append(message)
        self.send(*self._answer(message))

    def send(self, *messages: Message) -> None:
        for message in messages:
            self.transport.sendto(message.encode(), self.gateway)


@asynccontextmanager
async def device(answer: Callable[[Message], list[Message]]) -> AsyncIterator[tuple[Device, str]]:
    transport, one = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: Device(answer), local_addr=("127.0.0.1", 0)
    )
    try:
        yield one, f"coap://127.0.0.1:{transport.get_extra_info('sockname')[1]}/sensors/temp"
    finally:
        transport.abort()


def content(request: Message, payload: bytes, *options: tuple[int, bytes]) -> Message:
    return Message(ACK, CONTENT, request.mid, request.token, options, payload)


def notification(request: Message, number: int, payload: bytes, mid: int, max_age: int = 60) -> Message:
    options = ((OBSERVE, bytes((number,))), (MAX_AGE, bytes((max_age,))))
    return Message(CON, CONTENT, mid, request.token, options, payload)


def polled(uri: str, interval: float = 0.05) -> Resource:
    return Resource(uri=uri, device="press-4", interval=interval)


def observed(uri: str) -> Resource:
    return Resource(uri=uri, device="press-4", observe=True)


def bodies(emit: FakeEmit) -> list[bytes]:
    return [record.body for record in emit.records]


async def test_a_resource_is_polled() -> None:
    emit = FakeEmit()
    pack = b'[{"n":"temp","v":21.5,"bt":1700000000}]'
    senml = (CONTENT_FORMAT, b"\x6e")
    async with (
        device(lambda request: [content(request, pack, senml)]) as (_, uri),
        reading(emit, polled(uri)),
    ):
        await emit.stored(3)
    record = emit.records[0]
    assert (record.channel, record.device) == ("sensors/temp", "press-4")
    assert json.loads(record.body) == {
        "device": "press-4",
        "time": 1700000000000,
        "values": {"temp": 21.5},
        "quality": {},
    }
    assert emit.told == len(emit.records)
    assert not any(call.waits for call in emit.calls)


async def test_nobody_listens_where_the_gateway_only_asks() -> None:
    emit = FakeEmit()
    answering = device(lambda request: [content(request, b"21.5")])
    async with answering as (one, uri), reading(emit, polled(uri), anonymous=True):
        await emit.stored(1)
        one.send(Message(CON, 2, 5, b"t", ((11, b"a"),), b"not wanted"))
        assert (await one.others.get()).status == "4.04"
    assert b"not wanted" not in bodies(emit)


@pytest.mark.fault("line", "a polled device is silent")
async def test_a_device_that_is_silent_has_no_value() -> None:
    emit = FakeEmit()
    answering = True

    def answer(request: Message) -> list[Message]:
        return [content(request, b"21.5")] if answering else []

    async with device(answer) as (one, uri), reading(emit, polled(uri)):
        await emit.stored(1)
        answering = False
        await emit.until(lambda: bool(emit.failures))
        answering = True
        count = len(emit.records)
        await emit.until(lambda: b"21.5" in bodies(emit)[count:])
        assert one.requests[0].kind == CON
    failed = next(json.loads(body) for body in bodies(emit) if body != b"21.5")
    assert (failed["values"], failed["quality"]) == ({}, {"sensors/temp": "no answer"})
    assert emit.failures[0] == ("press-4", "no answer")
    assert emit.events["skipped ticks"] > 0


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (lambda request: [Message(ACK, 0x84, request.mid, request.token)], "4.04: the device refuses"),
        (lambda request: [Message(ACK, CONTENT, request.mid, request.token, ((2049, b"x"),), b"1")], "4.02"),
        (lambda request: [Message(RST, 0, request.mid)], "the device sent a reset"),
        (
            lambda request: [content(request, b"{", (CONTENT_FORMAT, b"\x6e"))],
            "4.00: the SenML pack can't be read",
        ),
        (lambda request: [content(request, b"x" * 1000)], "4.13: a body has at most 500 bytes"),
    ],
)
async def test_what_is_no_value_is_said(answer: Callable[[Message], list[Message]], reason: str) -> None:
    emit = FakeEmit()
    async with device(answer) as (_, uri), reading(emit, polled(uri), body_bytes_max=500):
        await emit.until(lambda: bool(emit.failures))
    assert reason in emit.failures[0][1]
    assert json.loads(emit.records[0].body)["values"] == {}


def of(uri: str, *names: str, interval: float = 0.05) -> list[Resource]:
    """Resources of one device, each a device of records by its name."""
    base = uri.rpartition("/")[0]
    return [Resource(uri=f"{base}/{name}", device=name, interval=interval) for name in names]


def qualities(emit: FakeEmit, name: str) -> list[str]:
    """What the records of one resource that have no value say instead."""
    said = [json.loads(record.body) for record in emit.records if record.device == name]
    return [reason for body in said if isinstance(body, dict) for reason in body["quality"].values()]


def silent_if_mute(request: Message) -> list[Message]:
    return [] if request.option(URI_PATH) == b"mute" else [content(request, b"1")]


@pytest.mark.fault("line", "a resource is silent, others of its device answer")
async def test_a_resource_that_is_silent_leaves_the_device_to_the_others() -> None:
    emit = FakeEmit()

    def others_since_last() -> int:
        """How often the good one was asked since the silent one was, once that was asked twice."""
        asked = [request.option(URI_PATH) for request in one.requests]
        return asked[::-1].index(b"mute") if asked.count(b"mute") > 1 else 0

    async with (
        device(silent_if_mute) as (one, uri),
        reading(emit, *of(uri, "mute", "good"), timeout=0.5),
    ):
        await emit.until(lambda: others_since_last() > 9, 20)
    assert set(qualities(emit, "mute")) == {"no answer"}
    assert "no answer" not in qualities(emit, "good")
    assert emit.events["skipped ticks"] > 0
    assert ("good", "no answer") not in emit.failures


async def test_a_resource_whose_turn_does_not_come_says_that_and_not_that_it_did_not_answer() -> None:
    emit = FakeEmit()
    answering = False
    names = ["mute", "still", "good", "watched"]
    waits = "waits for another request to this device"

    def answer(request: Message) -> list[Message]:
        observes = [option for option in request.options if option[0] == OBSERVE]
        return [content(request, b"1", *observes)] if answering else []

    async with device(answer) as (one, uri):
        watched = Resource(uri=uri.replace("temp", "watched"), device="watched", observe=True)
        async with reading(emit, *of(uri, *names[:3]), watched, timeout=0.5):
            await emit.until(lambda: {("good", waits), ("watched", waits)} <= set(emit.failures), 20)
            for name in names:
                asked = [request.option(URI_PATH) for request in one.requests].count(name.encode())
                assert emit.failures.count((name, "no answer")) <= asked
            assert waits in qualities(emit, "good")
            answering = True
            await emit.until(
                lambda: {*names} == {told.device for told in emit.records if told.body == b"1"}, 20
            )


async def test_a_request_that_is_given_up_is_no_fault_of_those_behind_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After four retransmissions, though its resource may take longer to answer."""
    monkeypatch.setattr(TransportTuning, "ACK_TIMEOUT", 0.005)
    emit = FakeEmit()
    async with (
        device(silent_if_mute) as (one, uri),
        reading(emit, *of(uri, "mute", "good"), timeout=5.0),
    ):
        await emit.until(lambda: [asked.option(URI_PATH) for asked in one.requests].count(b"mute") == 5, 20)
        count = len(emit.records)
        await emit.stored(count + 3)
    assert {*bodies(emit)} == {b"1"}
    assert emit.failures == []


async def test_a_device_that_comes_back_gets_the_latest_request_only() -> None:
    emit = FakeEmit()
    answering = False

    def answer(request: Message) -> list[Message]:
        return [content(request, b"21.5")] if answering else []

    async with device(answer) as (one, uri), reading(emit, polled(uri), timeout=0.1):
        await emit.until(lambda: len(emit.failures) > 4)
        asked = len(one.requests)
        answering = True
        await emit.until(lambda: b"21.5" in bodies(emit))
        assert len({request.token for request in one.requests}) == len(one.requests)
        assert len(one.requests) <= asked + 3


async def test_a_device_that_is_not_there() -> None:
    emit = FakeEmit()
    address = free_address()
    async with reading(emit, polled(f"coap://{address.host}:{address.port}/a")):
        await emit.until(lambda: len(emit.failures) > 1)
    assert emit.failures[0][1] == "Connection refused"


@pytest.mark.fault("line", "one device of several is not there")
async def test_a_device_that_is_not_there_is_no_fault_of_its_neighbour() -> None:
    """On the same host: the kernel's word comes with the next datagram to anybody."""
    emit = FakeEmit()
    gone = free_address()
    absent = Resource(uri=f"coap://127.0.0.1:{gone.port}/a", device="gone", interval=0.01)
    answering = device(lambda request: [content(request, b"a")])
    async with answering as (_, uri), reading(emit, absent, polled(uri, 0.01)):
        await emit.until(lambda: len(emit.failures) > 20 and bodies(emit).count(b"a") > 20)
    assert {name for name, _ in emit.failures} == {"gone"}


async def test_a_resource_is_observed() -> None:
    emit = FakeEmit()

    def answer(request: Message) -> list[Message]:
        return [Message(ACK, CONTENT, request.mid, request.token, ((OBSERVE, b"\x05"),), b"a")]

    async with device(answer) as (one, uri), reading(emit, observed(uri)):
        await emit.stored(1)
        first = one.requests[0]
        assert first.option(OBSERVE) == b""
        one.send(notification(first, 7, b"b", 70))
        assert (await one.others.get())[:3] == (ACK, 0, 70)
        one.send(notification(first, 6, b"late", 71), notification(first, 8, b"c", 72))
        await emit.stored(3)
        assert bodies(emit) == [b"a", b"b", b"c"]
        assert emit.events == {"notifications out of order": 1}
        assert len(one.requests) == 1


@pytest.mark.fault("line", "an observed device is restarted")
async def test_a_device_that_forgot_its_observer_is_asked_again() -> None:
    """Nothing came for longer than Max-Age; what was told last is not told again as if it were new."""
    emit = FakeEmit()
    answering = True

    def answer(request: Message) -> list[Message]:
        number = ((OBSERVE, b"\x05"), (MAX_AGE, b""))
        return [Message(ACK, CONTENT, request.mid, request.token, number, b"a")] if answering else []

    async with device(answer) as (one, uri), reading(emit, observed(uri), timeout=0.1):
        await emit.stored(2)
        assert one.requests[0].token != one.requests[1].token
        answering = False
        await emit.until(lambda: bool(emit.failures))
        stale = json.loads(emit.records[-1].body)
        assert (stale["values"], stale["quality"]) == ({}, {"sensors/temp": "no answer"})
        count = len(emit.records)
        await emit.until(lambda: len(emit.failures) > 2)
        assert len(emit.records) == count
        answering = True
        await emit.until(lambda: len(emit.records) > count)
        assert emit.records[-1].body == b"a"


async def test_no_max_age_keeps_a_restarted_device_from_being_asked_again() -> None:
    emit = FakeEmit()
    value = b"before"

    def answer(request: Message) -> list[Message]:
        number = ((OBSERVE, b"\x05"), (MAX_AGE, b"\xff\xff\xff\xff"))
        return [Message(ACK, CONTENT, request.mid, request.token, number, value)]

    async with device(answer) as (one, uri), reading(emit, observed(uri), max_age_max=0.1):
        await emit.stored(1)
        value = b"after"
        await emit.until(lambda: b"after" in bodies(emit))
        assert one.requests[0].token != one.requests[1].token


async def test_an_observation_that_is_over_is_reset() -> None:
    emit = FakeEmit()

    def answer(request: Message) -> list[Message]:
        number = ((OBSERVE, b"\x05"), (MAX_AGE, b""))
        return [Message(ACK, CONTENT, request.mid, request.token, number, b"a")]

    async with device(answer) as (one, uri), reading(emit, observed(uri)):
        await emit.stored(2)
        one.send(notification(one.requests[0], 9, b"to the first", 90))
        assert (await one.others.get())[:3] == (RST, 0, 90)
        assert b"to the first" not in bodies(emit)


async def test_a_resource_that_can_t_be_observed_says_so() -> None:
    emit = FakeEmit()
    async with device(lambda request: [content(request, b"a")]) as (_, uri), reading(emit, observed(uri)):
        await emit.until(lambda: bool(emit.failures))
    assert "poll it" in emit.failures[0][1]


async def test_while_the_queue_is_full_readings_are_left_out() -> None:
    emit = FakeEmit()
    emit.refuse = QueueFull("the queue is full")
    async with device(lambda request: [content(request, b"a")]) as (_, uri), reading(emit, polled(uri)):
        await emit.until(lambda: bool(emit.failures))
        emit.refuse = None
        await emit.stored(1)
    assert emit.failures[0] == ("press-4", "not stored: the queue is full")


@pytest.mark.slow
async def test_libcoap_s_server_polled_observed_killed_and_back() -> None:
    emit = FakeEmit()
    address = free_address()
    uri = f"coap://{address.host}:{address.port}"
    large = bytes(range(256)) * 20
    resources = (
        Resource(uri=f"{uri}/time", device="clock", observe=True, channel="observed"),
        Resource(uri=f"{uri}/time?ticks", device="clock", interval=0.2, channel="polled"),
        Resource(uri=f"{uri}/large", device="store", interval=0.2),
    )

    def of(channel: str) -> list[bytes]:
        return [record.body for record in emit.records if record.channel == channel]

    async with reading(emit, *resources, timeout=1.0):
        async with coap_server(address):
            await emit.until(lambda: len(of("observed")) > 2 and len(of("polled")) > 2)
            put = await asyncio.create_subprocess_exec(
                "coap-client-notls", "-m", "put", "-b", "512", "-f", "-", f"{uri}/large", stdin=-1
            )
            await put.communicate(large)
            await emit.until(lambda: large in of("large"))
        await emit.until(lambda: b'"quality":{"polled"' in of("polled")[-1])
        count = len(emit.records)
        async with coap_server(address):
            await emit.until(
                lambda: sum(record.channel == "observed" for record in emit.records[count:]) > 2, 30
            )
