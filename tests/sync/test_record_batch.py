"""Our record batches are what any Kafka client reads, byte for byte what aiokafka would have written."""

from typing import Any

import pytest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c
from hypothesis import given
from hypothesis import strategies as st

from gateway.sync.kafka.batch import CODECS, ProducerBatch
from gateway.sync.record_batch import HEAD, HEAD_BYTES, RecordBatch, template, varint

Record = tuple[int, bytes | None, bytes, list[tuple[str, bytes]], int]
RECORDS = st.lists(
    st.tuples(
        st.integers(0, 1 << 42),
        st.none() | st.binary(max_size=40),
        st.binary(max_size=200),
        st.lists(st.tuples(st.text(max_size=10), st.binary(max_size=100)), max_size=70),
        st.integers(1, 1 << 55),
    ),
    min_size=1,
    max_size=30,
)


def batch_of(records: list[Record], max_bytes: int = 1 << 20) -> RecordBatch:
    batch = RecordBatch(max_bytes)
    for time_ms, key, value, headers, seq in records:
        assert batch.append(time_ms, template(key, headers), value, seq)
    return batch


def read(data: bytes) -> tuple[Any, list[Record]]:
    log = MemoryRecords(data)
    batch: Any = log.next_batch()
    assert batch.validate_crc()
    assert not log.has_next()
    found = [(one.timestamp, one.key, one.value, one.headers[:-1], int(one.headers[-1][1])) for one in batch]
    return batch, found


@given(RECORDS)
def test_it_is_what_aiokafka_would_have_written(records: list[Record]) -> None:
    theirs = DefaultRecordBatchBuilder(2, 0, 1, 77, 3, 500, 1 << 24)
    for offset, (time_ms, key, value, headers, seq) in enumerate(records):
        theirs.append(offset, time_ms, key, value, [*headers, ("tg.seq", b"%d" % seq)])
    ours = batch_of(records).encode((77, 3), 500, None, True, calc_crc32c)
    expected = bytes(theirs.build())
    epoch = slice(12, 16)  # the leader's: the broker writes it
    assert ours[: epoch.start] == expected[: epoch.start]
    assert ours[epoch.stop :] == expected[epoch.stop :]


@pytest.mark.parametrize("compression", CODECS)
def test_it_is_read_back_with_every_compression(compression: str) -> None:
    records: list[Record] = [
        (1_700_000_000_000 - 40 * number, b"pump", b"20.5" * 20, [("tg.lane", b"main")], number)
        for number in range(1, 500)
    ]
    sent = ProducerBatch(batch_of(records), compression, transactional=True)
    sent._set_producer_state(77, 3, 500)  # noqa: SLF001 as aiokafka calls it
    data = sent._build()  # noqa: SLF001
    batch, found = read(data)
    assert found == records
    assert (batch.producer_id, batch.producer_epoch, batch.base_sequence) == (77, 3, 500)
    assert batch.is_transactional
    assert batch.max_timestamp == 1_700_000_000_000 - 40
    assert sent.size() == len(data)
    assert sent.record_count() == len(records)


def test_what_compression_makes_larger_is_sent_as_it_is() -> None:
    records: list[Record] = [(1, None, b"x", [], 1)]
    data = batch_of(records).encode((1, 0), 0, CODECS["gzip"], False, calc_crc32c)
    assert data[HEAD.size : HEAD.size + 2] == b"\0\0"
    assert read(data)[1] == records


def test_the_first_record_always_fits_and_the_size_is_told_exactly() -> None:
    batch = RecordBatch(HEAD_BYTES + 100)
    shared = template(b"key", [("tg.lane", b"main")])
    assert batch.append(1, shared, bytes(1000), 1)
    assert not batch.append(1, shared, b"", 2)
    assert batch.records == 1
    assert batch.size == len(batch.encode((-1, -1), -1, None, False, calc_crc32c))


@pytest.mark.parametrize(
    ("number", "encoded"),
    [(0, "00"), (-1, "01"), (1, "02"), (-64, "7f"), (64, "8001"), (-(1 << 62), "ff" * 8 + "7f")],
)
def test_varints_are_zigzag(number: int, encoded: str) -> None:
    assert varint(number).hex() == encoded
