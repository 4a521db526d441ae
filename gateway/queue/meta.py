"""What a queue knows by name."""

import apsw

from gateway.queue import checked


def put(database: apsw.Connection, key: str, value: str) -> None:
    checked.put(database, "meta", (key, value))


def load(database: apsw.Connection) -> dict[str, str]:
    """Raises apsw.CorruptError."""
    return dict(checked.load(database, "meta", "key"))
