"""Every record survives every format, byte for byte."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import export
from gateway.codec import Entry, Shape
from gateway.control.transfer import (
    Imported,
    Origin,
    frame,
    read_frames,
    read_origin,
    read_segment,
    records,
    segment_frame,
)

texts = st.text(max_size=8)
contents = (
    st.binary(max_size=12) | texts.map(str.encode) | st.sampled_from([b"", b"\r\n", b'"', b"\x00", b"\xff"])
)
headers = st.lists(st.tuples(texts, contents), max_size=3).map(tuple)
entries = st.lists(
    st.builds(Entry, st.builds(Shape, texts, contents, headers), st.integers(0, 1 << 62), contents),
    max_size=5,
)
origins = st.builds(Origin, texts, texts)


class Target:
    """Takes parts as a gateway does."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.done = 0

    def import_part(self, file: str, start: int, transfer: bytes) -> Imported:
        assert start == self.done
        content = list(received(transfer))
        self.parts.append(transfer)
        self.done += len(content)
        return Imported(self.done, len(content))


def received(transfer: bytes) -> Iterator[tuple[Origin, int, str, Entry]]:
    frames = read_frames([transfer])
    origin = read_origin(next(frames))
    for content in frames:
        for record in records(read_segment(content)):
            yield origin, record.seq, record.run, record.entry


def nothing(done: int) -> None:
    pass


@pytest.mark.parametrize("kind", ["sqlite", "csv", "jsonl"])
@settings(max_examples=40)
@given(origin=origins, found=entries, first=st.integers(1, 1 << 55), run=texts)
def test_a_record_survives(
    tmp_path_factory: pytest.TempPathFactory,
    kind: export.Format,
    origin: Origin,
    found: list[Entry],
    first: int,
    run: str,
) -> None:
    path = tmp_path_factory.mktemp("export") / "file"
    chunks = [frame(origin), *([segment_frame("main", first, run, found)] if found else [])]
    assert export.write(path, kind, chunks, nothing) == len(found)
    file = export.inspect(path, kind, nothing)
    assert file.records == len(found)
    target = Target()
    assert export.send(path, kind, file, target, nothing) == len(found)
    arrived = [one for part in target.parts for one in received(part)]
    assert arrived == [(origin, first + index, run, entry) for index, entry in enumerate(found)]


def test_parts_are_small_and_of_one_origin(tmp_path: Path) -> None:
    shape = Shape("t", b"k", ())
    big = [Entry(shape, 1, bytes(200_000)) for _ in range(5)]
    many = [Entry(shape, 1, b"x") for _ in range(2500)]
    gap = segment_frame("main", 9000, "r", many[:3])
    path = tmp_path / "records.jsonl"
    export.write(
        path,
        "jsonl",
        [
            frame(Origin("g", "q")),
            segment_frame("main", 1, "r", big),
            segment_frame("main", 6, "r", many),
            gap,
        ],
        nothing,
    )
    target = Target()
    file = export.inspect(path, "jsonl", nothing)
    assert export.send(path, "jsonl", file, target, nothing) == 2508
    sizes = [[entry.value for *_, entry in received(part)] for part in target.parts]
    assert all(
        len(part) <= export.PART_RECORDS and sum(map(len, part)) <= export.PART_BYTES for part in sizes
    )
    assert [seq for part in target.parts for _, seq, *_ in received(part)] == [
        *range(1, 2506),
        9000,
        9001,
        9002,
    ]


def test_parts_are_small_also_where_headers_are_large(tmp_path: Path) -> None:
    entries = [Entry(Shape("t", b"k", (("h", bytes(50_000)),)), 1, b"x")] * 50
    path = tmp_path / "records.jsonl"
    export.write(path, "jsonl", [frame(Origin("g", "q")), segment_frame("main", 1, "r", entries)], nothing)
    target = Target()
    assert export.send(path, "jsonl", export.inspect(path, "jsonl", nothing), target, nothing) == 50
    assert [len(list(received(part))) for part in target.parts] == [10] * 5


def test_parts_that_are_in_already_are_not_sent_again(tmp_path: Path) -> None:
    shape = Shape("t", b"k", ())
    path = tmp_path / "records.jsonl"
    whole = segment_frame("main", 1, "r", [Entry(shape, 1, b"x")] * 2500)
    export.write(path, "jsonl", [frame(Origin("g", "q")), whole], nothing)

    class HasAll(Target):
        def import_part(self, file: str, start: int, transfer: bytes) -> Imported:
            self.parts.append(transfer)
            return Imported(2500, 0)

    target = HasAll()
    assert export.send(path, "jsonl", export.inspect(path, "jsonl", nothing), target, nothing) == 0
    assert len(target.parts) == 1
