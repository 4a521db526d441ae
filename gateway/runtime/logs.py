"""One line a message on standard error, for people or as JSON; journald takes the level from its prefix."""

import json
import logging
import os
import sys
from datetime import UTC, datetime

from gateway.config import LogSettings
from gateway.printable import printable

_PRIORITIES = {
    logging.DEBUG: 7,
    logging.INFO: 6,
    logging.WARNING: 4,
    logging.ERROR: 3,
    logging.CRITICAL: 2,
}

LIBRARIES = ("aiokafka", "amqtt", "aiocoap", "transitions", "asyncio", "passlib")
"""Their words repeat ours, or come by the hundred while a link is down."""


class TextFormatter(logging.Formatter):
    """Under journald `<priority>message`, else with the time. A message is one line, whatever a device wrote into it; the
    lines of a traceback are indented, which no message is."""

    def __init__(self, journald: bool) -> None:
        super().__init__()
        self._journald = journald

    def format(self, record: logging.LogRecord) -> str:
        lines = [printable(f"{_short(record.name)}: {record.getMessage()}")]
        if record.exc_info:
            lines += [f"  {printable(line)}" for line in self.formatException(record.exc_info).split("\n")]
        if self._journald:
            prefix = f"<{_PRIORITIES.get(record.levelno, 6)}>"
            return "\n".join(prefix + line for line in lines)
        return f"{_time(record)} {record.levelname.lower():8} " + "\n".join(lines)


class JsonFormatter(logging.Formatter):
    def __init__(self, journald: bool) -> None:
        super().__init__()
        self._journald = journald

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, object] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": _short(record.name),
            "message": record.getMessage(),
        }
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        prefix = f"<{_PRIORITIES.get(record.levelno, 6)}>" if self._journald else ""
        return prefix + json.dumps(fields)


def configure(settings: LogSettings) -> None:
    """May be called again: a new configuration replaces the old one."""
    journald = "JOURNAL_STREAM" in os.environ
    handler = logging.StreamHandler(sys.stderr)
    formatter = JsonFormatter if settings.format == "json" else TextFormatter
    handler.setFormatter(formatter(journald))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.level.upper())
    for name in LIBRARIES:
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")


def _short(name: str) -> str:
    return name.removeprefix("gateway.")
