"""The database: its tables, its pragmas and how it is opened. Format version 1."""

import errno
import os
from pathlib import Path

import apsw

from gateway.errors import StorageError, StorageUnwritable
from gateway.queue.permission import not_permitted

FORMAT = 1
SUFFIXES = ("", "-wal", "-shm")
"""Of the database's files."""

LANES = ("main", "ledger")
"""Lane names. The ledger's rows sort first, so that main's inserts go to the right edge of the b-tree."""

IN_WAL_MODE = b"\2\2"
"""Bytes 18 and 19 of the file; with others SQLite takes it for one that it may not write."""

LANE_IDS = {"ledger": 0, "main": 1}
_LANE_SHIFT = 56

# "id" of a segment is lane << 56 | first sequence number: a lane is one range of the primary key, no second index.
TABLES = """
CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL, sum INT NOT NULL) WITHOUT ROWID;
CREATE TABLE lane(name TEXT PRIMARY KEY, next_seq INT NOT NULL, position INT NOT NULL,
    delivered INT NOT NULL, dropped INT NOT NULL, dead INT NOT NULL, sum INT NOT NULL) WITHOUT ROWID;
CREATE TABLE run(id INTEGER PRIMARY KEY, run_id TEXT NOT NULL, boot_id TEXT NOT NULL, wall_ms INT NOT NULL,
    boot_ms INT NOT NULL, main INT NOT NULL, ledger INT NOT NULL, sum INT NOT NULL);
CREATE TABLE segment(id INTEGER PRIMARY KEY, count INT NOT NULL, run INT NOT NULL, size INT NOT NULL,
    wall_ms INT NOT NULL, boot_ms INT NOT NULL, merged INT NOT NULL, sum INT NOT NULL, body BLOB NOT NULL);
CREATE TABLE mark(scope TEXT, key BLOB, value BLOB NOT NULL, expires_s INT NOT NULL, sum INT NOT NULL,
    PRIMARY KEY(scope, key)) WITHOUT ROWID;
CREATE TABLE dead(id INTEGER PRIMARY KEY AUTOINCREMENT, lane TEXT NOT NULL, seq INT NOT NULL, time_ms INT NOT NULL,
    reason TEXT NOT NULL, sum INT NOT NULL, body BLOB NOT NULL, UNIQUE(lane, seq));
CREATE TABLE gap(id INTEGER PRIMARY KEY, lane TEXT NOT NULL, first INT NOT NULL, last INT NOT NULL,
    from_ms INT NOT NULL, to_ms INT NOT NULL, reason TEXT NOT NULL, told INT NOT NULL, sum INT NOT NULL);
CREATE TABLE salvage(lane TEXT NOT NULL, queue_id TEXT NOT NULL, old_first INT NOT NULL, count INT NOT NULL,
    first INT NOT NULL, sum INT NOT NULL);
"""


def segment_id(lane: str, seq: int) -> int:
    return LANE_IDS[lane] << _LANE_SHIFT | seq


def segment_ids(lane: str, first: int = 0) -> tuple[int, int]:
    """The least and the greatest id of the lane's segments that begin with `first` or later."""
    return segment_id(lane, first), segment_id(lane, (1 << _LANE_SHIFT) - 1)


def segment_first(row_id: int) -> int:
    return row_id & ((1 << _LANE_SHIFT) - 1)


def are_numbers(*values: object) -> bool:
    """SQLite keeps anything in any column, also what a flipped bit makes of a number."""
    return all(isinstance(value, int) and 0 <= value < 1 << _LANE_SHIFT for value in values)


def first_page(page_bytes: int) -> bytes:
    """What the first page of any database is, but for what only its writers need."""
    fresh = apsw.Connection(":memory:")
    for statement in (f"PRAGMA page_size={page_bytes}", TABLES, f"PRAGMA user_version={FORMAT}"):
        fresh.execute(statement).fetchall()
    page = bytearray(fresh.serialize("main")[:page_bytes])
    page[18:20] = IN_WAL_MODE
    page[28:32] = bytes(4)  # of how many pages: as many as the file has
    return bytes(page)


def connect(path: Path, page_bytes: int, vfs: str | None = None) -> apsw.Connection:
    """One connection, exclusive, in WAL mode with synchronous=FULL. Raises apsw errors."""
    connection = apsw.Connection(str(path), vfs=vfs)
    try:
        for pragma in (
            f"page_size={page_bytes}",
            "locking_mode=exclusive",
            "journal_mode=wal",
            "synchronous=full",
            "secure_delete=off",
            "wal_autocheckpoint=0",
            "cache_size=-2048",
            "temp_store=memory",
        ):
            connection.execute(f"PRAGMA {pragma}").fetchall()
    except apsw.Error:
        connection.close(True)
        raise
    return connection


def format_of(connection: apsw.Connection) -> int:
    """0 for an empty database. Raises StorageError for one of a later version."""
    version = int(str(connection.execute("PRAGMA user_version").fetchall()[0][0]))
    if version > FORMAT:
        raise StorageError(
            f"the queue has format {version}, this tidegate knows {FORMAT}; install the newer one"
        )
    return version


def unusable(path: Path, error: OSError) -> StorageError:
    if error.errno == errno.EACCES:
        return StorageError(not_permitted(Path(error.filename or path)))
    unwritable = error.errno in (errno.EROFS, errno.ENOSPC, errno.EDQUOT)
    reason = f"{path}: {error.strerror}"
    if error.errno == errno.EROFS and "NOTIFY_SOCKET" in os.environ:  # ProtectSystem= looks the same
        reason += ", or the unit doesn't let it write there (ReadWritePaths=)"
    return (StorageUnwritable if unwritable else StorageError)(reason)


def make_directory(directory: Path) -> None:
    """With those above it; durable when this returns."""
    if not directory.is_dir():
        make_directory(directory.parent)
        directory.mkdir(exist_ok=True)
        sync_directory(directory.parent)


def sync_directory(directory: Path) -> None:
    """Make a created or renamed file's name durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
