"""OSCORE (RFC 8613): the vectors of its appendix C, a device with aiocoap's own context, and the gateway asking itself."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiocoap
import pytest
from aiocoap.oscore import FilesystemSecurityContext

from drivers.coap import Config, Oscore, Resource
from drivers.coap.driver import CoapDriver
from drivers.coap.oscore import Protection
from drivers.coap.protocol import Problem
from gateway.clock import SystemClock
from gateway.driver import Context
from gateway.errors import DeviceError
from gateway.settings import Secret
from gateway.testing.conformance import free_address
from gateway.testing.emit import FakeEmit
from tests.coap.rig import CON, NON, Device, Gateway, Message, gateway

SECRET = "0102030405060708090a0b0c0d0e0f10"
SALT = "9e7ca92223786340"


def context(sender: str, recipient: str, *channels: str) -> Oscore:
    secret = Secret(lambda: SECRET, "test")
    return Oscore(secret=secret, salt=SALT, sender_id=sender, recipient_id=recipient, channels=list(channels))


PRESS = {"press-4": context("01", "02", "press/#")}


class Protected:
    """A device that keeps its context in files, as aiocoap-client does."""

    def __init__(self, folder: Path, device: Device) -> None:
        folder.mkdir()
        (folder / "settings.json").write_text(json.dumps({"sender-id_hex": "02", "recipient-id_hex": "01"}))
        (folder / "secret.json").write_text(json.dumps({"secret_hex": SECRET, "salt_hex": SALT}))
        self._context = FilesystemSecurityContext(str(folder))
        self._device = device
        self._mid = 0
        self.numbers: list[int] = []
        """Those of the answers."""

    def sealed(self, path: str, payload: bytes, **options: Any) -> tuple[Message, Any]:
        self._mid += 1
        inner = aiocoap.Message(code=aiocoap.POST, payload=payload, uri_path=path.split("/"), **options)
        outer, request_id = self._context.protect(inner)
        wire = Message(
            CON, outer.code, self._mid, bytes((self._mid,)), ((9, outer.opt.oscore),), outer.payload
        )
        return wire, request_id

    def opened(self, answer: Message, request_id: Any) -> Any:
        option = answer.option(9)
        assert option
        self.numbers.append(int.from_bytes(option[1:], "big"))
        return self._context.unprotect(aiocoap.Message.decode(answer.encode()), request_id)[0]

    async def post(self, path: str, payload: bytes) -> Any:
        wire, request_id = self.sealed(path, payload)
        answer = self.opened(await self._device.ask(wire), request_id)
        if answer.opt.echo is None:
            return answer
        wire, request_id = self.sealed(path, payload, echo=answer.opt.echo)
        return self.opened(await self._device.ask(wire), request_id)

    def close(self) -> None:
        del self._context


async def bodies(one: Gateway) -> list[bytes]:
    return await one.bodies()


async def test_vectors() -> None:
    """RFC 8613, C.1.1 and C.4."""
    protection = Protection("c", context("", "01"), "field", FakeEmit(), SystemClock())
    assert protection.sender_key.hex() == "f0910ed7295e6ad4b54fc793154302ff"
    assert protection.recipient_key.hex() == "ffb14e093c94c9cac9471648b4f98710"
    assert protection.common_iv.hex() == "4622d4dd6d944168eefb54987c"
    await protection.reserve()
    protection.sender_sequence_number = 20
    request = aiocoap.Message(code=aiocoap.GET, uri_path=["tv1"])
    outer, _ = protection.sealed(request)
    assert (outer.opt.oscore.hex(), outer.payload.hex()) == ("0914", "612f1092f1776f1c1668b3825e")


async def test_a_protected_record_is_stored_once_also_over_a_restart(tmp_path: Path) -> None:
    async with gateway(tmp_path / "gateway", anonymous=False, oscore=PRESS) as one:
        device = one.device()
        press = Protected(tmp_path / "device", device)
        assert str((await press.post("press/4", b"1")).code) == "2.04 Changed"
        wire, request_id = press.sealed("press/4", b"2")
        first = await device.ask(wire)
        assert str(press.opened(first, request_id).code) == "2.04 Changed"
        replayed = wire._replace(mid=900, token=b"r")
        for _ in range(2):
            assert await device.ask(wire) == first
            answer = await device.ask(replayed)
            assert (answer.status, answer.payload) == ("4.01", b"replay detected")
            await one.kill_and_restart()
        assert str((await press.post("press/4", b"3")).code) == "2.04 Changed"
        assert press.numbers == sorted(set(press.numbers))
        assert len(press.numbers) > 3
        assert await one.bodies() == [b"1", b"2", b"3"]
        assert {header["tg.device"] for header in await one.headers()} == {"press-4"}
        press.close()


async def test_a_non_confirmable_record_cannot_be_replayed_after_a_restart(tmp_path: Path) -> None:
    """Nor where a confirmable one left an older mark, with which nobody is challenged."""
    async with gateway(tmp_path / "gateway", anonymous=False, oscore=PRESS) as one:
        device = one.device()
        press = Protected(tmp_path / "device", device)
        assert str((await press.post("press/4", b"1")).code) == "2.04 Changed"
        wire, request_id = press.sealed("press/4", b"2")
        once = wire._replace(kind=NON)
        assert str(press.opened(await device.ask(once), request_id).code) == "2.04 Changed"
        await one.kill_and_restart()
        for replayed in (once, wire._replace(mid=900)):
            answer = await one.device().ask(replayed)
            assert (answer.status, answer.payload) == ("4.01", b"replay detected")
        assert await one.bodies() == [b"1", b"2"]
        press.close()


async def test_who_may_send_where(tmp_path: Path) -> None:
    async with gateway(tmp_path / "gateway", anonymous=False, oscore=PRESS) as one:
        device = one.device()
        press = Protected(tmp_path / "device", device)
        assert str((await press.post("mill/1", b"1")).code) == "4.03 Forbidden"
        wire, _ = press.sealed("press/4", b"1")
        for changed, status in (
            (wire._replace(payload=wire.payload[:-1] + b"x"), "4.00"),
            (wire._replace(options=((9, b"\x09\x00\x07"),)), "4.01"),
            (wire._replace(options=((9, b"\xe0"),)), "4.02"),
            (wire._replace(options=((9, b"\x10"),)), "4.02"),
            (wire._replace(options=((11, b"press"),)), "4.01"),
        ):
            answer = await device.ask(
                changed._replace(mid=changed.mid + 1 + len(changed.payload), token=b"x")
            )
            assert answer.status == status
            device = one.device()
        assert await one.bodies() == []
        press.close()


async def test_numbers_are_never_given_twice(tmp_path: Path) -> None:
    """Not with a clock that stands still, not over restarts, and few of them cost a write."""
    given: list[int] = []
    emit = FakeEmit()

    class Stopped(SystemClock):
        def wall_ms(self) -> int:
            return 0

    for _ in range(3):
        protection = Protection("c", context("01", "02"), "field", emit, Stopped())
        await protection.reserve()
        for _ in range(1500):
            given.append(protection.new_sequence_number())
            await asyncio.sleep(0)
        emit = emit.restart()
    assert len(set(given)) == len(given) == 4500
    assert sum(len(call.remember) for call in emit.calls) < 5


async def test_numbers_are_short_also_where_they_were_long_before() -> None:
    long, emit = context("01", "02"), FakeEmit()
    for settings, size in ((long, 5), (replace(long, short_numbers=True), 4), (long, 5)):
        protection = Protection("c", settings, "field", emit, SystemClock())
        await protection.reserve()
        assert (protection.new_sequence_number().bit_length() + 7) // 8 == size
        emit = emit.restart()


@pytest.mark.parametrize("secret", ["00" * 15, "hush"])
async def test_a_secret_that_is_none_says_so(secret: str) -> None:
    oscore = {"press-4": Oscore(secret=Secret(lambda: secret, "test"), sender_id="01", recipient_id="02")}
    driver = CoapDriver(Config(listen=free_address(), oscore=oscore), Context("field", SystemClock()))
    with pytest.raises(DeviceError, match="secret of OSCORE context press-4") as raised:
        await driver.run(FakeEmit())
    assert secret not in str(raised.value)


async def test_no_number_is_used_before_it_is_reserved_on_disk() -> None:
    emit = FakeEmit()
    protection = Protection("c", context("01", "02"), "field", emit, SystemClock())
    request = aiocoap.Message(code=aiocoap.GET)
    with pytest.raises(Problem, match=r"^5\.03"):
        protection.sealed(request)
    await protection.reserve()
    emit.hold()
    for _ in range(1000):
        protection.sealed(request)
    with pytest.raises(Problem, match=r"^5\.03"):
        protection.sealed(request)
    emit.release()
    await asyncio.sleep(0)
    protection.sealed(request)


@pytest.mark.parametrize("observe", [False, True])
async def test_the_gateway_reads_what_is_protected(observe: bool, tmp_path: Path) -> None:
    """From another gateway, whose status it is."""
    async with gateway(tmp_path, anonymous=False, oscore=PRESS) as one:
        resource = Resource(
            uri=f"coap://127.0.0.1:{one.address.port}/tidegate/status",
            device="other",
            interval=None if observe else 0.05,
            observe=observe,
            oscore="other",
        )
        config = Config(resources=[resource], oscore={"other": context("02", "01")}, timeout=1.0)
        emit = FakeEmit()
        driver = asyncio.create_task(CoapDriver(config, Context("asks", SystemClock())).run(emit))
        records = await emit.stored(1 if observe else 3)
        assert json.loads(records[0].body)["takes"] is True
        driver.cancel()
        await asyncio.wait([driver])
        assert not emit.failures


async def test_without_protection_nothing_is_believed(tmp_path: Path) -> None:
    async with gateway(tmp_path) as plain:
        resource = Resource(
            uri=f"coap://127.0.0.1:{plain.address.port}/tidegate/status",
            device="other",
            interval=0.05,
            oscore="other",
        )
        config = Config(resources=[resource], oscore={"other": context("02", "01")}, timeout=1.0)
        emit = FakeEmit()
        driver = asyncio.create_task(CoapDriver(config, Context("asks", SystemClock())).run(emit))
        await emit.until(lambda: bool(emit.failures))
        driver.cancel()
        await asyncio.wait([driver])
        assert emit.failures[0][1] == "4.02: not protected: OSCORE is not set up here"
        assert all(json.loads(record.body)["values"] == {} for record in emit.records)


async def test_protected_blocks(tmp_path: Path) -> None:
    async with gateway(tmp_path / "gateway", anonymous=False, oscore=PRESS) as one:
        device = one.device()
        press = Protected(tmp_path / "device", device)
        await press.post("press/4", b"first")
        for number, more in ((0, True), (1, True), (2, False)):
            wire, request_id = press.sealed("press/5", b"x" * (16 if more else 3), block1=(number, more, 0))
            answer = press.opened(await device.ask(wire), request_id)
            assert str(answer.code) == ("2.31 Continue" if more else "2.04 Changed")
            assert answer.opt.block1.block_number == number
        assert await one.bodies() == [b"first", b"x" * 35]
        press.close()


async def test_what_is_refused_says_so_under_protection_only(tmp_path: Path) -> None:
    async with gateway(tmp_path / "gateway", anonymous=False, oscore=PRESS) as one:
        device = one.device()
        press = Protected(tmp_path / "device", device)
        await press.post("press/4", b"first")
        wire, request_id = press.sealed("press/4", b"{", content_format=110)
        answer = await device.ask(wire)
        assert answer.status == "2.04"  # what anybody on the way sees
        assert str(press.opened(answer, request_id).code) == "4.00 Bad Request"
        press.close()
