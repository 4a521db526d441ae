"""Any body is records or a Problem, and records are what was sent."""

import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.http import protocol
from drivers.http.protocol import Problem

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
spaces = st.text(" \t\r\n", max_size=3)


@given(st.lists(values, max_size=5), spaces, st.booleans())
def test_an_array_s_elements_are_records(records: list[object], space: str, ascii_only: bool) -> None:
    texts = [json.dumps(record, ensure_ascii=ascii_only) for record in records]
    body = f"{space}[{space}{f'{space},{space}'.join(texts)}{space}]{space}".encode(errors="surrogatepass")
    try:
        found, batch = protocol.split(body, b"application/json; charset=utf-8")
    except Problem as problem:
        assert b"\xed" in body  # lone surrogates are no UTF-8
        assert problem.status == 400
        return
    assert batch
    assert found == [text.encode() for text in texts]


@given(st.lists(values, max_size=5))
def test_lines_are_records(records: list[object]) -> None:
    texts = [json.dumps(record) for record in records]
    found, _ = protocol.split("\r\n\n".join([*texts, ""]).encode(), b"application/x-ndjson")
    assert found == [text.encode() for text in texts]


@pytest.mark.fault("input", "random bodies")
@given(
    st.binary(max_size=200) | st.text('[]{}",:0123456789.eE+-\\ \n', max_size=60).map(str.encode),
    st.sampled_from([b"application/json", b"application/x-ndjson", b"", b"text/plain"]),
)
def test_any_body_is_records_or_a_problem(body: bytes, content_type: bytes) -> None:
    try:
        records, _ = protocol.split(body, content_type)
    except Problem as problem:
        assert problem.status in (400, 413)
        return
    for record in records:
        assert record in body
        if "json" in content_type.decode():
            json.loads(record)


@pytest.mark.fault("input", "random and endless gzip")
@given(st.binary(max_size=300))
def test_any_gzip_is_inflated_or_a_problem(body: bytes) -> None:
    assert protocol.inflate(gzip.compress(body), 300) == body
    try:
        protocol.inflate(body, 300)
    except Problem as problem:
        assert problem.status in (400, 413)


@pytest.mark.fault("input", "random paths")
@given(st.binary(max_size=60))
def test_any_path_is_a_channel_or_a_problem(target: bytes) -> None:
    try:
        found = protocol.channel(protocol.PREFIX + protocol.path(target))
    except Problem as problem:
        assert problem.status in (400, 414)
        return
    assert not set(found) & set("+#\0")


@given(st.binary(max_size=300))
def test_any_idempotency_key_is_one_or_a_problem(value: bytes) -> None:
    try:
        assert 0 < len(protocol.idempotency_key(value)) <= protocol.KEY_BYTES_MAX
    except Problem as problem:
        assert problem.status == 400
