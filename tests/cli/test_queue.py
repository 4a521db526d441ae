"""Looking into the queue, and its records' way through files into another gateway."""

import asyncio
import json
import os
import pty
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from gateway.cli.queue import TWICE
from gateway.codec import Entry
from gateway.errors import CommandError
from gateway.limits import EMIT_RECORDS_MAX
from gateway.record import Record
from gateway.sync.memory import Memory, Place
from gateway.testing.gateway import FakeGateway
from tests.cli.conftest import CONFIGURATION, Run, start

FORMATS = ("db", "csv", "jsonl")


def odd_records(count: int) -> list[Record]:
    bodies = (
        b'{"n": %d}',
        b'line\r\nline \xc3\xa9 "quoted", %d',
        b"\xff\x00\x80 %d",
        b"zero \x00 byte %d",
        b"",
    )
    made = []
    for number in range(count):
        body = bodies[number % len(bodies)]
        made.append(
            Record("a/b", f"press-{number % 3}", body % number if b"%" in body else body, 1000 + number)
        )
    return made


async def filled(folder: Path, count: int) -> None:
    gateway = await FakeGateway.open(folder)
    records = odd_records(count)
    for at in range(0, count, EMIT_RECORDS_MAX):
        await gateway.accept("floor", records[at : at + EMIT_RECORDS_MAX])
    await gateway.queue.close()


async def entries(folder: Path) -> list[Entry]:
    gateway = await FakeGateway.open(folder)
    segments = await gateway.queue.peek("main", 0, 1_000_000, 1 << 30)
    await gateway.queue.close()
    return [Entry(*entry) for segment in segments for entry in segment.entries]


@pytest.fixture
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another gateway's folder; it has run once."""
    folder = tmp_path_factory.mktemp("other")
    (folder / "tidegate.toml").write_text(CONFIGURATION.replace("plant-7", "plant-8"))
    (folder / "data").mkdir()
    return folder


@pytest.mark.slow
async def test_peek_shows_the_beginning_of_a_long_value_and_its_length(site: Path, tidegate: Run) -> None:
    gateway = await FakeGateway.open(site / "data")
    await gateway.accept("floor", [Record("a", "b", b"\xff" * 3000, 0), Record("a", "b", b"x" * 100, 0)])
    await gateway.queue.close()
    short, full = await tidegate("queue", "peek"), await tidegate("queue", "peek", "--full")
    flat = "".join(short.out.split())
    assert f"0x{'ff' * 49}...(3,000bytes)" in flat
    assert f"{'x' * 100}" in flat
    assert full.out.count("f") >= 6000


@pytest.mark.slow
async def test_the_queue_is_the_same_with_and_without_a_running_gateway(
    site: Path, gateway: FakeGateway, tidegate: Run, other: Path
) -> None:
    await gateway.accept("floor", odd_records(5))
    await filled(other / "data", 5)
    for folder in (site, other):
        ls = await tidegate("queue", "ls", folder=folder)
        peek = await tidegate("queue", "peek", "--after", "1", "-n", "3", folder=folder)
        as_json = await tidegate("queue", "peek", "-n", "2", "--json", folder=folder)
        assert [line.split()[:2] for line in ls.out.splitlines()[1:]] == [["ledger", "0"], ["main", "5"]]
        assert [line.split()[0] for line in peek.out.splitlines()[1:]] == ["2", "3", "4"]
        assert "0xff0080" in peek.out
        shown = [json.loads(line)["value"] for line in as_json.out.splitlines()]
        assert shown == ['{"n": 0}', 'line\r\nline é "quoted", 1']


@pytest.mark.slow
@pytest.mark.parametrize("suffix", FORMATS)
async def test_an_export_goes_into_another_gateway_once_and_whole(
    site: Path, other: Path, tidegate: Run, suffix: str
) -> None:
    await filled(site / "data", 2500)
    await filled(other / "data", 1)
    file = site / f"records.{suffix}"
    exported = await tidegate("queue", "export", file)
    assert exported == (0, f"2,500 records in {file}\n", f"{TWICE}\n")
    assert "arrive twice" in TWICE
    assert len(await entries(site / "data")) == 2500  # an export takes nothing
    first = await tidegate("queue", "import", file, folder=other)
    assert first == (0, f"2,500 records imported from {file}\n", "")
    again = await tidegate("queue", "import", file, folder=other)
    assert again == (0, f"0 records imported from {file}; 2,500 were in already\n", "")
    before, after = await entries(site / "data"), (await entries(other / "data"))[1:]
    for number, (old, new) in enumerate(zip(before, after, strict=True), 1):
        *kept, (name, origin) = new.shape.headers
        assert new._replace(shape=new.shape._replace(headers=tuple(kept))) == old
        gateway_id, _, lane, seq = origin.decode().split("/")
        assert (name, gateway_id, lane, seq) == ("tg.imported", "plant-7", "main", str(number))


@pytest.mark.slow
async def test_an_exported_database_can_be_read_by_anybody(site: Path, tidegate: Run) -> None:
    await filled(site / "data", 5)
    await tidegate("queue", "export", "records.sqlite")
    with closing(sqlite3.connect(site / "records.sqlite")) as database:
        rows = database.execute(
            "SELECT seq,device,channel,topic,key,value,time FROM records ORDER BY seq"
        ).fetchall()
    assert rows[0] == (
        1,
        "press-0",
        "a/b",
        "telemetry",
        "press-0",
        '{"n": 0}',
        "1970-01-01T00:00:01.000+00:00",
    )
    assert [row[5] for row in rows[2:]] == [b"\xff\x00\x80 2", b"zero \x00 byte 3", ""]


@pytest.mark.slow
async def test_an_interrupted_import_goes_on_where_it_stopped(site: Path, other: Path, tidegate: Run) -> None:
    await filled(site / "data", 20_000)
    await filled(other / "data", 0)
    await tidegate("queue", "export", "records.jsonl")
    importing = await start(other, "queue", "import", site / "records.jsonl")
    async with asyncio.timeout(60):
        while _size(other / "data/queue.db-wal") < 200_000:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    importing.kill()
    await importing.communicate()
    had = len(await entries(other / "data"))
    assert 0 < had < 20_000
    finished = await tidegate("queue", "import", site / "records.jsonl", folder=other)
    assert (
        finished.out
        == f"{20_000 - had:,} records imported from {site}/records.jsonl; {had:,} were in already\n"
    )
    assert values(await entries(other / "data")) == values(await entries(site / "data"))


def values(found: list[Entry]) -> list[bytes]:
    return [entry.value for entry in found]


def parts(folder: Path) -> list[Path]:
    return list(folder.rglob("*.part"))


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


@pytest.mark.slow
async def test_export_and_import_through_a_running_gateway(
    site: Path, gateway: FakeGateway, other: Path, tidegate: Run
) -> None:
    await filled(other / "data", 3000)
    exported = await tidegate("queue", "export", "records.csv", folder=other)
    assert exported.code == 0
    imported = await tidegate("queue", "import", other / "records.csv")
    assert imported.out.startswith("3,000 records imported")
    assert gateway.queue.stats().lanes["main"].stored == 3000
    await tidegate("queue", "export", "back.db")
    own = await tidegate("queue", "import", "back.db")
    assert own.code == 64
    assert "back.db came out of this very queue" in own.err


@pytest.mark.slow
async def test_what_is_no_export_is_told_and_leaves_no_trace(site: Path, other: Path, tidegate: Run) -> None:
    await filled(site / "data", 3)
    await tidegate("queue", "export", "good.jsonl")
    good = (site / "good.jsonl").read_text()
    files = {
        "there.is.none.db": None,
        "what.txt": "x",
        "noise.db": "noise" * 1000,
        "empty.db": "",
        "cut.jsonl": good[:-30],
        "other.jsonl": '{"a": 1}\n',
        "other.csv": "a,b\n1,2\n",
        "bad.jsonl": good.replace('"seq": 2', '"seq": "two"'),
    }
    for name, content in files.items():
        if content is not None:
            (site / name).write_text(content)
    ends = await asyncio.gather(*(tidegate("queue", "import", name) for name in files))
    told = {
        name: (end.code, end.err.removeprefix("tidegate: ").strip())
        for name, end in zip(files, ends, strict=True)
    }
    assert told["there.is.none.db"] == (66, "there.is.none.db: there is no such file")
    assert told["what.txt"][0] == 64
    assert told["noise.db"] == (66, "noise.db: file is not a database")
    assert told["empty.db"][0] == 66
    assert told["cut.jsonl"][0] == 65
    assert told["cut.jsonl"][1].startswith("cut.jsonl: record 3 can't be read:")
    assert told["other.jsonl"] == (65, "other.jsonl: record 1 has no 'gateway_id'")
    assert told["other.csv"] == (65, "other.csv: record 1 has no 'headers'")
    assert told["bad.jsonl"][1].startswith("bad.jsonl: record 2 can't be read:")
    exists = await tidegate("queue", "export", "good.jsonl")
    assert (exists.code, exists.err) == (
        73,
        "tidegate: good.jsonl exists already; an export makes a new file\n",
    )
    await tidegate("queue", "export", "not/there.db")
    assert parts(site) == []


@pytest.mark.slow
async def test_an_export_onto_a_full_disk_leaves_no_file(site: Path, tidegate: Run) -> None:
    await filled(site / "data", 3)
    for suffix in FORMATS:
        (site / f"x.{suffix}.part").mkdir()  # as little can be written there
        end = await tidegate("queue", "export", f"x.{suffix}")
        assert end.code == 73
        assert "Traceback" not in end.err
        assert not (site / f"x.{suffix}").exists()


@pytest.mark.slow
async def test_long_work_shows_its_progress_on_a_terminal_only(site: Path) -> None:
    await filled(site / "data", 5000)
    terminal, end = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        "tidegate", "queue", "export", "records.jsonl", cwd=site, stderr=end, stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "TERM": "xterm", "PATH": f"{Path(os.sys.executable).parent}:{os.environ['PATH']}"},  # type: ignore[attr-defined]
    )  # fmt: skip
    os.close(end)
    out, _ = await process.communicate()
    shown = os.read(terminal, 1 << 16).decode()
    os.close(terminal)
    assert out.decode() == "5,000 records in records.jsonl\n"
    assert "exporting" in shown
    assert "5000" in shown


@pytest.mark.slow
async def test_dead_letters(site: Path, gateway: FakeGateway, tidegate: Run) -> None:
    await gateway.accept("floor", odd_records(3))
    (segment,) = await gateway.queue.peek("main", 0, 10, 1000)
    for seq, entry in enumerate(segment.entries, 1):
        await gateway.queue.bury("main", seq, entry, "the record is too large")
    gateway.queue.advance("main", 3, delivered=0)
    text, as_json = await asyncio.gather(
        tidegate("queue", "dead", "ls"), tidegate("queue", "dead", "ls", "--json")
    )
    assert text.out.count("the record is too large") == 3
    assert [json.loads(line)["seq"] for line in as_json.out.splitlines()] == [1, 2, 3]
    shown = await tidegate("queue", "dead", "show", "2")
    assert json.loads(shown.out)["value"] == segment.entries[1].value.decode()
    missing = await tidegate("queue", "dead", "show", "77")
    assert (missing.code, missing.err) == (66, "tidegate: there is no such dead letter\n")
    both, none = await asyncio.gather(
        tidegate("queue", "dead", "retry", "1", "--all"), tidegate("queue", "dead", "retry")
    )
    assert both.code == none.code == 64
    one = await tidegate("queue", "dead", "retry", "2", "77")
    assert (one.code, one.out) == (66, "1 records wait for Kafka again\n")
    assert "1 dead letters could not be sent again: no such id" in one.err
    rest = await tidegate("queue", "dead", "retry", "--all")
    assert rest == (0, "2 records wait for Kafka again\n", "")
    assert (await tidegate("queue", "dead", "ls")).out == "No dead letters.\n"


async def test_a_dead_letter_that_there_is_not_has_one_exit_code(site: Path, tidegate: Run) -> None:
    """Without a gateway; with one `test_dead_letters` has it."""
    await filled(site / "data", 1)
    shown = await tidegate("queue", "dead", "show", "77")
    assert shown == (66, "", "tidegate: there is no such dead letter\n")
    assert (await tidegate("queue", "dead", "retry", "77")).code == 66


@pytest.mark.slow
async def test_adopt_is_told_to_a_running_gateway_or_kept_for_the_next(
    site: Path, gateway: FakeGateway, other: Path, tidegate: Run
) -> None:
    assert (await tidegate("adopt", "--assume", "lost")).out == "Agreed; it counts now.\n"
    assert (await tidegate("adopt")).code == 0
    assert gateway.adopted == ["lost", None]
    gateway.nothing_to_decide = CommandError("records are being delivered: there is nothing to decide", 65)
    refused = await tidegate("adopt")
    assert refused == (65, "", "tidegate: records are being delivered: there is nothing to decide\n")
    await filled(other / "data", 1)
    kept = await tidegate("adopt", "--assume", "delivered", folder=other)
    assert kept.out == "Agreed; it counts when the gateway runs again.\n"
    again = await FakeGateway.open(other / "data")
    assert json.loads(again.queue.load("sync.adoption") or "")[0] == "delivered"
    await again.queue.close()
    assert (await tidegate("adopt", "--assume", "perhaps")).code == 2


async def test_a_fork_of_what_is_no_copy_is_refused_at_once(site: Path, tidegate: Run) -> None:
    """It was noted, and held the gateway from its next start on."""
    own = await FakeGateway.open(site / "data")
    await Memory(own.queue).set_hardware_id("balena:a")
    await Memory(own.queue).set_place(Place("cluster", "plant-1", "tidegate-positions", "exactly_once"))
    await own.queue.close()
    code, out, err = await tidegate("fork", BALENA_DEVICE_UUID="a")
    assert (code, out) == (65, "")
    assert "this database is this board's own" in err
    copied = await tidegate("fork", BALENA_DEVICE_UUID="b")
    assert (copied.code, copied.out) == (
        0,
        "This gateway is its own; it counts when the gateway runs again.\n",
    )
