"""What systemd and its journal are told."""

import json
import logging
import socket
from contextlib import closing
from pathlib import Path

import pytest

from gateway.config import LogSettings
from gateway.runtime.logs import configure
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
        logging.getLogger("gateway.sync").warning("the link is down\nand so on")
        configure(LogSettings(format="json"))
        logging.getLogger("gateway.sync").error("refused")
    finally:
        root.handlers, level = before[0], before[1]
        root.setLevel(level)
    first, second, third = capsys.readouterr().err.splitlines()
    assert (first, second) == ("<4>sync: the link is down", "<4>and so on")
    assert third.startswith("<3>{")
    assert json.loads(third[3:])["message"] == "refused"
