"""Damaged files: a start that always succeeds, and tells the truth. `make damage` does more of them."""

import random
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.clock import SystemClock
from gateway.codec import Entry
from gateway.driver import Mark
from gateway.queue import Origin, Queue
from tests.damage import bits, ext4, interrupted
from tests.damage.damage import SILENT, UNKNOWABLE, Kafka, examine, sweep, tell_rows
from tests.damage.victim import (
    LAST_COMMIT,
    SCOPE,
    SHAPE,
    make_victim,
    settings,
)
from tests.damage.wounds import OF_DATABASE, OF_LOG, PAGE, hurt
from tests.queue.full_disk import needs_root
from tests.queue.rig import drain

TIMES = 12
SEED = 2
IMAGES = 400
CASES = 2400
FOUND = (
    "saved:flip:57356:7",
    "saved:flip:57360:4",
    "first:flip:45060:1",
    "first:flip:20466:4",
    "saved:flip:20479:3",
)
"""The first two lead to a copy of a row that is still there, until the next commit writes over it; the third takes two segments from a page;
the others lead past segments that are there."""


@pytest.mark.slow
@pytest.mark.proof
def test_damage_is_survived_and_told() -> None:
    found = sweep(TIMES, SEED)
    assert {wound: one.broken for wound, one in found.items() if one.broken} == {}
    assert set(found) == {*OF_DATABASE, *OF_LOG}
    assert {wound for wound, one in found.items() if one.outcomes[SILENT]} <= set(UNKNOWABLE)
    tell_rows(found, f"make damage N={TIMES} SEED={SEED}")


@pytest.mark.slow
@pytest.mark.proof
def test_one_bit_or_one_page_is_survived_and_told() -> None:
    found = bits.sweep(CASES, SEED)
    assert found.failures == []
    assert set(found.outcomes) == set(bits.Kind)
    bits.tell_rows(found, f"make bits N={CASES} SEED={SEED}")


def test_bits_that_broke_a_promise_once_are_survived_and_told() -> None:
    assert bits.sweep(0, 0, only=[bits.Case.named(name) for name in FOUND]).failures == []


@pytest.mark.parametrize("clean", [True, False])
@pytest.mark.parametrize("note", [b"seen in use", b"", b"\xff\xfe"], ids=["text", "empty", "not text"])
async def test_what_is_set_aside_whole_is_saved_whole(tmp_path: Path, note: bytes, clean: bool) -> None:
    """Records, marks and dead letters. The note may be all that a power cut left of it, or damaged itself."""
    victim = await make_victim(tmp_path, clean)
    (victim.folder / "queue.damaged").write_bytes(note)
    queue = await Queue.open(victim.folder / "queue.db", settings(), SystemClock())
    story = queue.stats().salvage
    assert story is not None
    assert story.damage != ""
    assert queue.recall(SCOPE) == victim.marks
    [letter] = await queue.dead([one.id for one in await queue.dead_list(10)])
    assert letter.entry.value == victim.values[victim.plan.dead - 1]
    assert [value for _, value in await drain(queue)] == list(victim.values[victim.plan.delivered :])
    await queue.close()


@pytest.mark.parametrize("wound", ["database missing", "database empty", "database all zeroes"])
async def test_what_only_the_log_has_is_saved(tmp_path: Path, wound: str) -> None:
    victim = await make_victim(tmp_path, clean=False)
    hurt(victim.folder, wound, random.Random(SEED))
    log = (victim.folder / "queue.db-wal").read_bytes()
    queue = await Queue.open(victim.folder / "queue.db", settings(), SystemClock())
    assert len(await drain(queue)) > LAST_COMMIT
    [kept] = (victim.folder / "quarantine").glob("*/queue.db-wal")
    assert kept.read_bytes() == log
    await queue.close()


@pytest.mark.slow
@pytest.mark.parametrize("wound", [*OF_DATABASE, *OF_LOG])
async def test_damaged_twice_without_a_link_nothing_is_delivered_twice(tmp_path: Path, wound: str) -> None:
    """Kafka's position is the first queue's; the second never told it any."""
    victim = await make_victim(tmp_path / "victim", clean=False)
    hurt(victim.folder, wound, random.Random(SEED))
    once, twice, folder = Kafka.of(victim), Kafka.of(victim), tmp_path / "twice"
    shutil.copytree(victim.folder, folder)
    queue = await Queue.open(folder / "queue.db", settings(), SystemClock())
    await queue.put([Entry(SHAPE, 0, b"new, without a link")])
    twice.acknowledged(b"new, without a link")
    await queue.close()
    (folder / "queue.damaged").write_text("seen in use")
    await examine(victim, victim.folder, once)
    await examine(victim, folder, twice)
    assert {value for _, _, value in twice.main if value not in twice.told} == {
        value for _, _, value in once.main if value not in once.told
    }


async def test_a_branch_that_is_damaged_before_it_sent_delivers_nothing_twice(tmp_path: Path) -> None:
    """It has the numbers of the queue that it parted from, and Kafka knows only that one."""
    victim = await make_victim(tmp_path / "victim", clean=True)
    queue = await Queue.open(victim.folder / "queue.db", settings(), SystemClock())
    await queue.part(Origin("branch", victim.queue_id, {"main": len(victim.values), "ledger": 0}))
    await queue.close()
    (victim.folder / "queue.damaged").write_text("seen in use")
    kafka = Kafka.of(victim)
    parted = replace(victim, queue_id="branch")
    assert await examine(parted, victim.folder, kafka) == ("salvaged", 0, 0)


async def test_marks_on_both_sides_of_a_lost_page_are_kept_and_the_others_told(tmp_path: Path) -> None:
    queue = await Queue.open(tmp_path / "queue.db", settings(), SystemClock())
    marks = [Mark("http", b"%06d" % number, bytes(50), 86_400) for number in range(1000)]
    await queue.put([Entry(SHAPE, 0, b"1")], remember=marks)
    await queue.close()
    file = tmp_path / "queue.db"
    content = bytearray(file.read_bytes())
    page = content.index(b"%06d" % 500) // PAGE * PAGE
    content[page : page + PAGE] = bytes(PAGE)
    file.write_bytes(content)
    queue = await Queue.open(file, settings(), SystemClock())
    kept = sorted(queue.recall("http"))
    assert kept[0] == b"000000"
    assert kept[-1] == b"000999"
    assert len(marks) - 100 < len(kept) < len(marks)
    story = queue.stats().salvage
    assert story is not None
    assert story.unread == ("mark",)
    await queue.close()


@pytest.mark.slow
@pytest.mark.proof
def test_power_goes_while_a_damaged_queue_is_saved() -> None:
    found = interrupted.sweep(IMAGES, str(SEED))
    assert found.failures == []
    assert found.images > IMAGES / 2
    interrupted.tell_row(found, f"make interrupted N={IMAGES} SEED={SEED}")


@pytest.mark.slow
@pytest.mark.proof
@needs_root
def test_a_mounted_ext4_loses_power() -> None:
    assert ext4.run(times=3, seed=1) == []
