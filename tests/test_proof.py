"""The page of proofs keeps what the runs wrote, and shows no loss."""

import json
import resource
from pathlib import Path

import pytest

from tests import proof
from tests.descriptors import both_ends
from tests.proof import Row

CUT = Row("3", "torn", 10, 100, 0, 0, None, "make crash N=10")
KILL = Row("1", "a whole gateway", 3, 5000, 0, 0, 1.25, "make kills N=3")


def test_a_page_is_read_as_it_was_written() -> None:
    rows = {(row.fault, row.what): row._replace(recovery_s=row.recovery_s and 1.2) for row in (CUT, KILL)}
    assert proof.written(proof.page(rows)) == rows
    assert "(2): no run has written a row yet" in proof.page(rows)


def test_a_link_that_was_back_too_late_is_marked() -> None:
    slow = Row("11", "cut", 1, 1, 0, 0, 7.5, "make cuts")
    text = proof.page(
        {("11", "cut"): slow, ("11", "cut shortly"): slow._replace(what="cut shortly", recovery_s=4.9)}
    )
    assert "| 7.5>5 |" in text
    assert "| 4.9 |" in text
    assert proof.written(text)["11", "cut"] == slow


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a run tells; the page is one of its own."""
    monkeypatch.setattr(proof, "PAGE", tmp_path / "PROOF.md")
    return tmp_path / "told"


def test_rows_of_a_run_are_added_up_and_stay_beside_those_before(
    told: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROOF", str(told))
    proof.tell(CUT)
    proof.tell(KILL)
    proof.tell(KILL._replace(recovery_s=0.5))
    proof.main(told)
    told.write_text(json.dumps(CUT._replace(times=11)))
    proof.main(told)
    rows = proof.written(proof.PAGE.read_text())
    assert rows["3", "torn"].times == 11
    assert rows["1", "a whole gateway"] == KILL._replace(times=6, acknowledged=10_000, recovery_s=1.2)


@pytest.mark.parametrize(
    ("later", "shown"),
    [
        (CUT._replace(times=9), CUT),
        (CUT._replace(acknowledged=90), CUT._replace(acknowledged=90)),
        (CUT._replace(times=9, lost=1), CUT._replace(times=9, lost=1)),
        (CUT._replace(times=9, twice=1), CUT._replace(times=9, twice=1)),
    ],
)
def test_a_shorter_run_replaces_a_longer_one_only_if_something_went_wrong(
    later: Row, shown: Row, told: Path
) -> None:
    for row in (CUT, later):
        told.write_text(json.dumps(row))
        proof.main(told)
    assert proof.written(proof.PAGE.read_text()) == {("3", "torn"): shown}


def test_a_run_that_was_not_asked_writes_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("PROOF", raising=False)
    monkeypatch.chdir(tmp_path)
    proof.tell(CUT)
    assert list(tmp_path.iterdir()) == []


def test_a_low_limit_of_descriptors_makes_no_row_smaller_where_it_may_be_raised() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    low = (1024, before[1])
    resource.setrlimit(resource.RLIMIT_NOFILE, low)
    try:
        with both_ends(1000) as count:
            assert count == 1000
            assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 2 * count
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == low
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_fault_without_a_heading_is_refused() -> None:
    with pytest.raises(KeyError):
        proof.tell(CUT._replace(fault="99"))


def test_nothing_acknowledged_was_lost_or_came_twice() -> None:
    rows = proof.written(proof.PAGE.read_text()).values() if proof.PAGE.exists() else []
    assert [row for row in rows if row.lost or row.twice] == []
