"""`tidegate check --kafka` against a broker with logins and ACLs: what is lacking is named, with the command for it."""

import asyncio
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
)

from gateway.testing.kafka import KafkaBroker

pytestmark = pytest.mark.kafka

TIDEGATE = Path(sys.executable).with_name("tidegate")
CONFIG = """
[gateway]
id = "plant-7"
data_dir = "data"
default_topic = "readings"
[kafka]
bootstrap_servers = ["{server}"]
[kafka.sasl]
mechanism = "PLAIN"
user = "plant-7"
password = {{ env = "PASSWORD" }}
[drivers.line]
type = "simulated"
[[routes]]
from = "line"
match = "simulated/1"
topic = "telemetry"
"""
GRANTS = (
    (ResourceType.TOPIC, "telemetry", ("WRITE", "DESCRIBE", "DESCRIBE_CONFIGS")),
    (ResourceType.TOPIC, "readings", ("WRITE", "DESCRIBE", "DESCRIBE_CONFIGS")),
    (ResourceType.TOPIC, "tidegate-ledger", ("WRITE", "DESCRIBE", "DESCRIBE_CONFIGS")),
    (ResourceType.TOPIC, "tidegate-positions", ("READ", "WRITE", "DESCRIBE", "DESCRIBE_CONFIGS")),
    (ResourceType.TRANSACTIONAL_ID, "tidegate.plant-7", ("WRITE", "DESCRIBE")),
)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    with KafkaBroker(
        tmp_path_factory.mktemp("check"),
        listeners=("sasl_plaintext",),
        users={"plant-7": "secret"},
        authorize=True,
    ) as one:
        one.create_topic("telemetry", 3)
        yield one


async def check(folder: Path, server: str, password: str) -> tuple[int, str]:
    (folder / "tidegate.toml").write_text(CONFIG.format(server=server))
    process = await asyncio.create_subprocess_exec(
        *(str(TIDEGATE), "check", "--kafka"),
        cwd=folder,
        env=os.environ | {"PASSWORD": password},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(60):
        output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()


def grant(broker: KafkaBroker) -> None:
    acls = [
        AclBinding(
            *(kind, name, ResourcePatternType.LITERAL, "User:plant-7", "*"),
            *(AclOperation[operation], AclPermissionType.ALLOW),
        )
        for kind, name, operations in GRANTS
        for operation in operations
    ]
    for future in broker.admin.create_acls(acls).values():
        future.result(30)


async def test_from_nothing_to_all_that_is_needed(broker: KafkaBroker, tmp_path: Path) -> None:
    server = broker.address("sasl_plaintext")
    admin = f"--bootstrap-server {server} --command-config admin.properties"
    code, output = await check(tmp_path, server, "secret")
    assert code == 1
    assert "LACKING  topic telemetry: not authorised" in output
    assert "LACKING  not authorised for transactional id tidegate.plant-7" in output
    assert (
        f"kafka-acls.sh {admin} --add --allow-principal User:plant-7 --operation Write "
        "--operation Describe --transactional-id tidegate.plant-7" in output
    )
    grant(broker)
    code, output = await check(tmp_path, server, "secret")
    assert code == 1
    assert "ok       topic telemetry: 3 partitions" in output
    assert f"kafka-topics.sh {admin} --create --topic readings" in output
    assert f"kafka-topics.sh {admin} --create --topic tidegate-positions" in output
    for topic in ("readings", "tidegate-positions", "tidegate-ledger"):
        broker.create_topic(topic)
    code, output = await check(tmp_path, server, "secret")
    assert code == 0, output
    assert "LACKING" not in output


async def test_the_cause_is_named(broker: KafkaBroker, tmp_path: Path) -> None:
    for server, password, cause in (
        (broker.address("sasl_plaintext"), "wrong", "wrong user or password for user 'plant-7'"),
        ("127.0.0.1:1", "secret", "connection refused"),
        ("no-such-host.invalid:9092", "secret", "the name doesn't resolve"),
    ):
        code, output = await check(tmp_path, server, password)
        assert code == 1
        assert cause in output
