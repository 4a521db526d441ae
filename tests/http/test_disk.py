"""What a device reads on a disk that is full, and on one that fails."""

from pathlib import Path
from typing import Any

import apsw

from tests.http.rig import Answer, gateway, post
from tests.queue.full_disk import fill, needs_root, small_disk


class Disk(apsw.VFS):
    """Once it `fails` nothing written on it can be synced any more."""

    def __init__(self) -> None:
        super().__init__("failing-disk", "")
        self.fails = False

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:  # noqa: N802 the names are apsw's
        file = File("", name, flags)
        file.disk = self
        return file


class File(apsw.VFSFile):
    disk: Disk

    def xSync(self, flags: int) -> None:  # noqa: N802
        if self.disk.fails:
            error = apsw.IOError("input/output error")
            error.extendedresult = apsw.SQLITE_IOERR_FSYNC  # type: ignore[attr-defined]
            raise error
        super().xSync(flags)


@needs_root
async def test_on_a_full_disk_nothing_is_accepted_until_there_is_room_again(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 16) as disk:
        async with gateway(disk) as one:
            client = await one.client()
            others = fill(disk)
            accepted: list[bytes] = []
            refused: list[Answer] = []
            while len(refused) < 3:
                body = b"%06d" % len(accepted) + bytes(8000)
                await client.send(post(body))
                answer = await client.answer()
                if answer.status == 200:
                    accepted.append(body)
                else:
                    refused.append(answer)
            assert {(answer.status, answer.headers["retry-after"]) for answer in refused} == {(503, "10")}
            assert {answer.body["detail"] for answer in refused} == {
                "nothing was stored: the disk is full: database or disk is full"
            }
            others.unlink()
            await client.send(post(b"again"))
            while (await client.answer()).status != 200:
                await client.send(post(b"again"))
            assert await one.bodies() == [*accepted, b"again"]


async def test_on_a_disk_that_fails_nothing_is_confirmed(tmp_path: Path) -> None:
    disk = Disk()
    async with gateway(tmp_path) as one:
        await one.stop()
        await one.start(vfs="failing-disk")
        client = await one.client()
        await client.send(post(b"1"))
        assert (await client.answer()).status == 200
        disk.fails = True
        for _ in range(2):
            await client.send(post(b"2"))
            answer = await client.answer()
            assert (answer.status, answer.headers["retry-after"]) == (507, "10")
            assert answer.body["detail"] == "the gateway's disk fails; nothing is confirmed"
        assert one.queue.failed.done()
    disk.unregister()
