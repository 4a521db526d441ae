"""House rules that no linter knows."""

import ast
import dataclasses
import importlib
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = [path for top in ("gateway", "drivers", "tests") for path in sorted((ROOT / top).rglob("*.py"))]
PRODUCT = [path for path in SOURCES if path.relative_to(ROOT).parts[0] != "tests"]
DRIVERS = sorted(path.parent for path in (ROOT / "drivers").glob("*/__init__.py"))

FILE_LINES_MAX = 600
FUNCTION_LINES_MAX = 70
BANNED_NAMES = {"utils", "util", "helpers", "common", "base", "manager", "misc"}
MAY_CATCH_EVERYTHING = {"gateway/cli", "gateway/runtime"}
MAY_PATCH: set[str] = set()


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_files_and_functions_are_short_and_named_for_what_they_are(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= FILE_LINES_MAX
    assert not BANNED_NAMES & {path.stem, path.parent.name}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < FUNCTION_LINES_MAX, f"{node.name} is too long"


def test_only_the_supervisor_and_the_command_line_catch_everything() -> None:
    catchers = set()
    for path in PRODUCT:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ExceptHandler):
                kind = ast.unparse(node.type) if node.type else ""
                passes_on = isinstance(node.body[-1], ast.Raise)
                if kind in ("", "Exception", "BaseException") and not passes_on:
                    catchers.add("/".join(path.relative_to(ROOT).parts[:2]))
    assert catchers <= MAY_CATCH_EVERYTHING


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_no_mocks(path: Path) -> None:
    imported = {
        module
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for module in [getattr(node, "module", None), *(alias.name for alias in node.names)]
    }
    assert not imported & {"unittest.mock", "mock"} or name(path) in MAY_PATCH


@pytest.mark.parametrize("folder", DRIVERS, ids=lambda path: path.name)
def test_a_driver_folder_has_its_shape_and_documents_every_setting(folder: Path) -> None:
    module = importlib.import_module(f"drivers.{folder.name}")
    assert {"driver.py", "protocol.py", "sample.toml", "README.md"} <= {
        path.name for path in folder.iterdir()
    }
    sample = (folder / "sample.toml").read_text()
    tomllib.loads(sample)
    readme = (folder / "README.md").read_text()
    for field in dataclasses.fields(module.Config):
        assert field.name in sample, f"{field.name} is not in sample.toml"
        assert field.name in readme, f"{field.name} is not in README.md"
