"""Records of a queue as a file that anybody can read: SQLite, CSV or JSON lines, one row a record; and back again.

Text is text wherever bytes are UTF-8; else SQLite holds a BLOB, CSV and JSON lines a column `..._base64`. All three
hold every byte, so that any of them can be imported; only CSV doesn't tell an absent key, which no device's record has,
from an empty one.
"""

import csv
import hashlib
import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import sqlite_utils

from gateway.control.transfer import (
    BadTransfer,
    Imported,
    Origin,
    frame,
    read_frames,
    read_origin,
    read_segment,
    records,
    segment_frame,
    size,
)
from gateway.control.wire import StoredRecord, bytes_to_json, record_from_json, record_to_json
from gateway.errors import CommandError

Format = Literal["sqlite", "csv", "jsonl"]
Progress = Callable[[int], None]
"""Called with the number of records done so far."""

SUFFIXES: Mapping[str, Format] = {
    ".db": "sqlite",
    ".sqlite": "sqlite",
    ".sqlite3": "sqlite",
    ".csv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}

TABLE = "records"
ROWS_A_TRANSACTION = 5_000
PROGRESS_RECORDS = 1_000
PART_RECORDS = 1_000
PART_BYTES = 512 << 10

FIELD_CHARS_MAX = 8 << 20


COLUMNS: Mapping[str, type] = {
    "gateway_id": str,
    "queue_id": str,
    "lane": str,
    "seq": int,
    "run": str,
    "time_ms": int,
    "time": str,
    "driver": str,
    "device": str,
    "channel": str,
    "topic": str,
    "key": str,
    "headers": str,
    "value": str,
}
"""`time` to `channel` repeat what `time_ms` and `headers` say, for reading; an import looks at the others only."""

CSV_COLUMNS = (*COLUMNS, "key_base64", "value_base64")


class Row(NamedTuple):
    origin: Origin
    record: StoredRecord


def format_of(path: Path) -> Format:
    """Raises CommandError."""
    try:
        return SUFFIXES[path.suffix.lower()]
    except KeyError:
        raise CommandError(
            f"{path}: what format is this? Name it with one of {', '.join(SUFFIXES)}, or say --format",
            os.EX_USAGE,
        ) from None


def write(path: Path, kind: Format, chunks: Iterable[bytes], progress: Progress) -> int:
    """Write a transfer to a new file; returns the number of records. Raises CommandError; then there is no file."""
    if path.exists():
        raise CommandError(f"{path} exists already; an export makes a new file", os.EX_CANTCREAT)
    part = path.with_name(f"{path.name}.part")
    try:
        part.unlink(missing_ok=True)
        count = _WRITERS[kind](part, _counted(_rows(chunks), progress))
        part.rename(path)
    except (OSError, sqlite3.Error) as error:
        raise CommandError(f"{path}: {error}", os.EX_CANTCREAT) from error
    except BadTransfer as error:
        raise CommandError(f"the export broke off: {error}", os.EX_DATAERR) from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
    return count


def _rows(chunks: Iterable[bytes]) -> Iterator[Row]:
    frames = read_frames(chunks)
    origin = read_origin(next(frames, []))
    for content in frames:
        for record in records(read_segment(content)):
            yield Row(origin, record)


def _counted(rows: Iterable[Row], progress: Progress) -> Iterator[Row]:
    for count, row in enumerate(rows, 1):
        yield row
        if count % PROGRESS_RECORDS == 0:
            progress(count)


def _fields(row: Row) -> dict[str, Any]:
    """As JSON has it, with the columns for reading."""
    origin, record = row
    fields = record_to_json(record)
    told = {header["name"]: header.get("value") for header in fields["headers"]}
    with suppress(ValueError, OverflowError, OSError):
        fields["time"] = datetime.fromtimestamp(fields["time_ms"] / 1000, UTC).isoformat(
            timespec="milliseconds"
        )
    return {
        **origin._asdict(),
        **fields,
        "driver": told.get("tg.driver"),
        "device": told.get("tg.device"),
        "channel": told.get("tg.channel"),
        "headers": json.dumps(fields["headers"], ensure_ascii=False),
    }


def _write_sqlite(path: Path, rows: Iterable[Row]) -> int:
    database = sqlite_utils.Database(path)
    table = database.table(TABLE)
    table.create(dict(COLUMNS), pk=("queue_id", "lane", "seq"))
    count = 0

    def cells() -> Iterator[dict[str, Any]]:
        nonlocal count
        for row in rows:
            fields = _fields(row)
            shape, _, value = row.record.entry
            for name, content in (("key", shape.key), ("value", value)):
                # Many a reader of SQLite ends a text at a zero byte.
                if content is not None and (f"{name}_base64" in fields or b"\0" in content):
                    fields[name] = content
            count += 1
            yield {name: fields.get(name) for name in COLUMNS}

    table.insert_all(cells(), batch_size=ROWS_A_TRANSACTION)
    database.close()
    return count


def _write_csv(path: Path, rows: Iterable[Row]) -> int:
    count = 0
    with path.open("x", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, CSV_COLUMNS, restval="")
        writer.writeheader()
        for row in rows:
            writer.writerow(_fields(row))
            count += 1
    return count


def _write_jsonl(path: Path, rows: Iterable[Row]) -> int:
    count = 0
    with path.open("x", encoding="utf-8") as file:
        for origin, record in rows:
            file.write(json.dumps({**origin._asdict(), **record_to_json(record)}, ensure_ascii=False) + "\n")
            count += 1
    return count


_WRITERS: Mapping[Format, Callable[[Path, Iterable[Row]], int]] = {
    "sqlite": _write_sqlite,
    "csv": _write_csv,
    "jsonl": _write_jsonl,
}


def read(path: Path, kind: Format) -> Iterator[Row]:
    """Rows in the order of the file, by number in SQLite. Raises CommandError."""
    if not path.is_file():
        raise CommandError(f"{path}: there is no such file", os.EX_NOINPUT)
    number = 1
    try:
        for fields in _READERS[kind](path):
            yield Row(Origin(str(fields["gateway_id"]), str(fields["queue_id"])), record_from_json(fields))
            number += 1
    except (OSError, sqlite3.Error) as error:
        raise CommandError(f"{path}: {error}", os.EX_NOINPUT) from error
    except KeyError as error:
        raise CommandError(f"{path}: record {number} has no {error.args[0]!r}", os.EX_DATAERR) from error
    except (ValueError, TypeError, csv.Error) as error:
        raise CommandError(f"{path}: record {number} can't be read: {error}", os.EX_DATAERR) from error


def _read_sqlite(path: Path) -> Iterator[Mapping[str, Any]]:
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
        query = f"SELECT * FROM {TABLE} ORDER BY queue_id, lane, seq"  # noqa: S608 the name is ours
        for fields in sqlite_utils.Database(connection).query(query):
            for name in ("key", "value"):
                if isinstance(fields[name], bytes):
                    fields |= bytes_to_json(name, fields[name])
            yield {**fields, "headers": json.loads(fields["headers"])}


def _read_csv(path: Path) -> Iterator[Mapping[str, Any]]:
    csv.field_size_limit(FIELD_CHARS_MAX)
    with path.open(newline="", encoding="utf-8") as file:
        for fields in csv.DictReader(file):
            encoded = {name: value for name, value in fields.items() if value or not name.endswith("_base64")}
            yield {**encoded, "headers": json.loads(fields["headers"])}


def _read_jsonl(path: Path) -> Iterator[Mapping[str, Any]]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


_READERS: Mapping[Format, Callable[[Path], Iterator[Mapping[str, Any]]]] = {
    "sqlite": _read_sqlite,
    "csv": _read_csv,
    "jsonl": _read_jsonl,
}


class Target(Protocol):
    """Where an import goes: a running gateway's Client, or the LocalQueue."""

    def import_part(self, file: str, start: int, transfer: bytes) -> Imported: ...


class File(NamedTuple):
    """What is in a file: `name` is a hash of its records' numbers, so that it is imported once."""

    name: str
    records: int
    queues: frozenset[str]


def inspect(path: Path, kind: Format, progress: Progress) -> File:
    """Read all of it. Raises CommandError."""
    seen = hashlib.sha256()
    count, queues = 0, set()
    for (gateway_id, queue_id), record in _counted(read(path, kind), progress):
        seen.update(f"{gateway_id}/{queue_id}/{record.lane}/{record.seq}\n".encode())
        queues.add(queue_id)
        count += 1
    return File(seen.hexdigest()[:32], count, frozenset(queues))


def send(path: Path, kind: Format, file: File, target: Target, progress: Progress) -> int:
    """Import what of the file isn't in yet; returns how many records that were. Raises CommandError."""
    start = done = added = 0
    for part in _parts(read(path, kind)):
        end = start + len(part)
        if done < end:
            imported = target.import_part(file.name, start, _transfer(part))
            done, added = imported.done, added + imported.added
        start = end
        progress(start)
    return added


def _parts(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Rows of one origin, few enough for one transaction."""
    part: list[Row] = []
    taken = 0
    for row in rows:
        grown = taken + size(row.record.entry)
        if part and (len(part) == PART_RECORDS or grown > PART_BYTES or row.origin != part[0].origin):
            yield part
            part, grown = [], size(row.record.entry)
        part.append(row)
        taken = grown
    if part:
        yield part


def _transfer(part: Sequence[Row]) -> bytes:
    frames = [frame(part[0].origin)]
    segment: list[StoredRecord] = []
    for _, record in part:
        if segment and record[:3] != (segment[-1].lane, segment[-1].seq + 1, segment[-1].run):
            frames.append(_segment(segment))
            segment = []
        segment.append(record)
    return b"".join([*frames, _segment(segment)])


def _segment(part: Sequence[StoredRecord]) -> bytes:
    return segment_frame(part[0].lane, part[0].seq, part[0].run, [record.entry for record in part])
