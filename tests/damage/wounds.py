"""What can befall files at rest."""

import random
from collections.abc import Callable, Mapping
from pathlib import Path

import apsw

PAGE = 4096
BLOCK = 16 * PAGE
LOG_HEADER = 32
FRAME_HEADER = 24
ROWS = 4
FRAGMENTS = 7
"""Bytes of a page's header: how many rows it has, and of how many bytes between them it says that they are too few for anything."""


def _flip(file: Path, offset: int, rng: random.Random) -> None:
    content = bytearray(file.read_bytes())
    for _ in range(rng.choice((1, 1, 3))):
        content[min(offset, len(content) - 1)] ^= 1 << rng.randrange(8)
        offset += 1
    file.write_bytes(content)


def flip_bit(file: Path, offset: int, bit: int) -> None:
    """Of value `bit`."""
    content = bytearray(file.read_bytes())
    content[offset] ^= bit
    file.write_bytes(content)


def root(database: Path, name: str) -> int:
    """Offset of the first page of a table or index."""
    connection = apsw.Connection(str(database))
    [(page,)] = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name=?", (name,)).fetchall()
    connection.close()
    assert isinstance(page, int)
    return (page - 1) * PAGE


def take_rows(database: Path, table: str) -> None:
    """One bit of the number of rows that its only page has: SQLite reads on."""
    at = root(database, table) + ROWS
    rows = database.read_bytes()[at]
    flip_bit(database, at, 1 << rows.bit_length() - 1)


def swap_pages(content: bytearray, one: int, other: int) -> None:
    here, there = (slice(page * PAGE, (page + 1) * PAGE) for page in (one, other))
    content[here], content[there] = content[there], content[here]


def copy_page(content: bytearray, source: int, target: int) -> None:
    content[target * PAGE : (target + 1) * PAGE] = content[source * PAGE : (source + 1) * PAGE]


def misplace(database: Path, change: Callable[[bytearray, int, int], None], one: str, other: str) -> None:
    """The first page of one table or index, and that of another."""
    content = bytearray(database.read_bytes())
    change(content, root(database, one) // PAGE, root(database, other) // PAGE)
    database.write_bytes(content)


def _size(file: Path) -> int:
    return file.stat().st_size


def fill(file: Path, begin: int, size: int, byte: bytes = b"\0") -> None:
    """So many bytes, as far as the file goes."""
    content = bytearray(file.read_bytes())
    content[begin : begin + size] = byte * len(content[begin : begin + size])
    file.write_bytes(content)


def flip_page(file: Path, rng: random.Random) -> None:
    """Of any kind."""
    _flip(file, rng.randrange(_size(file)), rng)


def flip_page_header(file: Path, rng: random.Random) -> None:
    """Where the b-tree's own numbers are."""
    _flip(file, rng.randrange(_size(file) // PAGE) * PAGE + rng.randrange(32), rng)


def flip_file_header(file: Path, rng: random.Random) -> None:
    _flip(file, rng.randrange(100), rng)


def flip_schema(file: Path, rng: random.Random) -> None:
    _flip(file, rng.randrange(100, PAGE), rng)


def zero_pages(file: Path, rng: random.Random) -> None:
    page = rng.randrange(_size(file) // PAGE)
    fill(file, page * PAGE, PAGE * rng.randint(1, 8))


def lose_block(file: Path, rng: random.Random) -> None:
    """As flash does that fails: of its erase blocks, one; often that at the beginning, where the tables begin."""
    begin = rng.choice((0, rng.randrange(_size(file)) // BLOCK * BLOCK))
    fill(file, begin, BLOCK, rng.choice((b"\0", b"\xff")))


def cut(file: Path, rng: random.Random) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: rng.randrange(1, len(content))])


def empty(file: Path, _: random.Random) -> None:
    file.write_bytes(b"")


def zero(file: Path, _: random.Random) -> None:
    file.write_bytes(bytes(_size(file)))


def remove(file: Path, _: random.Random) -> None:
    file.unlink()


def flip_log_header(file: Path, rng: random.Random) -> None:
    _flip(file, rng.randrange(LOG_HEADER), rng)


def flip_frame_header(file: Path, rng: random.Random) -> None:
    frames = (_size(file) - LOG_HEADER) // (PAGE + FRAME_HEADER)
    at = LOG_HEADER + rng.randrange(frames) * (PAGE + FRAME_HEADER)
    _flip(file, at + rng.randrange(FRAME_HEADER), rng)


def both(wound: "Wound") -> "Wound":
    def hurt(file: Path, rng: random.Random) -> None:
        wound(file, rng)
        log = file.with_name("queue.db-wal")
        if log.exists():
            wound(log, rng)

    return hurt


Wound = Callable[[Path, random.Random], None]

OF_DATABASE: Mapping[str, Wound] = {
    "bits flipped anywhere in the database": flip_page,
    "bits flipped in a page's header": flip_page_header,
    "bits flipped in the file's header": flip_file_header,
    "bits flipped in the schema": flip_schema,
    "pages of zeroes in the database": zero_pages,
    "64 KiB of the database zeroes or ones": lose_block,
    "database cut short": cut,
    "database empty": empty,
    "database all zeroes": zero,
    "database missing": remove,
    "database and log missing": both(remove),
    "database and log cut short": both(cut),
    "database and log empty": both(empty),
}
OF_LOG: Mapping[str, Wound] = {
    "bits flipped anywhere in the log": flip_page,
    "bits flipped in the log's header": flip_log_header,
    "bits flipped in the header of a frame": flip_frame_header,
    "log cut short": cut,
    "log empty": empty,
    "log all zeroes": zero,
    "log missing": remove,
}


def hurt(folder: Path, wound: str, rng: random.Random) -> None:
    """The files of a queue."""
    if wound in OF_LOG:
        OF_LOG[wound](folder / "queue.db-wal", rng)
    else:
        OF_DATABASE[wound](folder / "queue.db", rng)


AT_REST = {wound for wound in (*OF_DATABASE, *OF_LOG) if not wound.startswith("bits")}
"""Whole pages or files that are missing."""
