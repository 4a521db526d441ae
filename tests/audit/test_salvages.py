"""Records saved from a damaged database have new numbers: the audit looks for them under the old ones."""

from pathlib import Path

import pytest

from gateway.audit.books import Books
from gateway.audit.report import Cause, Missing, Report
from gateway.queue.quarantine import Quarantine
from gateway.queue.state import StorageDamaged
from gateway.testing.sink import Fault
from tests.audit.test_books import NOW_MS, feed, lane, part, position, say
from tests.sync.world import World, quick


def salvage(
    books: Books,
    old: str,
    new: str,
    first: int,
    last: int,
    *lost: tuple[int, int],
    untold: int = 0,
) -> None:
    """Of `old`, `first` to `last` but what was lost were saved, as 1 and on of `new`; of `untold` more that were lost
    the statement doesn't say which."""
    gone = sum(to - begin + 1 for begin, to in lost) + untold
    ranges = [{"first": begin, "last": to, "from_ms": 0, "to_ms": 1000} for begin, to in lost]
    counts = {"records": last - first + 1 - gone, "lost_records": gone, "end": last}
    saved = {**counts, "first": first, "last": last, "position": first - 1, "lost": ranges}
    none: dict[str, object] = {
        "records": 0,
        "lost_records": 0,
        "end": 0,
        "first": None,
        "last": None,
        "lost": [],
    }
    say(books, "salvage", queue=new, queue_id=old, damage="bad page", unread=[], main=saved, ledger=none)


def missing_of(report: Report, queue: str) -> list[tuple[int, int, Cause]]:
    return [(one.first, one.last, one.cause) for one in lane(report, queue).missing]


def test_a_salvaged_queue_goes_on_where_the_damaged_one_ended() -> None:
    """The old queue delivered 1 to 7; its numbers 6 to 9 were saved as 1 to 4, of which 1 and 2 were never sent."""
    books = Books("tidegate-ledger")
    position(books, 7, "old")
    position(books, 6, "new")
    salvage(books, "old", "new", 6, 9)
    feed(books, range(1, 8), queue="old")
    feed(books, [3, 5, 6], queue="new")
    report = books.findings()
    assert lane(report, "old").complete
    assert "go on as 1 to 4 of queue new" in lane(report, "old").notes[1]
    assert [(missing.first, missing.last, missing.cause) for missing in lane(report, "new").missing] == [
        (1, 2, Cause.SALVAGED),
        (4, 4, Cause.UNEXPLAINED),
    ]


def test_a_saved_record_that_neither_queue_delivered_is_missing() -> None:
    """The old queue delivered 1 to 5, its numbers 6 to 9 were saved as 1 to 4, and of those only 3 and 4 came."""
    books = Books("tidegate-ledger")
    position(books, 5, "old")
    position(books, 4, "new")
    salvage(books, "old", "new", 6, 9)
    say(books, "salvaged", queue="new", queue_id="old", through=2)
    feed(books, range(1, 6), queue="old")
    feed(books, [3, 4], queue="new")
    report = books.findings()
    assert missing_of(report, "new") == [(1, 2, Cause.UNEXPLAINED)]
    assert report.exit_code == 1


def test_a_saved_record_is_looked_for_under_the_number_that_it_had() -> None:
    """Saved are 6, 9 to 11 and 14 as 1 to 5. Kafka has 9 of the old queue, 11 was a dead letter there."""
    books = Books("tidegate-ledger")
    position(books, 5, "old")
    position(books, 5, "new")
    salvage(books, "old", "new", 6, 14, (7, 8), (12, 13))
    say(books, "dead", queue="new", of_queue="old", first=11, last=11, reason="too large")
    feed(books, [*range(1, 6), 9], queue="old")
    feed(books, [1], queue="new")
    assert lane(books.findings(), "new").missing == (
        Missing(2, 2, Cause.SALVAGED, "delivered by queue old before its database was damaged"),
        Missing(3, 3, Cause.UNEXPLAINED, ""),
        Missing(4, 4, Cause.DEAD, "too large"),
        Missing(5, 5, Cause.UNEXPLAINED, ""),
    )


def test_what_a_damaged_queue_delivered_long_ago_may_be_deleted_there() -> None:
    books = Books("tidegate-ledger")
    position(books, 7, "old")
    position(books, 4, "new")
    say(books, "topics", queue="old", topics={"t": 1}, from_seq=1)
    say(books, "topics", queue="new", topics={"u": 1}, from_seq=1)
    books.lost_beginning(("t", 0), NOW_MS - 1)
    salvage(books, "old", "new", 6, 9)
    feed(books, [3, 4], ("u", 0), queue="new")
    report = books.findings()
    assert missing_of(report, "new") == [(1, 2, Cause.EXPIRED)]
    assert report.exit_code == 0


def test_a_queue_that_was_saved_twice_before_anything_was_sent() -> None:
    """Numbers 6 to 10 of the first queue were 1 to 5 of the second, 2 to 5 of that 1 to 4 of the third."""
    books = Books("tidegate-ledger")
    position(books, 8, "first")
    position(books, 4, "third")
    salvage(books, "first", "second", 6, 10)
    salvage(books, "second", "third", 2, 5)
    feed(books, range(1, 8), queue="first")
    feed(books, [3, 4], queue="third")
    report = books.findings()
    assert lane(report, "third").missing == (
        Missing(1, 1, Cause.SALVAGED, "delivered by queue first before its database was damaged"),
        Missing(2, 2, Cause.UNEXPLAINED, ""),
    )


def test_what_was_saved_of_a_queue_that_went_on_from_another_may_be_that_ones() -> None:
    """Up to 6 the numbers of q.b are of q, up to 9 those that q delivered; 5 to 10 were saved as 1 to 6."""
    books = Books("tidegate-ledger")
    position(books, 6, "q")
    position(books, 7, "q.b")
    position(books, 6, "new")
    part(books, "q.b", "q", 6, 9)
    salvage(books, "q.b", "new", 5, 10)
    feed(books, [*range(1, 7), 9])
    feed(books, [7], queue="q.b")
    feed(books, [6], queue="new")
    assert missing_of(books.findings(), "new") == [
        (1, 3, Cause.SALVAGED),
        (4, 4, Cause.UNEXPLAINED),
        (5, 5, Cause.SALVAGED),
    ]


@pytest.mark.parametrize(
    ("lost", "explained"), [(((9, 9),), [(1, 3, Cause.SALVAGED), (4, 9, Cause.UNEXPLAINED)]), ((), None)]
)
def test_behind_losses_that_are_not_told_nobody_knows_the_old_numbers(
    lost: tuple[tuple[int, int], ...], explained: list[tuple[int, int, Cause]] | None
) -> None:
    books = Books("tidegate-ledger")
    position(books, 20, "old")
    position(books, 9, "new")
    salvage(books, "old", "new", 6, 20, *lost, untold=6 - len(lost))
    feed(books, range(1, 21), queue="old")
    assert missing_of(books.findings(), "new") == (explained or [(1, 9, Cause.UNEXPLAINED)])


def test_without_the_statement_of_the_salvage_nothing_is_explained_by_it() -> None:
    books = Books("tidegate-ledger")
    position(books, 7, "old")
    position(books, 3, "new")
    say(books, "salvaged", queue="new", queue_id="old", through=2)
    feed(books, range(1, 8), queue="old")
    feed(books, [3], queue="new")
    found = lane(books.findings(), "new")
    assert found.missing == (Missing(1, 2, Cause.UNEXPLAINED, ""),)
    assert found.notes == ("of its numbers up to 2, it says, queue old had delivered those that it lacks",)


def test_queues_that_claim_to_be_saved_from_each_other_end_the_search() -> None:
    books = Books("tidegate-ledger")
    position(books, 2, "a")
    salvage(books, "a", "b", 1, 2)
    salvage(books, "b", "a", 1, 2)
    assert missing_of(books.findings(), "a") == [(1, 2, Cause.UNEXPLAINED)]


async def test_what_a_real_queue_and_sync_leave_to_damaged_ones_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kafka has what the disk doesn't know of; then the database is damaged twice, the second time before it is connected."""
    quick(monkeypatch)
    world = World(tmp_path)
    await world.start()
    await world.emit(("alpha", b"k", 100))
    await world.quiet()
    world.cluster.pause()
    world.cluster.faults.append(Fault.UNANSWERED)
    await world.emit(("alpha", b"k", 100), ("beta", b"k", 100))
    await world.until(lambda: len(world.found()) == 3)
    await world.disconnect()
    await world.emit(("alpha", b"k", 100))
    await world.queue.close()
    for connect in (False, True):
        Quarantine(world.folder / "queue.db").suspect(StorageDamaged("seen in use"))
        await world.start(connect=connect)
        if not connect:
            await world.queue.close()
    await world.quiet()
    await world.stop()
    assert len(world.found()) == 4
    world.audit()
