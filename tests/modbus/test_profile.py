"""Profiles: those that are built in are sound, and one's own says what is wrong with it."""

import os
from pathlib import Path

import pytest

from drivers.modbus import DRIVER, Config, problems
from drivers.modbus.profile import FOLDER, built_in, load
from drivers.modbus.register import Register
from drivers.modbus.unit import Unit
from gateway.config import load as load_configuration
from gateway.errors import ConfigError
from gateway.settings import Address

README = FOLDER.parent / "README.md"


def config(**unit: object) -> Config:
    return Config(tcp=Address("127.0.0.1", 502), units=[Unit(address=1, device="d", **unit)])  # type: ignore[arg-type]


@pytest.mark.parametrize("name", built_in())
def test_a_built_in_profile_is_sound_and_named_in_the_readme(name: str) -> None:
    profile = load(name)
    assert profile.summary
    assert profile.source
    assert problems(config(profile=name)) == []
    assert f"`{name}`" in README.read_text()


def test_own_profile(tmp_path: Path) -> None:
    path = tmp_path / "dryer.toml"
    path.write_text(
        'summary = "Dryer"\nsource = "its manual"\nword_order = "little"\nregisters_max = 20\n'
        '[registers]\nstate = { at = 3, names = { 0 = "off" } }\nweight = { at = 4, type = "float32", scale = 2 }\n'
    )
    unit = config(profile=str(path), only=["w*"], registers={"own": Register(at=9)}).units[0]
    assert list(unit.values()) == ["weight", "own"]
    assert unit.orders() == ("little", "big")
    assert unit.limits(15) == (20, 15)
    path.write_text('summary = "Dryer"\nsource = "its manual"\n[registers]\nwidth = { at = 3 }\n')
    os.utime(path, (1, 1))
    assert list(unit.values()) == ["width", "own"]


CONFIGURATION = """
[gateway]
id = "plant-7"
default_topic = "all"
[kafka]
bootstrap_servers = ["127.0.0.1:1"]
[drivers.hall]
type = "modbus"
tcp = "127.0.0.1:502"
[[drivers.hall.units]]
address = 1
device = "dryer"
profile = "./own.toml"
"""


def test_a_path_is_relative_to_the_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever the command is run, and however the configuration is named."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "tidegate.toml").write_text(CONFIGURATION)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as raised:
        load_configuration(Path("site/tidegate.toml"))
    assert str(raised.value) == (
        f"site/tidegate.toml:13: drivers.hall.units[0].profile: profile {site}/own.toml: there is no such file"
    )
    (site / "own.toml").write_text('summary = "Dryer"\nsource = "its manual"\n[registers]\na = { at = 1 }\n')
    for folder, path in (
        (tmp_path, "site/tidegate.toml"),
        (site, "tidegate.toml"),
        (site, "../site/tidegate.toml"),
    ):
        monkeypatch.chdir(folder)
        loaded = load_configuration(Path(path)).drivers["hall"].settings
        monkeypatch.chdir("/")
        assert list(loaded.units[0].values()) == ["a"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "needs a table [registers]"),
        ("[registers]\na = 1", "registers.a must be a table"),
        ("[registers]\na = { at = 1, form = 'x' }", "registers.a.form is unknown; known are at, table"),
        ("[registers]\na = { at = true }", "registers.a.at: True is not possible"),
        ("[registers]\na = { at = 1, type = 'float' }", "registers.a.type: 'float' is not possible"),
        ("[registers]\na = { at = 1, names = { 0 = 1 } }", "registers.a.names: {'0': 1} is not possible"),
        ("[registers]\na = { table = 'input' }", "registers.a.at is missing"),
        ("[registers]\na = { at = 65536 }", "registers.a.at: the addresses are 0 to 65535, and it takes 1"),
        ("[registers]\na = { at = 1, scale = 0 }", "registers.a.scale: must not be 0"),
        ("[registers]\na = { at = 1 }", "source is missing"),
        ("[registers", "Expected ']'"),
        ("\udcff", "can't decode byte"),
    ],
)
def test_what_is_wrong_with_a_profile(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "own.toml"
    path.write_text(f"summary = 'x'\n{text}", errors="surrogateescape")
    (problem,) = problems(config(profile=str(path)))
    assert problem[0] == "units[0].profile"
    assert problem[1].startswith(f"profile {path}: ")
    assert expected in problem[1]


def test_a_profile_that_is_not_there() -> None:
    assert DRIVER.problems(config(profile="eastron-sdm23O")) == [
        (
            "units[0].profile",
            f"no profile 'eastron-sdm23O'; there are {', '.join(built_in())}; a path with a slash is your own",
        )
    ]
