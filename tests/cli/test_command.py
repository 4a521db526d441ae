"""What every command has: help, exit codes, one clear sentence for what can't be done."""

import asyncio
import re
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest

from gateway import __version__
from gateway.control.client import running
from tests.cli.conftest import TIDEGATE, Run

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
    nowhere, named, variable = await asyncio.gather(
        tidegate("check", folder=elsewhere),
        tidegate("check", "-c", site / "tidegate.toml", folder=elsewhere),
        tidegate("check", folder=elsewhere, TIDEGATE_CONFIG=str(site / "tidegate.toml")),
    )
    assert nowhere.code == 66
    assert "tidegate init" in nowhere.err
    assert (named.code, variable.code) == (0, 0)


async def test_a_reader_that_goes_away_is_no_error(tidegate: Run, site: Path) -> None:
    process = await asyncio.create_subprocess_shell(
        f"{TIDEGATE} reference | head -1; echo ${{PIPESTATUS[0]}}",
        cwd=site,
        stdout=PIPE,
        stderr=PIPE,
        executable="/bin/bash",
    )
    out, err = await process.communicate()
    assert out.decode().startswith("## ")
    assert err == b""
