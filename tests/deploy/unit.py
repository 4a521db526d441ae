"""deploy/systemd/tidegate.service as systemd would read it."""

import shlex
import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PATH = ROOT / "deploy" / "systemd" / "tidegate.service"


def settings() -> dict[str, list[str]]:
    """Every value of every key; the unit's keys mean the same in whatever section they stand."""
    found: dict[str, list[str]] = {}
    for line in PATH.read_text().splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith(("#", ";")):
            found.setdefault(key, []).append(value)
    return found


def exec_start() -> list[str]:
    return shlex.split(settings()["ExecStart"][0])


def system_calls_allowed() -> set[str]:
    allowed: set[str] = set()
    for value in settings()["SystemCallFilter"]:
        names = set().union(*(_members(group) for group in value.lstrip("~").split()))
        allowed = allowed - names if value.startswith("~") else allowed | names
    return allowed


def _members(group: str) -> set[str]:
    listing = subprocess.run(
        ["systemd-analyze", "syscall-filter", group], capture_output=True, text=True, check=True
    ).stdout.splitlines()[1:]
    names = {line.strip() for line in listing if not line.strip().startswith("#")}
    below = {name for name in names if name.startswith("@")}
    return (names - below).union(*(_members(name) for name in below))
