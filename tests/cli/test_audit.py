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
