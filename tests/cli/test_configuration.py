"""init, check, schema, reference, drivers."""

import asyncio
import hashlib
import json
import re
import tomllib
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest

from gateway.config import driver_types, load
from gateway.testing.certificates import Authority
from tests.cli.conftest import CONFIGURATION, TIDEGATE, Run

pytestmark = pytest.mark.slow


async def test_init_writes_what_check_finds_no_mistake_in(tidegate: Run, site: Path) -> None:
    (site / "tidegate.toml").unlink()
    assert (await tidegate("init", "-d", "simulated", "-d", "http")).code == 0
    config = load(site / "tidegate.toml")
    assert sorted(driver.manifest.name for driver in config.drivers.values()) == ["http", "simulated"]
    checked = await tidegate("check")
    assert (checked.code, checked.out) == (0, "tidegate.toml: no mistakes; 2 drivers, 1 route\n")


async def test_init_writes_over_nothing_unless_told_to(tidegate: Run, site: Path) -> None:
    before = (site / "tidegate.toml").read_text()
    code, _, err = await tidegate("init")
    assert (code, err) == (73, "tidegate: tidegate.toml exists; --force writes over it\n")
    assert (site / "tidegate.toml").read_text() == before
    assert (await tidegate("init", "--force", "--id", "plant-8")).code == 0
    assert load(site / "tidegate.toml").gateway.id == "plant-8"


async def test_two_boards_with_one_host_name_get_two_ids(tidegate: Run) -> None:
    one, other = await asyncio.gather(tidegate("init", "-"), tidegate("init", "-"))
    ids = {tomllib.loads(end.out)["gateway"]["id"] for end in (one, other)}
    assert len(ids) == 2


async def test_what_init_can_not_do(tidegate: Run) -> None:
    ends = await asyncio.gather(
        tidegate("init", "x.toml", "-d", "htp"),
        tidegate("init", "x.toml", "--id", "a b"),
        tidegate("init", "not/there.toml"),
    )
    assert [end.code for end in ends] == [2, 64, 73]
    assert "no driver of type 'htp'; the types are" in " ".join(ends[0].err.replace("│", "").split())
    assert "--id 'a b' must be 1 to 64 letters" in ends[1].err
    assert ends[2].err == "tidegate: not/there.toml: No such file or directory\n"


async def test_check_warns_of_secrets_that_can_not_be_read_here_and_shows_none(
    tidegate: Run, site: Path
) -> None:
    with (site / "tidegate.toml").open("a") as file:
        file.write('[kafka.sasl]\nmechanism = "PLAIN"\nuser = "u"\npassword = { env = "PASSWORD" }\n')
    with (site / "tidegate.toml").open("a") as file:
        file.write('[drivers.demo]\ntype = "simulated"\n')
    without, with_it = await asyncio.gather(
        tidegate("check"), tidegate("check", "--show", PASSWORD="hunter2")
    )
    assert without.code == 0
    assert without.err == "warning: kafka.sasl.password: environment variable PASSWORD is not set\n"
    assert with_it.err == ""
    assert tomllib.loads(with_it.out)["kafka"]["sasl"]["password"] == "***"
    assert "hunter2" not in with_it.out


async def test_a_home_folder_that_only_a_shell_knows_is_refused_and_none_is_made(
    tidegate: Run, site: Path
) -> None:
    text = (site / "tidegate.toml").read_text()
    (site / "tidegate.toml").write_text(re.sub("data_dir = .*", 'data_dir = "~/fe"', text))
    checked, ran = await asyncio.gather(tidegate("check"), tidegate("run"))
    assert (checked.code, ran.code) == (78, 78)
    for told in (checked.err, ran.err):
        assert (
            "gateway.data_dir: begins with ~, which only a shell makes a home folder of; write the whole path, "
            'such as "/home/me/fe"'
        ) in told
    assert not (site / "~").exists()


async def test_check_warns_of_what_will_never_come(tidegate: Run, site: Path) -> None:
    nothing = await tidegate("check")
    assert (nothing.code, nothing.err) == (0, "warning: drivers: there are none, so no records will come\n")
    with (site / "tidegate.toml").open("a") as file:
        file.write(
            """[drivers.demo]
type = "simulated"
[drivers.more]
type = "simulated"
[[routes]]
from = "demo"
match = "simulated/1"
topic = "one"
[[routes]]
from = "*"
topic = "all"
[[routes]]
from = "more"
match = "simulated/2"
topic = "two"
"""
        )
    hidden = await tidegate("check")
    assert (hidden.code, hidden.err) == (
        0,
        "warning: routes[2]: never takes a record: routes[1] takes all of them\n",
    )


async def test_check_warns_of_certificates_that_can_not_be_used_here(
    tidegate: Run, site: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    authority = Authority(tmp_path_factory.mktemp("authority"))
    one, other = authority.issue("one"), authority.issue("other")
    (site / "tidegate.toml").write_text(
        f'''{CONFIGURATION}[kafka.tls]
ca = "ca.pem"
[drivers.good]
type = "http"
listen = "127.0.0.1:1"
anonymous = true
tls = {{ cert = "{one.certificate}", key = "{one.key}" }}
[drivers.mixed]
type = "mqtt"
listen = "127.0.0.1:2"
anonymous = true
tls = {{ cert = "{one.certificate}", key = "{other.key}", client_ca = "{one.key}" }}
'''
    )
    code, _, err = await tidegate("check")
    assert (code, err.splitlines()) == (
        0,
        [
            "warning: kafka.tls.ca: ca.pem: No such file or directory",
            f"warning: drivers.mixed.tls.cert: {one.certificate} with {other.key}: no certificate with its key "
            "(KEY_VALUES_MISMATCH)",
            f"warning: drivers.mixed.tls.client_ca: {one.key}: no certificates (NO_CERTIFICATE_OR_CRL_FOUND)",
        ],
    )


async def test_schema_and_reference(tidegate: Run) -> None:
    schema, reference = await asyncio.gather(tidegate("schema"), tidegate("reference"))
    assert "gateway" in json.loads(schema.out)["properties"]
    assert "| `max_bytes` |" in reference.out


async def test_drivers_are_listed_and_each_prints_its_sample_and_its_settings(tidegate: Run) -> None:
    listed = await tidegate("drivers")
    assert all(name in listed.out for name in driver_types())
    sample, reference, unknown, whole = await asyncio.gather(
        tidegate("drivers", "http"),
        tidegate("drivers", "http", "--reference"),
        tidegate("drivers", "htp"),
        tidegate("drivers", "--reference"),
    )
    assert tomllib.loads(sample.out)["drivers"]["web"]["type"] == "http"
    assert "| `listen` |" in reference.out
    assert (unknown.code, whole.code) == (64, 64)
    assert "no driver of type 'htp'; the types are" in unknown.err


async def test_a_password_becomes_a_hash_that_is_accepted(site: Path) -> None:
    printed = []
    for entered in (b"hunter2\n", b"hunter2", b"\n"):
        process = await asyncio.create_subprocess_exec(
            TIDEGATE, "password", stdin=PIPE, stdout=PIPE, stderr=PIPE
        )
        out, _ = await process.communicate(entered)
        printed.append((process.returncode, out.decode().strip()))
    assert printed[2] == (65, "")
    assert printed[0] != printed[1]
    for code, line in printed[:2]:
        _, cost, block, parallel, salt, digest = line.split(":")
        assert code == 0
        expected = hashlib.scrypt(
            b"hunter2", salt=bytes.fromhex(salt), n=int(cost), r=int(block), p=int(parallel), dklen=32
        )
        assert digest == expected.hex()
    (site / "tidegate.toml").write_text(
        f'{CONFIGURATION}[drivers.floor]\ntype = "mqtt"\nlisten = "127.0.0.1:1"\nusers.a.password = "{printed[0][1]}"\n'
    )
    load(site / "tidegate.toml")
