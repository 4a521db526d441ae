"""The audit without Kafka: whatever order records come in, it finds what was taken out or put in twice, and no more."""

import json
import math
import random
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.audit.books import Books
from gateway.audit.numbers import Numbers, Range, joined, within, without
from gateway.audit.report import Cause, Clash, Lane, Missing, Report
from gateway.errors import CommandError

NOW_MS = 1_700_000_000_000


def headers(seq: int, queue: str = "q", lane: str = "main", run: str = "r") -> list[tuple[str, bytes]]:
    named = {"tg.gateway": "plant", "tg.queue": queue, "tg.run": run, "tg.lane": lane, "tg.seq": str(seq)}
    return [(key, value.encode()) for key, value in named.items()]


def feed(
    books: Books, numbers: Iterable[int], place: tuple[str, int] = ("t", 0), *, queue: str = "q"
) -> None:
    for seq in numbers:
        books.record(place, NOW_MS, headers(seq, queue))


def position(books: Books, seq: int, queue: str = "q") -> None:
    books.position(f"plant/{queue}/main".encode(), json.dumps({"seq": seq}).encode())


def say(books: Books, kind: str, *, queue: str = "q", **fields: object) -> None:
    body = {"kind": kind, "lane": "main", "time": NOW_MS, **fields}
    books.statement(headers(1, queue, "ledger"), json.dumps(body).encode())


def lane(report: Report, queue: str = "q") -> Lane:
    return next(lane for lane in report.lanes if (lane.queue, lane.lane) == (queue, "main"))


def numbers_of(ranges: Iterable[tuple[Any, ...]]) -> list[int]:
    return [number for first, last, *_ in ranges for number in range(first, last + 1)]


def test_nothing_missing() -> None:
    books = Books("tidegate-ledger")
    position(books, 10)
    feed(books, range(1, 11))
    report = books.findings()
    assert lane(report).complete
    assert lane(report).judged == lane(report).records == 10
    assert report.exit_code == 0


def test_one_taken_out_and_one_put_in_twice() -> None:
    books = Books("tidegate-ledger")
    position(books, 10)
    feed(books, [1, 2, 3, 5, 6, 7, 7, 8, 9, 10])
    report = books.findings()
    assert lane(report).missing == (Missing(4, 4, Cause.UNEXPLAINED, ""),)
    assert lane(report).twice == (Range(7, 7),)
    assert report.exit_code == 1


def test_what_the_ledger_explains_is_no_fault() -> None:
    books = Books("tidegate-ledger")
    position(books, 10)
    say(books, "dropped", first=2, last=4, reason="queue full: oldest dropped")
    say(books, "dead", first=6, last=6, reason="too large")
    feed(books, [1, 5, 7, 8, 10])
    assert lane(books.findings()).missing == (
        Missing(2, 4, Cause.DROPPED, "queue full: oldest dropped"),
        Missing(6, 6, Cause.DEAD, "too large"),
        Missing(9, 9, Cause.UNEXPLAINED, ""),
    )


def test_the_position_says_how_far_a_lane_must_have_come() -> None:
    books = Books("tidegate-ledger")
    position(books, 5)
    feed(books, [1, 2, 3, 7])
    assert lane(books.findings()).missing == (Missing(4, 5, Cause.UNEXPLAINED, ""),)


def test_records_that_wait_for_their_topic_are_not_missing() -> None:
    books = Books("tidegate-ledger")
    value = {"seq": 3, "frontier": 9, "parked": {"no-such-topic": 4}, "beyond": 5}
    books.position(b"plant/q/main", json.dumps(value).encode())
    feed(books, [1, 2, 3, 5, 6, 7, 8, 9])
    found = lane(books.findings())
    assert found.complete
    assert found.notes == ("its records for topic no-such-topic wait from 4 on",)


def test_without_a_position_the_highest_number_counts() -> None:
    books = Books("tidegate-ledger")
    feed(books, [1, 2, 4])
    found = lane(books.findings())
    assert found.missing == (Missing(3, 3, Cause.UNEXPLAINED, ""),)
    assert "no position" in found.notes[0]


def test_a_beginning_deleted_by_retention() -> None:
    books = Books("tidegate-ledger")
    position(books, 9)
    say(books, "topics", topics={"t": 1}, from_seq=1)
    books.lost_beginning(("t", 0), NOW_MS - 1)
    feed(books, [4, 5, 7, 8, 9])
    found = lane(books.findings())
    assert [(missing.first, missing.last, missing.cause) for missing in found.missing] == [
        (1, 3, Cause.EXPIRED),
        (6, 6, Cause.UNEXPLAINED),
    ]


def test_all_deleted_by_retention_leaves_the_position() -> None:
    books = Books("tidegate-ledger")
    position(books, 9)
    books.lost_beginning(("t", 0), NOW_MS)
    assert lane(books.findings()).counts == {Cause.EXPIRED: 9}


def test_a_partition_that_lost_its_beginning_excuses_nothing_young() -> None:
    """Partition 1 holds nothing of this lane any more; what it had was older than number 3."""
    books = Books("tidegate-ledger")
    position(books, 6)
    books.lost_beginning(("t", 1), NOW_MS - 100)
    for seq, age_ms in ((1, 200), (3, 50), (4, 40), (6, 20)):
        books.record(("t", 0), NOW_MS - age_ms, headers(seq))
    found = lane(books.findings())
    assert [(missing.first, missing.cause) for missing in found.missing] == [
        (2, Cause.EXPIRED),
        (5, Cause.UNEXPLAINED),
    ]


def test_a_topic_excuses_only_lanes_that_went_there() -> None:
    books = Books("tidegate-ledger")
    position(books, 3)
    say(books, "topics", topics={"t": 1}, from_seq=1)
    books.lost_beginning(("other", 0), NOW_MS)
    books.compacted("third")
    feed(books, [1, 3])
    assert lane(books.findings()).counts == {Cause.UNEXPLAINED: 1}


def test_a_topic_that_grew_is_worth_a_note() -> None:
    books = Books("tidegate-ledger")
    position(books, 3)
    say(books, "topics", topics={"t": 6, "u": 1}, from_seq=1)
    say(books, "topics", topics={"t": 12}, from_seq=3)
    feed(books, range(1, 4))
    found = lane(books.findings())
    assert found.complete
    (note,) = found.notes
    assert note.startswith("topic t has 12 partitions from record 3 on, and had 6")


def test_a_compacted_topic_may_have_lost_any_record() -> None:
    books = Books("tidegate-ledger")
    position(books, 3)
    say(books, "topics", topics={"t": 1}, from_seq=1)
    books.compacted("t")
    feed(books, [1, 3])
    assert lane(books.findings()).counts == {Cause.EXPIRED: 1}


def test_what_a_damaged_database_lost_is_told_with_its_time_but_for_what_kafka_had() -> None:
    """Kafka's position says 7, so number 6 is not the database's loss; it had 9 already."""
    books = Books("tidegate-ledger")
    position(books, 7, "old")
    lost = [
        {"first": 6, "last": 9, "from_ms": 0, "to_ms": 3_600_000},
        {"first": 12, "last": 12, "from_ms": None, "to_ms": 1 << 55},
    ]
    saved = {"records": 2, "first": 10, "last": 11, "position": 5, "lost": lost, "lost_records": 5, "end": 12}
    story = {
        "queue_id": "old",
        "damage": "bad page",
        "unread": ["mark"],
        "main": saved,
        "ledger": {**saved, "records": 0, "lost": []},
    }
    say(books, "salvage", queue="new", **story)
    say(books, "dropped", queue="new", of_queue="old", first=8, last=8, reason="queue full")
    feed(books, [*range(1, 6), 7, 9], queue="old")
    found = lane(books.findings(), "old")
    assert [(one.first, one.last, one.cause) for one in found.missing] == [
        (6, 6, Cause.UNEXPLAINED),
        (8, 8, Cause.DROPPED),
        (12, 12, Cause.DAMAGED),
    ]
    assert found.missing[2].reason == f"stored before {1 << 55} ms, gone with a damaged database"
    assert (
        "5 numbers could not be read, and what was stored behind 12, if anything was, left no trace"
        in found.notes[1]
    )
    assert "a message that a device sends again may be stored twice" in found.notes[0]


def test_a_record_that_two_branches_delivered_is_there_twice() -> None:
    books = Books("tidegate-ledger")
    for queue, last in (("q", 4), ("q.b", 10)):
        position(books, last, queue)
    part(books, "q.b", "q", 4, 8)
    feed(books, [1, 2, 3, 4, 6, 8, 9])
    feed(books, [3, 5, 6, 7, 9, 10], queue="q.b")
    found = lane(books.findings(), "q.b")
    assert [(one.first, one.last) for one in found.twice] == [(3, 3), (6, 6)]


def part(books: Books, queue: str, of: str, through: int, frontier: int | None = None) -> None:
    told = {of: (through, through if frontier is None else frontier)}
    say(books, "parted", queue=queue, of=queue, lanes={"main": told})


def test_a_queue_that_went_on_from_another_is_judged_from_where_they_parted() -> None:
    """An image was put back that held 1 to 6; the first life had delivered 1 to 8."""
    books = Books("tidegate-ledger")
    position(books, 8, "q")
    position(books, 10, "q.b")
    part(books, "q.b", "q", 6)
    feed(books, range(1, 9))
    feed(books, [7, 8, 10], queue="q.b")
    report = books.findings()
    assert lane(report).complete
    assert "goes on behind 6 as queue q.b" in lane(report).notes
    assert numbers_of(lane(report, "q.b").missing) == [9]


def test_beyond_a_closed_topic_each_record_is_in_one_of_the_two_queues() -> None:
    books = Books("tidegate-ledger")
    position(books, 4, "q")
    position(books, 12, "q.b")
    part(books, "q.b", "q", 4, 8)
    feed(books, [1, 2, 3, 4, 6, 8, 9])
    feed(books, [5, 10, 11, 12], queue="q.b")
    assert numbers_of(lane(books.findings(), "q.b").missing) == [7, 9]


def test_what_earlier_queues_did_and_said_beyond_a_closed_topic_counts_for_the_last() -> None:
    """Number 3 was a dead letter of the first queue, 4 of the second; images of before were put back."""
    books = Books("tidegate-ledger")
    for queue, last in (("q", 0), ("q.b", 0), ("q.c", 7)):
        position(books, last, queue)
    part(books, "q.b", "q", 0, 5)
    part(books, "q.c", "q.b", 0, 6)
    feed(books, [2, 7])
    feed(books, [6], queue="q.b")
    feed(books, [1], queue="q.c")
    say(books, "dead", queue="q", first=3, last=3, reason="no key")
    say(books, "dead", queue="q", first=6, last=7, reason="not of what the next queue went on from")
    say(books, "dead", queue="q.b", first=4, last=4, reason="too large")
    missing = lane(books.findings(), "q.c").missing
    assert [(one.first, one.reason) for one in missing] == [(3, "no key"), (4, "too large"), (5, ""), (7, "")]


def test_of_two_queues_with_a_closed_topic_each_between_them_all_is_delivered() -> None:
    """One delivered the even numbers behind 2, the other the odd ones; 9 was nobody's."""
    books = Books("tidegate-ledger")
    for queue, last in (("q", 2), ("q.b", 4), ("q.c", 10)):
        position(books, last, queue)
    say(books, "parted", queue="q.c", of="q.c", lanes={"main": {"q": (2, 10), "q.b": (4, 10)}})
    feed(books, [1, 2, 4, 6, 8, 10])
    feed(books, [1, 2, 3, 4, 5, 7], queue="q.b")
    report = books.findings()
    assert numbers_of(lane(report, "q.c").missing) == [9]
    assert lane(report, "q.c").notes == (
        "its numbers up to 2 are of queue q",
        "its numbers up to 4 are of queue q.b",
    )


def test_what_the_new_queue_says_of_numbers_of_the_old_one_counts_there() -> None:
    books = Books("tidegate-ledger")
    for queue, last in (("q", 10), ("q.b", 12), ("q.c", 14)):
        position(books, last, queue)
    part(books, "q.c", "q.b", 11)
    part(books, "q.b", "q", 8)
    say(books, "dropped", queue="q.c", first=2, last=12, reason="queue full")
    feed(books, [1])
    feed(books, [13, 14], queue="q.c")
    report = books.findings()
    assert [numbers_of(one.missing) for one in report.lanes if one.lane == "main"] == [
        [*range(2, 11)],
        [9, 10, 11, 12],
        [12],
    ]
    assert lane(report).counts == {Cause.DROPPED: 7, Cause.UNEXPLAINED: 2}
    assert lane(report, "q.b").counts == {Cause.DROPPED: 3, Cause.UNEXPLAINED: 1}
    assert lane(report, "q.c").counts == {Cause.DROPPED: 1}


def test_queues_that_claim_to_go_on_from_each_other_end_the_search() -> None:
    books = Books("tidegate-ledger")
    part(books, "a", "b", 3)
    part(books, "b", "a", 3)
    say(books, "dead", queue="a", first=2, last=2, reason="poison")
    assert books.findings().exit_code == 0


def test_a_lost_database_is_told() -> None:
    books = Books("tidegate-ledger")
    position(books, 3, "gone")
    feed(books, [1, 2, 3], queue="gone")
    say(books, "lost", queues={"gone": 3})
    found = lane(books.findings(), "gone")
    assert found.complete
    assert "database is gone" in found.notes[0]


def test_a_database_that_was_taken_for_lost_and_goes_on_is_not_said_to_be_gone() -> None:
    """A second gateway had its id for a while."""
    books = Books("tidegate-ledger")
    say(books, "lost", queues={"alive": 3})
    position(books, 5, "alive")
    feed(books, [1, 2, 3, 4, 5], queue="alive")
    assert lane(books.findings(), "alive").notes == (
        "was taken for gone behind number 3, and is not: its gateway went on",
    )


def test_two_copies_of_a_database_that_both_send() -> None:
    books = Books("tidegate-ledger")
    for seq in (1, 2, 3):
        books.record(("t", 0), NOW_MS, headers(seq, run="first"))
    for seq in (4, 5, 6):
        books.record(("t", 0), NOW_MS, headers(seq, run="original"))
    for seq in (4, 5):
        books.record(("t", 0), NOW_MS, headers(seq, run="copy"))
    found = lane(books.findings())
    assert found.clashes == (Clash("copy", "original", Range(4, 5)),)
    assert not found.sound


def test_records_of_others_are_counted() -> None:
    books = Books("tidegate-ledger")
    books.record(("t", 0), NOW_MS, [])
    books.record(("t", 0), NOW_MS, [("tg.gateway", b"plant"), ("tg.seq", b"many")])
    report = books.findings()
    assert report.foreign == 2
    assert report.lanes == []


@pytest.mark.parametrize("name", ["tg.gateway", "tg.queue", "tg.lane", "tg.run", "tg.seq"])
@pytest.mark.parametrize("value", [None, b"\xff", b"9" * 20, b"9" * 5000, b"0", b"-1", b"1e999"])
def test_a_record_of_anybody_s_making_ends_no_audit(name: str, value: bytes | None) -> None:
    books = Books("tidegate-ledger")
    position(books, 2)
    feed(books, [1, 2])
    forged: dict[str, bytes | None] = {**dict(headers(3)), name: value}
    books.record(("t", 0), NOW_MS, [*forged.items()])
    report = books.findings()
    assert lane(report).complete
    assert report.foreign == (name == "tg.seq" or value in (None, b"\xff"))


DEEP = b"[" * 100_000
HUGE = [b'{"seq": 1e999}', b'{"seq": -1}', b'{"seq": 9223372036854775808}', b'{"seq": ' + b"9" * 5000 + b"}"]


@pytest.mark.parametrize("value", [DEEP, *HUGE, b'{"seq": null}', b'{"seq": 1, "parked": 3}', b"\xff"])
def test_a_position_of_anybody_s_making_is_a_problem(value: bytes) -> None:
    books = Books("tidegate-ledger")
    books.position(b"plant/q/main", value)
    position(books, 2, queue="other")
    feed(books, [1, 2], queue="other")
    report = books.findings()
    assert len(report.problems) == 1
    assert lane(report, "other").complete


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "dead", "first": math.inf, "last": 1, "reason": "r"},
        {"kind": "dead", "first": 1, "last": 1 << 63, "reason": "r"},
        {"kind": "lost", "queues": {"q": "x"}},
        {"kind": "topics", "topics": {"t": math.inf}, "from_seq": 1},
        {"kind": "parted", "of": "q", "lanes": {"main": {"q": [math.inf, 1]}}},
        {"kind": ["dead"]},
    ],
)
def test_a_statement_of_anybody_s_making_is_a_problem(fields: dict[str, object]) -> None:
    books = Books("tidegate-ledger")
    value = json.dumps({"lane": "main", **fields}).encode()
    books.statement(headers(1, lane="ledger"), value)
    assert len(books.findings().problems) == 1


@pytest.mark.parametrize("queue", [None, b"\xff"])
def test_a_statement_of_no_queue_is_a_problem(queue: bytes | None) -> None:
    books = Books("tidegate-ledger")
    books.statement([("tg.queue", queue)], b'{"kind": "note", "lane": "main", "text": "hello"}')
    assert len(books.findings().problems) == 1


def test_names_that_are_none_are_taken_as_text() -> None:
    """Lanes are listed in order, whatever the ledger calls them."""
    books = Books("tidegate-ledger")
    for queue, in_lane, text in ((5, 7, 9), ("q", "main", "t")):
        say(books, "note", of_queue=queue, lane=in_lane, text=text)
    assert [(one.queue, one.lane) for one in books.findings().lanes] == [("5", "7"), ("q", "main")]


def test_json_that_is_nested_too_deeply_is_a_problem() -> None:
    books = Books("tidegate-ledger")
    books.statement(headers(1, lane="ledger"), DEEP)
    assert len(books.findings().problems) == 1


@pytest.mark.parametrize(
    "value", [b"", b"[]", b'{"kind": "dropped", "lane": "main"}', b'{"kind": "lost", "queues": 3}']
)
def test_statements_that_cannot_be_read_are_a_problem(value: bytes) -> None:
    books = Books("tidegate-ledger")
    books.statement(headers(1, lane="ledger"), value)
    books.position(b"no key", value)
    report = books.findings()
    assert len(report.problems) == 2
    assert report.exit_code == 1


def test_memory_is_bounded() -> None:
    books = Books("tidegate-ledger", intervals_max=10_000)
    with pytest.raises(CommandError, match="more than 10000 holes"):
        feed(books, range(1, 200_000, 2))


def test_partitions_read_one_after_the_other_need_little_memory_in_the_end() -> None:
    books = Books("tidegate-ledger")
    position(books, 200_000)
    for partition in range(4):
        feed(books, range(1 + partition, 200_001, 4), ("t", partition))
    report = books.findings()
    assert report.sound
    assert 40_000 < report.intervals < 200_000
    assert report.interval_bytes == 16 * report.intervals


@given(
    total=st.integers(1, 2000),
    partitions=st.integers(1, 5),
    seed=st.integers(0, 1 << 32),
    removed=st.sets(st.integers(1, 2000), max_size=20),
    repeated=st.lists(st.integers(1, 2000), max_size=20),
    dropped=st.lists(st.tuples(st.integers(1, 2000), st.integers(0, 50)), max_size=4),
    behind=st.integers(0, 20),
)
def test_every_interleaving_gives_the_same_findings(
    total: int,
    partitions: int,
    seed: int,
    removed: set[int],
    repeated: list[int],
    dropped: list[tuple[int, int]],
    behind: int,
) -> None:
    """Partitions are read side by side at random, statements come in between; `behind` more than the position says."""
    chance = random.Random(seed)
    told = {number for first, more in dropped for number in range(first, first + more + 1)}
    there = [seq for seq in range(1, total + behind + 1) if seq not in removed | told]
    again = [seq for seq in repeated if seq in set(there)]
    logs: list[list[int]] = [[] for _ in range(partitions)]
    for seq in sorted(there + again):
        chance.choice(logs).append(seq)
    books = Books("tidegate-ledger")
    position(books, total)
    statements = list(dropped)
    while any(logs):
        partition = chance.choice([number for number in range(partitions) if logs[number]])
        count = chance.randint(1, 400)
        feed(books, logs[partition][:count], ("t", partition))
        del logs[partition][:count]
        if statements and chance.random() < 0.5:
            first, more = statements.pop()
            say(books, "dropped", first=first, last=first + more, reason="full")
    for first, more in statements:
        say(books, "dropped", first=first, last=first + more, reason="full")
    found = lane(books.findings())
    by_cause = {
        cause: numbers_of(missing[:2] for missing in found.missing if missing.cause is cause)
        for cause in (Cause.DROPPED, Cause.UNEXPLAINED)
    }
    assert by_cause[Cause.DROPPED] == sorted(seq for seq in told if seq <= total)
    assert by_cause[Cause.UNEXPLAINED] == sorted(seq for seq in removed - told if seq <= total)
    assert numbers_of(found.twice) == sorted(set(again))
    assert found.records == len(there) + len(again)


RANGES = st.lists(
    st.tuples(st.integers(0, 60), st.integers(0, 6)).map(lambda pair: Range(pair[0], sum(pair)))
)


@given(RANGES, RANGES)
def test_sets_of_ranges(left: list[Range], right: list[Range]) -> None:
    one, other = set(numbers_of(left)), set(numbers_of(right))
    assert numbers_of(joined(left)) == sorted(one)
    assert numbers_of(without(joined(left), joined(right))) == sorted(one - other)
    assert numbers_of(within(joined(left), joined(right))) == sorted(one & other)


@given(st.lists(st.integers(1, 40), max_size=200), st.integers(1, 50))
def test_numbers_remember_what_came_again(added: list[int], merge_after: int) -> None:
    numbers = Numbers()
    for count, number in enumerate(added):
        numbers.add(number)
        if count % merge_after == 0:
            numbers.settle()
    assert numbers_of(numbers.ranges()) == sorted(set(added))
    assert numbers_of(numbers.repeated()) == sorted(
        number for number in set(added) if added.count(number) > 1
    )
    assert numbers.highest == max(added, default=0)
