"""What systemd and its journal are told."""

import json
import logging
import socket
import sys
from contextlib import closing
from pathlib import Path

import pytest

from gateway.config import LogSettings
from gateway.runtime.logs import TextFormatter, configure
from gateway.runtime.notify import Notify, watchdog_interval_s


def test_systemd_is_told_over_its_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        with closing(Notify()) as notify:
            notify("READY=1", "STATUS=two drivers")
        assert systemd.recv(100) == b"READY=1\nSTATUS=two drivers"


def test_nobody_is_told_where_nobody_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    with closing(Notify()) as notify:
        notify("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    with closing(Notify()) as notify:
        notify("READY=1")


def test_the_watchdog_is_fed_twice_as_often_as_it_must(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    monkeypatch.setenv("WATCHDOG_USEC", "30000000")
    assert watchdog_interval_s() == 15.0
    monkeypatch.setenv("WATCHDOG_PID", "1")
    assert watchdog_interval_s() is None


@pytest.fixture
def root() -> "logging.Logger":
    return logging.getLogger()


def test_journald_takes_the_level_from_the_prefix_of_every_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], root: logging.Logger
) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", "8:1")
    before = root.handlers[:], root.level
    try:
        configure(LogSettings())
        logging.getLogger("gateway.sync").warning("%s", "the link is down\n<2>sync: all is lost\x1b[2J\x85")
        configure(LogSettings(format="json"))
        logging.getLogger("gateway.sync").error("refused")
    finally:
        root.handlers, level = before[0], before[1]
        root.setLevel(level)
    first, second = capsys.readouterr().err.splitlines()
    assert first == r"<4>sync: the link is down\n<2>sync: all is lost\x1b[2J\x85"
    assert second.startswith("<3>{")
    assert json.loads(second[3:])["message"] == "refused"


@pytest.mark.parametrize("journald", [True, False])
def test_a_traceback_has_lines_of_its_own_which_no_message_looks_like(journald: bool) -> None:
    try:
        raise ValueError("a device said\nsync: all is lost\x1b[2J")
    except ValueError:
        record = logging.LogRecord("gateway.sync", logging.ERROR, "", 0, "a bug", None, sys.exc_info())
    first, *trace = TextFormatter(journald).format(record).split("\n")
    assert first.endswith("sync: a bug")
    prefix = "<3>" if journald else ""
    assert trace[0] == f"{prefix}  Traceback (most recent call last):"
    assert trace[-2:] == [f"{prefix}  ValueError: a device said", prefix + r"  sync: all is lost\x1b[2J"]
    assert all(line.startswith(f"{prefix}  ") for line in trace)
