"""What the folder of every driver must hold. Each check raises NotConforming."""

import dataclasses
import importlib
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

from gateway.driver import Manifest

FILES = ("__init__.py", "driver.py", "protocol.py", "sample.toml", "README.md")


class NotConforming(AssertionError):
    pass


def need(condition: bool, otherwise: str) -> None:
    if not condition:
        raise NotConforming(otherwise)


def manifest(folder: Path) -> Manifest:
    found = importlib.import_module(f"drivers.{folder.name}").DRIVER
    need(isinstance(found, Manifest), "DRIVER is not a Manifest")
    return found  # type: ignore[no-any-return]


def settings_fields(config: type[Any]) -> Iterator["dataclasses.Field[Any]"]:
    """Fields of a settings class and of the classes in it."""
    hints = get_type_hints(config)
    for field in dataclasses.fields(config):
        yield field
        for inner in _settings_classes(hints[field.name]):
            yield from settings_fields(inner)


def _settings_classes(hint: Any) -> Iterator[type[Any]]:
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        yield hint
    for argument in get_args(hint):
        yield from _settings_classes(argument)


def has_its_shape(folder: Path) -> None:
    for name in FILES:
        need((folder / name).is_file(), f"{name} is missing")
    cases = (
        [case for case in (folder / "cases").iterdir() if case.is_dir()]
        if (folder / "cases").is_dir()
        else []
    )
    need(bool(cases), "cases/ has no case")
    for case in cases:
        need(
            (case / "expected.jsonl").is_file() or (case / "error.txt").is_file(),
            f"{case.name} expects nothing",
        )


def declares_itself(folder: Path) -> None:
    found = manifest(folder)
    need(found.name == folder.name, f"DRIVER.name is {found.name}")
    need(bool(found.summary), "DRIVER.summary is empty")
    need(found.factory.startswith(f"drivers.{folder.name}."), f"DRIVER.factory is {found.factory}")
    for field in settings_fields(found.config):
        need(bool(field.metadata.get("doc")), f"setting {field.name} has no doc")
    need(
        found.config.__dataclass_params__.frozen and all(f.kw_only for f in dataclasses.fields(found.config)),
        "Config is not frozen and kw_only",
    )


def imports_nothing_early(folder: Path) -> None:
    """To read a configuration, neither the driver's module nor a library of its is imported."""
    program = f"import json, sys; import drivers.{folder.name}; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    bare = subprocess.run(
        [sys.executable, "-c", "import json, sys; print(json.dumps(sorted(sys.modules)))"],
        capture_output=True,
        text=True,
        check=True,
    )
    modules = set(json.loads(done.stdout)) - set(json.loads(bare.stdout))
    need(manifest(folder).factory.partition(":")[0] not in modules, "the driver's module is imported early")
    tops = {module.partition(".")[0] for module in modules}
    foreign = sorted(tops - sys.stdlib_module_names - {"gateway", "drivers"})
    need(not foreign, f"imported early: {', '.join(foreign)}")


def has_a_sample(folder: Path) -> None:
    text = (folder / "sample.toml").read_text()
    tables = tomllib.loads(text).get("drivers", {})
    need(len(tables) == 1, "sample.toml is not one table [drivers.<name>]")
    need(next(iter(tables.values())).get("type") == folder.name, f'sample.toml has no type = "{folder.name}"')
    for field in settings_fields(manifest(folder).config):
        key = re.escape(field.name)
        named = re.search(rf"^[# ]*{key} *=|^[# ]*\[.*\.{key}[.\]]", text, re.MULTILINE)
        need(named is not None, f"sample.toml doesn't name {field.name}")


def has_a_readme(folder: Path) -> None:
    text = (folder / "README.md").read_text()
    for field in settings_fields(manifest(folder).config):
        need(
            re.search(rf"`([^`]*\.)?{re.escape(field.name)}`", text) is not None,
            f"README.md doesn't name `{field.name}`",
        )


FOLDER_CHECKS: tuple[Callable[[Path], None], ...] = (
    has_its_shape,
    declares_itself,
    imports_nothing_early,
    has_a_sample,
    has_a_readme,
)
