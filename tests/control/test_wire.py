"""Typed data survives JSON."""

import json

from hypothesis import given
from hypothesis import strategies as st

from gateway.codec import Entry, Shape
from gateway.control.contents import Contents
from gateway.control.wire import StoredRecord, from_json, record_from_json, record_to_json, to_json
from gateway.queue import LaneStats, QueueStats

names = st.text(max_size=5)
headers = st.lists(st.tuples(names, st.binary(max_size=5)), max_size=3).map(tuple)
shapes = st.builds(Shape, names, st.none() | st.binary(max_size=5), headers)
stored = st.builds(
    StoredRecord,
    st.sampled_from(["main", "ledger"]),
    st.integers(0, 1 << 56),
    names,
    st.builds(Entry, shapes, st.integers(-(1 << 40), 1 << 50), st.binary(max_size=20)),
)


@given(stored)
def test_any_record(record: StoredRecord) -> None:
    assert record_from_json(json.loads(json.dumps(record_to_json(record)))) == record


def test_nested_dataclasses() -> None:
    lane = LaneStats(5, 5, 1, 4, 400, 1, 0, 0)
    contents = Contents(
        "q", QueueStats({"main": lane}, 1, 2, 3, 4, 0.5, None, "full"), {"main": 9, "ledger": None}
    )
    assert from_json(Contents, json.loads(json.dumps(to_json(contents)))) == contents
