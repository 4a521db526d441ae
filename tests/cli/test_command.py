"""What every command has: help, exit codes, one clear sentence for what can't be done."""

import asyncio
import os
import re
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest

from gateway import __version__
from gateway.control.client import running
from gateway.testing.gateway import FakeGateway
from tests.cli.conftest import TIDEGATE, Ended, Run

AS_OTHERS = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search") if os.geteuid() == 0 else ()
"""Modes of files hold for root too."""

LEAVES = (
    "run", "init", "audit", "password", "check", "schema", "reference", "status", "tail", "try", "drivers", "adopt", "fork", "doctor", "doctor pull-plug",
    "doctor after-plug", "serial ports", "serial sniff", "modbus scan", "modbus read", "modbus write", "queue ls", "queue peek", "queue export", "queue import", "queue dead ls", "queue dead show", "queue dead retry",
)  # fmt: skip


async def test_running_imports_nothing_that_only_people_need(site: Path) -> None:
    """Python itself tells what it imports, until the gateway serves its socket and after."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-X", "importtime", TIDEGATE, "run", cwd=site, stderr=PIPE
    )
    assert process.stderr is not None
    told = asyncio.ensure_future(process.stderr.read())
    async with asyncio.timeout(30):
        while await asyncio.to_thread(running, "plant-7", site / "data") is None:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        process.terminate()
        assert await process.wait() == 0
        text = (await told).decode()
    imported = set(re.findall(r"\| +([\w.]+)$", text, re.MULTILINE))
    assert "gateway.runtime.runtime" in imported
    assert not imported & {"typer", "rich", "sqlite_utils", "click", "sqlite3"}


async def test_version_and_completion(tidegate: Run) -> None:
    version, script, completed = await asyncio.gather(
        tidegate("--version"),
        tidegate("--show-completion", "bash", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1"),
        tidegate(_TIDEGATE_COMPLETE="complete_bash", COMP_WORDS="tidegate queue ex", COMP_CWORD="2"),
    )
    assert version == (0, f"tidegate {__version__}\n", "")
    assert "_TIDEGATE_COMPLETE" in script.out
    assert completed.out.split() == ["export"]


@pytest.mark.slow
@pytest.mark.parametrize("command", LEAVES)
async def test_every_command_has_help(tidegate: Run, command: str) -> None:
    code, out, err = await tidegate(*command.split(), "--help")
    assert (code, err) == (0, "")
    assert f"Usage: tidegate {command}" in out
    if "Exit code 1 if" in " ".join(out.replace("│", "").split()):
        _, listed, _ = await tidegate("--help")
        told = re.findall(r" 1 something is not as it should be \(([^)]*)\);", " ".join(listed.split()))
        assert any(command.startswith(one.split(" --")[0]) for one in told[0].split(", "))
    if command == "audit":
        assert "Only the [kafka] part of the configuration is used" in out


@pytest.mark.slow
async def test_the_list_of_commands_is_whole(tidegate: Run) -> None:
    for group in ("", "queue", "queue dead", "doctor", "serial"):
        _, out, _ = await tidegate(*group.split(), "--help")
        listed = set(re.findall(r"^│ ([a-z][a-z-]+) ", out.partition("─ Commands ─")[2], re.MULTILINE))
        words = {tuple(leaf.split()) for leaf in LEAVES}
        depth = len(group.split())
        assert listed == {
            leaf[depth] for leaf in words if " ".join(leaf[:depth]) == group and len(leaf) > depth
        }


async def test_mistakes_in_the_command_itself(tidegate: Run) -> None:
    ends = await asyncio.gather(
        tidegate("statu"), tidegate("tail", "--devise", "x"), tidegate("run", "--colour")
    )
    assert [end.code for end in ends] == [2, 2, 2]
    assert "statu" in ends[0].err
    assert "--device" in ends[1].err
    assert "--colour" in ends[2].err
    assert not any(end.out for end in ends)


async def test_mistakes_in_the_configuration_are_all_told_and_end_with_ex_config(
    tidegate: Run, site: Path
) -> None:
    (site / "tidegate.toml").write_text('[gateway]\nid = 7\n[queue]\nmax_byte = "1 GiB"\n')
    expected = (
        site.name,
        "tidegate.toml:2: gateway.id: must be",
        "tidegate.toml:4: queue.max_byte: unknown key",
    )
    for code, out, err in await asyncio.gather(tidegate("check"), tidegate("run"), tidegate("status")):
        assert (code, out) == (78, "")
        assert all(part in err for part in expected[1:])
        assert "Traceback" not in err


async def test_the_configuration_is_found(
    tidegate: Run, site: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    named, variable = await asyncio.gather(
        tidegate("check", "-c", site / "tidegate.toml", folder=elsewhere),
        tidegate("check", folder=elsewhere, TIDEGATE_CONFIG=str(site / "tidegate.toml")),
    )
    assert (named.code, variable.code) == (0, 0)


@pytest.mark.parametrize("command", ["check", "run"])
async def test_a_configuration_that_is_not_there_is_told_by_how_it_was_named(
    tidegate: Run, site: Path, tmp_path_factory: pytest.TempPathFactory, command: str
) -> None:
    nowhere, named, variable, folder = await asyncio.gather(
        tidegate(command, folder=tmp_path_factory.mktemp("elsewhere")),
        tidegate(command, "-c", "/nope.toml"),
        tidegate(command, TIDEGATE_CONFIG="/nope.toml"),
        tidegate(command, "-c", "data"),
    )
    assert nowhere == (
        66,
        "",
        "tidegate: no configuration: neither ./tidegate.toml nor /etc/tidegate/tidegate.toml is there; "
        "name one with -c or $TIDEGATE_CONFIG, or write one with `tidegate init`\n",
    )
    assert named == (
        66,
        "",
        "tidegate: no configuration: /nope.toml is not there; name another one with -c, "
        "or write one with `tidegate init /nope.toml`\n",
    )
    # There is a ./tidegate.toml, which the variable has commands pass over.
    assert variable == (
        66,
        "",
        "tidegate: no configuration: /nope.toml is not there, which $TIDEGATE_CONFIG names; "
        "set it to another one, name one with -c, or write one with `tidegate init /nope.toml`\n",
    )
    assert folder == (66, "", "tidegate: data: can't be read: Is a directory\n")


@pytest.mark.parametrize("command", ["check", "run"])
async def test_a_configuration_that_may_not_be_read_is_told_as_such(site: Path, command: str) -> None:
    (site / "tidegate.toml").chmod(0)
    (site / "closed").mkdir(0)
    for *given, named in (["tidegate.toml"], ["-c", "tidegate.toml"], ["-c", "closed/tidegate.toml"]):
        process = await asyncio.create_subprocess_exec(
            *AS_OTHERS,
            TIDEGATE,
            command,
            *given,
            *([named] if given else []),
            cwd=site,
            stdout=PIPE,
            stderr=PIPE,
        )
        out, err = await process.communicate()
        assert (process.returncode, out) == (77, b"")
        assert err.decode() == (
            f"tidegate: {named}: can't be read: Permission denied; run this as root, or as the user of the gateway\n"
        )


async def test_a_closed_folder_has_no_configuration(site: Path) -> None:
    """As root's has none for `sudo -u tidegate tidegate status`."""
    process = await asyncio.create_subprocess_exec(
        *("sh", "-c", 'mkdir closed && cd closed && chmod 0 . && exec "$@"', "sh"),
        *(*AS_OTHERS, TIDEGATE, "status"),
        cwd=site,
        stdout=PIPE,
        stderr=PIPE,
    )
    _, err = await process.communicate()
    assert (process.returncode, b"neither ./tidegate.toml nor /etc/tidegate" in err) == (66, True)


async def ended(site: Path, script: str) -> Ended:
    """Of a command in a shell's redirections."""
    process = await asyncio.create_subprocess_exec(
        "bash", "-c", script, "bash", TIDEGATE, cwd=site, stdout=PIPE, stderr=PIPE
    )
    out, err = await process.communicate()
    return Ended(process.returncode or 0, out.decode(), err.decode())


@pytest.mark.parametrize(
    "command", ["reference", "status", "queue ls", "drivers", "drivers mqtt", "--help", "--version", "init -"]
)
async def test_standard_output_that_takes_nothing_is_told_in_one_sentence(
    gateway: FakeGateway, site: Path, command: str
) -> None:
    full, closed = await asyncio.gather(
        ended(site, f'"$1" {command} > /dev/full'), ended(site, f'"$1" {command} >&-')
    )
    assert full == (73, "", "tidegate: standard output: No space left on device\n")
    assert closed == (73, "", "tidegate: standard output: closed\n")


async def test_a_full_disk_for_both_outputs_is_no_verdict(gateway: FakeGateway, site: Path) -> None:
    """As of `tidegate audit >> /var/log/audit.log 2>&1`: 1 would say that a gap is not explained."""
    assert await ended(site, '"$1" status > /dev/full 2>&1') == (73, "", "")


async def test_a_gateway_needs_no_standard_output(site: Path) -> None:
    """Nor may a file of its own get its number."""
    script = '"$1" run >&- 2>log & pid=$!; until [ -S data/control.sock ]; do sleep 0.1; done; readlink /proc/$pid/fd/1; kill $pid; wait $pid'
    assert await ended(site, script) == (0, "/dev/null\n", "")


@pytest.mark.parametrize("command", ["reference", "drivers", "--help", "modbus --help", "schema"])
async def test_a_reader_that_goes_away_is_no_error(site: Path, command: str) -> None:
    """Nor is it a verdict: 141 is what a shell says of a program that ended by SIGPIPE."""
    gone = f'mkfifo pipe; exec 3<>pipe 4>pipe 5<pipe; exec 3<&- 5<&-; "$1" {command} >&4'
    assert await ended(site, gone) == (141, "", "")
