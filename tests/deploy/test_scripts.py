"""The scripts are POSIX shell, and say what is wrong before they change anything."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.deploy.unit import ROOT

SCRIPTS = sorted((ROOT / "deploy").rglob("*.sh"))


def run(script: str, *arguments: str, path: str = os.defpath) -> tuple[int, str]:
    done = subprocess.run(
        ["sh", str(ROOT / "deploy" / script), *arguments],
        env={"PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_the_shell_can_read_it(script: Path) -> None:
    subprocess.run(["sh", "-n", str(script)], check=True)
    assert script.read_text().startswith("#!/bin/sh\n")
    assert os.access(script, os.X_OK)


@pytest.mark.parametrize("script", ["install.sh", "kafka/topics.sh", "kafka/acls.sh"])
def test_help(script: str) -> None:
    code, output = run(script, "--help")
    assert code == 0
    assert output.startswith("usage: ")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "usage: install.sh"),
        (["remove"], "unknown argument: remove"),
        (["install", "uninstall"], "not both install and uninstall"),
        (["install", "--wheel"], "--wheel needs a value"),
        (["install", "--purge"], "--purge goes with uninstall only"),
        (["install", "--root", "/nowhere"], "--root: no directory /nowhere"),
        (["install", "--root", "{tmp}", "--python", "/nowhere/python3"], "no Python at /nowhere/python3"),
        (
            ["install", "--root", "{tmp}", "--lock", "/nowhere/lock"],
            "no locked dependencies at /nowhere/lock",
        ),
        (["install", "--root", "{tmp}", "--wheel", "/nowhere.whl"], "no wheel at /nowhere.whl"),
        (["upgrade", "--root", "{tmp}"], "tidegate is not installed"),
    ],
)
def test_the_installer_says_what_is_wrong(arguments: list[str], complaint: str, tmp_path: Path) -> None:
    code, output = run("install.sh", *(word.format(tmp=tmp_path) for word in arguments))
    assert code != 0
    assert complaint in output
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("script", "arguments", "complaint"),
    [
        ("topics.sh", [], "usage: topics.sh"),
        ("topics.sh", ["--bootstrap-server", "k:9092"], "kafka-topics.sh is not on the PATH"),
        ("acls.sh", ["--bootstrap-server", "k:9092", "--principal", "User:a"], "usage: acls.sh"),
        (
            "acls.sh",
            ["--bootstrap-server", "k:9092", "--principal", "User:a", "t"],
            "--gateway ID, --fleet or --auditor is needed",
        ),
        (
            "acls.sh",
            ["--bootstrap-server", "k:9092", "--principal", "User:a", "--fleet", "--gateway", "g", "t"],
            "--gateway, --fleet and --auditor exclude each other",
        ),
        (
            "acls.sh",
            ["--bootstrap-server", "k:9092", "--principal", "User:a", "--auditor", "--fleet", "t"],
            "--gateway, --fleet and --auditor exclude each other",
        ),
    ],
)
def test_the_kafka_scripts_say_what_is_missing(script: str, arguments: list[str], complaint: str) -> None:
    code, output = run(f"kafka/{script}", *arguments)
    assert code != 0
    assert complaint in output


@pytest.mark.parametrize(
    ("script", "arguments", "tool"),
    [
        ("topics.sh", [], "kafka-topics.sh"),
        ("acls.sh", ["--principal", "User:a", "--fleet", "data"], "kafka-acls.sh"),
        ("acls.sh", ["--principal", "User:a", "--auditor", "data"], "kafka-acls.sh"),
    ],
)
def test_the_topics_may_have_other_names(
    script: str, arguments: list[str], tool: str, tmp_path: Path
) -> None:
    (tmp_path / tool).write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / tool).chmod(0o755)
    names = ["--positions-topic", "p", "--ledger-topic", "l"]
    path = f"{tmp_path}:{os.defpath}"
    code, output = run(f"kafka/{script}", "--bootstrap-server", "k:9092", *names, *arguments, path=path)
    assert code == 0, output
    assert "--topic p" in output
    assert "--topic l" in output
    assert "tidegate-positions" not in output
    assert "tidegate-ledger" not in output


SYSTEMCTL = """#!/bin/sh
echo "$*" >>"$0.asked"
queued() { [ "$(grep -c "$1" "$0.asked")" -le 2 ]; }
case $* in
*ActiveState*) if queued ActiveState; then echo inactive; else echo "$ACTIVE"; fi ;;
*SubState*) if queued SubState; then echo dead; else echo "$SUB"; fi ;;
*StatusText*) if queued ActiveState; then echo "devices are refused: before"; else echo "$STATUS"; fi ;;
esac
"""


@pytest.mark.parametrize(
    ("active", "sub", "status", "code"),
    [
        ("active", "running", "0 drivers; 0 records wait; Kafka down", 0),
        ("activating", "auto-restart", "", 1),
        ("activating", "start", "devices are refused: the queue has format 2, this tidegate knows 1", 1),
    ],
)
def test_an_upgrade_that_waits_for_somebody_has_not_started(
    active: str, sub: str, status: str, code: int, tmp_path: Path
) -> None:
    """Else `upgrade` would wait too, and never go back."""
    lines = (ROOT / "deploy/install.sh").read_text().partition("\nstarts() {")[2].partition("\n}\n")[0]
    systemctl = tmp_path / "systemctl"
    systemctl.write_text(SYSTEMCTL)
    systemctl.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.defpath}", "ACTIVE": active, "SUB": sub, "STATUS": status}
    done = subprocess.run(
        ["sh", "-c", f"starts() {{{lines}\n}}\nstarts"], env=environment, check=False, timeout=20
    )
    assert done.returncode == code
    asked = Path(f"{systemctl}.asked").read_text()
    assert asked.startswith("stop tidegate.service\nstart --no-block tidegate.service\n")
