"""What people read of an audit; tests/cli/test_kafka.py has the command on a real Kafka."""

import io
import json

from rich.console import Console

from gateway.audit.books import Books
from gateway.cli.audit import show


def test_what_is_found_of_a_queue_names_it() -> None:
    """A gateway may have had several."""
    books = Books("tidegate-ledger")
    for queue in ("gone", "alive"):
        books.position(f"plant-3/{queue}/main".encode(), b'{"seq": 7}')
    headers = [
        ("tg.gateway", "plant-3"),
        ("tg.queue", "alive"),
        ("tg.run", "r"),
        ("tg.lane", "ledger"),
        ("tg.seq", "1"),
    ]
    lost = {"kind": "lost", "lane": "main", "time": 0, "queues": {"gone": 7}}
    books.statement([(name, value.encode()) for name, value in headers], json.dumps(lost).encode())
    said = io.StringIO()
    show(Console(file=said, width=160), books.findings())
    assert (
        "plant-3 gone main: its database is gone, with all that it held behind number 7\n" in said.getvalue()
    )


def test_what_anybody_wrote_into_the_ledger_moves_no_cursor() -> None:
    books = Books("tidegate-ledger")
    note = {"kind": "note", "lane": "main", "of_queue": "q\x1b[2J", "text": "\ud800\x9b2J\nall is well"}
    books.statement([], json.dumps(note).encode())
    books.statement([("tg.queue", b"\x1b[2J")], b"")
    said = io.StringIO()
    show(Console(file=said, width=160, markup=False), books.findings())
    assert r"? q\x1b[2J main: \ud800\x9b2J\nall is well" in said.getvalue()
    assert not {*said.getvalue()} & {"\x1b", "\x9b", "\ud800"}
