"""A whole gateway whose database is damaged while it is off: saved, delivered, and the audit explains what is missing."""

import asyncio
import contextlib
import json
import os
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.errors import CommandError
from gateway.runtime.process import EXIT_DISK
from gateway.sync import LinkState
from gateway.testing.kafka import KafkaBroker
from gateway.testing.proxy import Proxy
from tests import proof
from tests.damage.wounds import PAGE
from tests.whole.rig import TIDEGATE, WITHIN_S, Gateway, at_work, settle, until

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.proof, pytest.mark.timeout(300)]

PADDING = 500
WAITING = 200
PAGES = 3
FEW = 20


def lose_pages(database: Path) -> None:
    """In the middle, where there is nothing but what devices sent."""
    content = bytearray(database.read_bytes())
    begin = len(content) // PAGE // 2 * PAGE
    content[begin : begin + PAGES * PAGE] = bytes(PAGES * PAGE)
    database.write_bytes(content)


@asynccontextmanager
async def restarted(gateway: Gateway) -> AsyncIterator[None]:
    """As systemd does it: damage may be found by the first process, or only when what is damaged is read."""

    async def supervise() -> None:
        while True:
            assert await gateway.process.wait() == EXIT_DISK, gateway.said()
            await gateway.start(live=False)

    await gateway.start(live=False)
    supervisor = asyncio.create_task(supervise())
    try:
        yield
    finally:
        supervisor.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await supervisor


async def delivered(gateway: Gateway) -> None:
    """All that is stored, whichever process does it."""
    async with asyncio.timeout(WITHIN_S):
        while True:
            with contextlib.suppress(CommandError):
                status = await gateway.status()
                if status.link.state is LinkState.LIVE and status.queue.lanes["main"].pending < FEW:
                    return
            await asyncio.sleep(0.05)


async def audit(gateway: Gateway) -> Counter[str]:
    """Why how many of its records are missing. Of the other tests' gateways in this cluster it may say anything."""
    process = await asyncio.create_subprocess_exec(
        *(TIDEGATE, "audit", "--json"), cwd=gateway.folder, stdout=asyncio.subprocess.PIPE, env=os.environ
    )
    out, _ = await process.communicate()
    ours = [lane for lane in json.loads(out)["lanes"] if lane["gateway"] == gateway.name]
    return sum((Counter(lane["counts"]) for lane in ours), Counter())


async def test_pages_lost_at_rest_cost_what_was_on_them_and_all_of_it_is_told(
    link: Proxy, kafka: KafkaBroker, topic: str, tmp_path: Path
) -> None:
    gateway = Gateway(tmp_path, topic, kafka.bootstrap, link.address)
    await gateway.start()
    async with at_work(gateway, PADDING) as devices:
        await link.cut()
        told = devices.told
        await until(lambda: devices.told > told + WAITING, "nothing is acknowledged", gateway.said)
        gateway.process.terminate()
        await gateway.ended()
        lose_pages(gateway.data / "queue.db")
        async with restarted(gateway):
            recovery_s = await devices.told_more(gateway.said)
            await link.restore()
            await delivered(gateway)
        audited = await settle(gateway, devices)
    missing = await audit(gateway)
    assert missing.keys() <= {"damaged", "dropped", "salvaged"}
    assert 0 < audited.lost <= missing["damaged"] + missing["dropped"] < WAITING
    assert (audited.twice, audited.out_of_order) == (0, 0)
    what = f"{PAGES} pages lost of a gateway's database, and what was on them told by number"
    row = proof.Row("6", what, 1, audited.acknowledged, None, audited.twice, recovery_s, "make proof")
    proof.tell(row)
