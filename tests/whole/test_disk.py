"""A whole gateway whose disk is full, slow or suddenly takes no writes."""

import asyncio
import subprocess
import time
from asyncio.subprocess import Process
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from gateway.runtime.process import EXIT_DISK
from gateway.testing.kafka import KafkaBroker
from tests.queue.full_disk import fill, needs_root, small_disk
from tests.whole.calls import inject, needs_strace, threads
from tests.whole.rig import Gateway, at_work, settle, tell, until

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.proof, pytest.mark.timeout(300)]

FULL_S = 3.0
SLOW_S = 7.0
STARTS = 3


async def test_on_a_full_disk_devices_are_refused_and_what_waits_is_delivered(
    kafka: KafkaBroker, topic: str, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "data", 16) as disk:
        gateway = Gateway(tmp_path, topic, kafka.bootstrap)
        await gateway.start()
        async with at_work(gateway, padding=8000) as devices:
            others = fill(disk)
            await until(lambda: "devices are refused" in gateway.said(), "nobody is refused", gateway.said)
            await gateway.drained()
            await asyncio.sleep(FULL_S)
            others.unlink()
            recovery_s = await devices.told_more(gateway.said)
            audited = await settle(gateway, devices)
    tell("8", "others fill the disk of a running gateway", audited, recovery_s)


@pytest.fixture
async def gateway(kafka: KafkaBroker, topic: str, tmp_path: Path) -> Gateway:
    gateway = Gateway(tmp_path, topic, kafka.bootstrap)
    await gateway.start()
    return gateway


def flushes(gateway: Gateway, fault: str) -> AbstractAsyncContextManager[Process]:
    """Of the queue's thread, with strace's words for what befalls them."""
    queue = next(tid for tid, name in threads(gateway.process.pid).items() if name == "queue")
    return inject(queue, "fdatasync", fault, gateway.folder / "calls")


@needs_strace
async def test_a_slow_disk_delays_acknowledgements_and_nothing_else(gateway: Gateway) -> None:
    async with at_work(gateway) as devices:
        async with flushes(gateway, "delay_enter=2000000"):
            told, until_s = devices.told, time.monotonic() + SLOW_S
            while time.monotonic() < until_s:
                assert (await gateway.status()).queue.refusing is None
                await asyncio.sleep(0.2)
            assert devices.told > told
        audited = await settle(gateway, devices)
    assert audited.again == 0, "a device lost its connection"
    assert "warning" not in gateway.said()
    tell("9", "every fdatasync takes 2 s", audited, None)


@needs_strace
async def test_after_a_flush_that_failed_nothing_is_believed_and_the_next_process_goes_on(
    gateway: Gateway,
) -> None:
    """The kernel forgets what it could not write: to flush again and hear that all is well would be a lie."""
    async with at_work(gateway) as devices:
        async with flushes(gateway, "error=EIO:when=5"):
            assert await gateway.ended() == EXIT_DISK
        began = time.monotonic()
        await gateway.start()
        await devices.told_more(gateway.said)
        recovery_s = time.monotonic() - began
        audited = await settle(gateway, devices)
    tell("5", "an fdatasync of a running gateway fails with EIO", audited, recovery_s)


@needs_strace
async def test_while_every_flush_fails_each_process_ends_and_nothing_is_acknowledged(
    gateway: Gateway,
) -> None:
    """Whoever starts it again may do so at his own pace; that nothing is damaged on the disk stays known."""
    always = ("-e", "trace=fdatasync,fsync", "-e", "inject=fdatasync,fsync:error=EIO")
    prefix = ("strace", "-f", "-o", str(gateway.folder / "calls"), *always, "setpriv", "--pdeathsig", "KILL")
    async with at_work(gateway) as devices:
        async with flushes(gateway, "error=EIO"):
            assert await gateway.ended() == EXIT_DISK
        told = set()
        for _ in range(STARTS):
            await gateway.start(prefix=prefix, live=False)
            assert await gateway.ended() == EXIT_DISK
            told.add(devices.told)
        assert len(told) == 1
        assert not (gateway.data / "quarantine").exists()
        began = time.monotonic()
        await gateway.start()
        await devices.told_more(gateway.said)
        recovery_s = time.monotonic() - began
        audited = await settle(gateway, devices)
    tell("5", f"every fdatasync fails with EIO, over {STARTS} starts", audited, recovery_s)


@pytest.fixture
def card(tmp_path: Path) -> Iterator["Card"]:
    card = Card(tmp_path)
    try:
        card.mount()
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no ext4 in a file here: {error}")
    yield card
    subprocess.run(["umount", "--lazy", card.folder], check=False)


class Card:
    """An ext4 of its own in `data`, that turns read-only at an error as the cards of gateways do."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "data"
        self._image = folder / "image"
        self.folder.mkdir()
        with self._image.open("wb") as file:
            file.truncate(64 << 20)
        subprocess.run(["mkfs.ext4", "-q", "-F", self._image], check=True)

    def mount(self) -> None:
        subprocess.run(["mount", "-o", "loop,errors=remount-ro", self._image, self.folder], check=True)

    def fail(self) -> None:
        source = subprocess.run(
            ["findmnt", "-no", "SOURCE", self.folder], check=True, capture_output=True, text=True
        ).stdout.strip()
        Path(f"/sys/fs/ext4/{Path(source).name}/trigger_fs_error").write_text("1\n")

    def mend(self) -> None:
        """Fails while somebody has a file of it open."""
        subprocess.run(["umount", self.folder], check=True)
        mended = subprocess.run(["fsck.ext4", "-fy", self._image], capture_output=True, check=False)
        assert mended.returncode in (0, 1), mended.stdout
        self.mount()


@needs_root
async def test_a_disk_that_turns_read_only_is_waited_for(
    kafka: KafkaBroker, topic: str, card: Card, tmp_path: Path
) -> None:
    gateway = Gateway(tmp_path, topic, kafka.bootstrap)
    await gateway.start()
    async with at_work(gateway) as devices:
        card.fail()
        assert await gateway.ended() == EXIT_DISK
        told = devices.told
        await gateway.start(live=False)
        waits = "devices are refused until it can"
        await until(lambda: waits in gateway.said(), "it does not say that it waits", gateway.said)
        assert gateway.process.returncode is None
        assert devices.told == told
        card.mend()
        began = time.monotonic()
        gateway.reload()
        await devices.told_more(gateway.said)
        recovery_s = time.monotonic() - began
        audited = await settle(gateway, devices)
    assert gateway.said().count(waits) == 1
    tell("10", "ext4 turns read-only under a running gateway, and is mended", audited, recovery_s)
