"""Rows whose last column is a checksum of the others. SQLite's pages have none, and what is wrong in these is believed."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any
from zlib import crc32

import apsw

KEYS = {
    "meta": "key",
    "lane": "name",
    "mark": "scope,key",
    "salvage": "rowid",
    "run": "id",
    "gap": "id",
}
"""Small tables of such rows, and in what order they lie."""


def put(database: apsw.Connection, table: str, row: Sequence[Any]) -> None:
    places = ",".join("?" * (len(row) + 1))
    database.execute(f"INSERT OR REPLACE INTO {table} VALUES({places})", (*row, checksum(row)))


def load(database: apsw.Connection, table: str, order: str, columns: str = "*") -> list[tuple[Any, ...]]:
    """Without their checksums. Raises apsw.CorruptError if one is wrong."""
    rows: list[Any] = database.execute(f"SELECT {columns} FROM {table} ORDER BY {order}").fetchall()  # noqa: S608 the names are ours
    good = list(sound(rows))
    if len(good) < len(rows):
        raise apsw.CorruptError(f"a row of table {table} can't be read")
    return good


def sound(rows: Iterable[Sequence[Any]]) -> Iterator[tuple[Any, ...]]:
    """Those whose checksum is right, without it: they are what was written."""
    for *row, found in rows:
        if found == checksum(row):
            yield tuple(row)


def checksum(row: Sequence[Any]) -> int:
    return crc32(" ".join(map(str, row)).encode())
