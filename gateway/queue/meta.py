"""What a queue knows by name, each value with a checksum: SQLite's pages have none, and who this queue is hangs on it."""

from collections.abc import Iterable, Iterator, Sequence
from zlib import crc32

import apsw

SUM_DIGITS = 8


def put(database: apsw.Connection, key: str, value: str) -> None:
    database.execute("INSERT OR REPLACE INTO meta VALUES(?,?)", (key, _sum(key, value) + value))


def sound(rows: Iterable[Sequence[object]]) -> Iterator[tuple[str, str]]:
    """(key, value) of those whose checksum is right."""
    for key, stored in rows:
        if isinstance(key, str) and isinstance(stored, str):
            value = stored[SUM_DIGITS:]
            if stored[:SUM_DIGITS] == _sum(key, value):
                yield key, value


def load(database: apsw.Connection) -> dict[str, str]:
    """Raises apsw.CorruptError."""
    rows = database.execute("SELECT key,value FROM meta").fetchall()
    values = dict(sound(rows))
    if len(values) < len(rows):
        raise apsw.CorruptError("a row of table meta can't be read")
    return values


def _sum(key: str, value: str) -> str:
    return f"{crc32(f'{key}={value}'.encode()):0{SUM_DIGITS}x}"
