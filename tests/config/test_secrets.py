"""Secrets are read when they are used, and are never shown."""

import re
from pathlib import Path

import pytest

from gateway.config import Config, describe, keep_secrets, load, template, unreadable_secrets

TEXT = """
gateway.id = "plant-7"
gateway.default_topic = "all"
kafka.bootstrap_servers = ["kafka-1:9092"]
kafka.sasl = { mechanism = "PLAIN", user = "u", password = %s }
"""


def configured(folder: Path, secret: str) -> Config:
    path = folder / "tidegate.toml"
    path.write_text(TEXT % secret)
    return load(path)


def revealed(config: Config) -> str:
    assert config.kafka.sasl is not None
    return config.kafka.sasl.password.reveal()


def test_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = configured(tmp_path, '{ env = "PASSWORD" }')
    assert unreadable_secrets(config) == [("kafka.sasl.password", "environment variable PASSWORD is not set")]
    monkeypatch.setenv("PASSWORD", "")
    assert unreadable_secrets(config) == [("kafka.sasl.password", "the secret from env:PASSWORD is empty")]
    monkeypatch.setenv("PASSWORD", "one")
    assert unreadable_secrets(config) == []
    assert revealed(config) == "one"


def test_from_a_file_beside_the_configuration_each_time_anew(tmp_path: Path) -> None:
    config = configured(tmp_path, '{ file = "password" }')
    ((path, why),) = unreadable_secrets(config)
    assert path == "kafka.sasl.password"
    assert str(tmp_path / "password") in why
    for password in ("one", "two"):
        (tmp_path / "password").write_text(f"{password}\n")
        assert revealed(config) == password
    assert unreadable_secrets(config) == []


def test_what_the_process_may_not_read_later_is_kept(tmp_path: Path) -> None:
    config = configured(tmp_path, '{ file = "password" }')
    keep_secrets(config)
    (tmp_path / "password").write_text("one")
    keep_secrets(config)
    (tmp_path / "password").unlink()
    assert revealed(config) == "one"


@pytest.mark.parametrize("secret", ["0102", "press", "01" * 15, "0" * 33])
def test_one_that_is_not_what_it_should_be_is_told_without_showing_it(secret: str, tmp_path: Path) -> None:
    oscore = '{ secret = { file = "secret" }, sender_id = "01", recipient_id = "02", channels = ["a"] }'
    context = f'[drivers.field]\ntype = "coap"\nlisten = "127.0.0.1:5683"\noscore.pump = {oscore}\n'
    path = tmp_path / "tidegate.toml"
    path.write_text(TEXT % '{ env = "HOME" }' + context)
    config = load(path)
    (tmp_path / "secret").write_text(secret)
    [(where, why)] = unreadable_secrets(config)
    assert where == "drivers.field.oscore.pump.secret"
    assert why == (
        f"the secret from file:{tmp_path}/secret must be hexadecimal digits, two of each of at least 16 bytes"
    )
    (tmp_path / "secret").write_text("01" * 16)
    assert unreadable_secrets(config) == []


def test_from_systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = configured(tmp_path, '{ credential = "kafka" }')
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    ((_, why),) = unreadable_secrets(config)
    assert "LoadCredential=kafka:" in why
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    (tmp_path / "kafka").write_text("three")
    assert revealed(config) == "three"


def test_from_where_the_installed_unit_loads_it_in_a_shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name is the one that the sample of the configuration shows."""
    shown = re.search(r"password = (\{ credential = .* \})", template([]))
    assert shown
    config = configured(tmp_path, shown[1])
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    monkeypatch.setattr("gateway.config.secrets.INSTALLED", tmp_path)
    ((_, why),) = unreadable_secrets(config)
    assert f"{tmp_path}/kafka-password: No such file or directory; put the secret there" in why
    (tmp_path / "kafka-password").write_text("four\n")
    assert unreadable_secrets(config) == []
    assert revealed(config) == "four"


def test_never_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PASSWORD", "hunter2")
    config = configured(tmp_path, '{ env = "PASSWORD" }')
    assert 'password = "***"' in describe(config)
    assert "hunter2" not in describe(config) + repr(config)
