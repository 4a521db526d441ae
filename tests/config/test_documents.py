"""What is generated from the model: template, JSON Schema, reference, the settings in force."""

import dataclasses
import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from gateway.config import (
    Config,
    DriverConfig,
    describe,
    driver_reference,
    driver_types,
    load,
    load_manifest,
    reference,
    schema,
    template,
)
from tests.config.json_schema import violations

TYPES = driver_types()


def settings_of(cls: type[Any], path: str = "") -> Iterator[str]:
    """Dotted names of all settings, found without the code under test."""
    hints = get_type_hints(cls)
    for field in dataclasses.fields(cls):
        name = f"{path}{field.name.rstrip('_')}"
        yield name
        for part in (hints[field.name], *get_args(hints[field.name])):
            if dataclasses.is_dataclass(part) and isinstance(part, type) and part is not DriverConfig:
                yield from settings_of(part, f"{name}.")


def every_key(text: str) -> set[str]:
    """Keys and table names of a template, commented out or not."""
    keys = re.findall(r"^#? ?\[*([A-Za-z0-9_.-]+)\]* *(?:=|$)", text, re.MULTILINE)
    return {part for key in keys for part in key.split(".")}


@pytest.mark.parametrize("types", [[], *([name] for name in TYPES), TYPES], ids=str)
def test_the_template_loads_and_satisfies_the_schema(tmp_path: Path, types: list[str]) -> None:
    path = tmp_path / "tidegate.toml"
    path.write_text(template(types))
    config = load(path)
    assert [driver.manifest.name for driver in config.drivers.values()] == types
    assert list(violations(schema(), tomllib.loads(path.read_text()))) == []


def test_no_sample_lets_in_whoever_knows_the_sample(tmp_path: Path) -> None:
    """Boards keep what `init` wrote. Nobody knows a token whose hash is nothing but zeros."""
    path = tmp_path / "tidegate.toml"
    path.write_text(template(["http"]))
    [driver] = load(path).drivers.values()
    assert not driver.settings.anonymous
    assert {token.sha256 for token in driver.settings.tokens.values()} == {"0" * 64}


@pytest.mark.parametrize("types", [[], TYPES], ids=str)
def test_every_line_shown_in_the_template_is_right_when_taken_into_use(
    tmp_path: Path, types: list[str]
) -> None:
    path = tmp_path / "tidegate.toml"
    text = re.sub(r"^#(?=[a-z\[])", "", template(types), flags=re.MULTILINE)
    if not types:
        text += '[drivers.any]\ntype = "simulated"\n'
    path.write_text(text)
    load(path)
    assert list(violations(schema(), tomllib.loads(text))) == []


def test_the_template_shows_every_setting() -> None:
    shown = every_key(template(TYPES))
    assert [name for name in settings_of(Config) if not set(name.split(".")) <= shown] == []


def test_the_reference_names_every_setting() -> None:
    text = reference()
    for name in settings_of(Config):
        section, _, key = name.partition(".")
        assert f"[{section}" in text
        assert not key or f"| `{key}` |" in text


def test_the_reference_says_what_a_relative_data_dir_is_relative_to() -> None:
    [row] = [line for line in reference().splitlines() if line.startswith("| `data_dir` |")]
    assert "a relative path begins at the folder of the configuration file" in row


@pytest.mark.parametrize("driver_type", TYPES)
def test_a_driver_s_reference_names_every_setting(driver_type: str) -> None:
    text = driver_reference(driver_type).replace("[].", ".").replace(".NAME.", ".")
    for name in settings_of(load_manifest(driver_type).config):
        assert f"| `{name}` |" in text


def test_the_schema_has_every_setting_and_is_json() -> None:
    whole = json.loads(json.dumps(schema()))
    for name in settings_of(Config):
        part = whole
        for key in name.split("."):
            part = part.get("items", part)["properties"][key]
        assert part["description"]


@pytest.mark.parametrize(
    ("wrong", "where"),
    [
        ('gateway.data_dir = "~/data"', "/gateway/data_dir"),
        ('queue.max_bytes = "2 Gib"', "/queue/max_bytes"),
        ('kafka.delivery = "twice"', "/kafka/delivery"),
        ("log.colour = 1", "/log/colour"),
        ('drivers.web.type = "htp"', "/drivers/web/type"),
        ('drivers.web = { type = "http", listen = "127.0.0.1:1", anonymos = true }', "/drivers/web/anonymos"),
        ('drivers.web = { type = "http", listen = "127.0.0.1" }', "/drivers/web/listen"),
        ('routes = [{ topic = "t" }]', "/routes/0"),
        ('kafka.sasl = { mechanism = "PLAIN", user = "u", password = "secret" }', "/kafka/sasl/password"),
    ],
)
def test_an_editor_sees_the_same_mistakes(wrong: str, where: str) -> None:
    text = f'gateway.id = "g"\nkafka.bootstrap_servers = ["k:1"]\n{wrong}\n'
    found = list(violations(schema(), tomllib.loads(text)))
    assert found
    assert all(problem.startswith(f"{where}:") for problem in found)


def test_the_settings_in_force_load_again_as_the_same(tmp_path: Path) -> None:
    path = tmp_path / "tidegate.toml"
    path.write_text(template(["http", "simulated"]))
    config = load(path)
    again = tmp_path / "again.toml"
    again.write_text(describe(config))
    assert load(again) == config
