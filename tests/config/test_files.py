"""What settings name outside the configuration, and whether it is what it was."""

import os
from pathlib import Path

import pytest

from gateway.config import Config, digest_of_files, load, unusable_files

TEXT = """
gateway.id = "plant-7"
gateway.default_topic = "all"
kafka.bootstrap_servers = ["kafka-1:9092"]
"""

WEB = """type = "http"
listen = "127.0.0.1:1"
tls = { cert = "crt", key = "key" }
tokens.press = { secret = { env = "TOKEN" }, channels = ["#"] }
"""
BUS = """type = "modbus"
tcp = "127.0.0.1:1"
units = [{ address = 1, device = "dryer", profile = "./dryer.toml" }, { address = 2, device = "m", profile = "abb-b23" }]
"""
PROFILE = """summary = "s"
source = "s"
registers.power.at = %d
"""


def configured(folder: Path, driver: str) -> Config:
    path = folder / "tidegate.toml"
    path.write_text(f"{TEXT}[drivers.one]\n{driver}")
    return load(path)


def digest(config: Config) -> bytes:
    return digest_of_files(config.drivers["one"].settings)


def test_another_content_of_a_file_or_a_secret_is_another_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", "one")
    config = configured(tmp_path, WEB)
    found = [digest(config)]
    for name, content in (("crt", "a"), ("key", "a"), ("crt", "b"), ("key", "")):
        (tmp_path / name).write_text(content)
        found.append(digest(config))
    monkeypatch.setenv("TOKEN", "two")
    found.append(digest(config))
    assert len(set(found)) == len(found)
    assert digest(configured(tmp_path, WEB)) == found[-1]


def test_of_a_profile_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "dryer.toml").write_text(PROFILE % 1)
    config = configured(tmp_path, BUS)
    before = digest(config)
    assert digest(config) == before
    (tmp_path / "dryer.toml").write_text(PROFILE % 2)
    assert digest(config) != before
    assert unusable_files(config.drivers["one"].settings, "it") == {}
    (tmp_path / "dryer.toml").unlink()
    [(where, why)] = unusable_files(config.drivers["one"].settings, "it").items()
    assert where == "it.units[0].profile"
    assert "No such file" in why


def test_what_a_driver_writes_and_what_is_no_file_have_no_content(tmp_path: Path) -> None:
    config = configured(tmp_path, 'type = "simulated"\njournal = "journal"')
    before = digest(config)
    (tmp_path / "journal").write_text("a reading")
    assert digest(config) == before
    (tmp_path / "dryer.toml").write_text(PROFILE % 1)
    config = configured(tmp_path, BUS)
    (tmp_path / "dryer.toml").unlink()
    os.mkfifo(tmp_path / "dryer.toml")
    assert digest(config)
