"""House rules that no linter knows."""

import ast
import dataclasses
import importlib
import tomllib
from functools import cache
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


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def test_files_and_functions_are_short_and_named_for_what_they_are() -> None:
    wrong = []
    for path in SOURCES:
        text = path.read_text()
        if text.count("\n") > FILE_LINES_MAX:
            wrong.append(f"{name(path)}: more than {FILE_LINES_MAX} lines")
        if BANNED_NAMES & {path.stem, path.parent.name}:
            wrong.append(f"{name(path)}: a name that says nothing")
        wrong += [
            f"{name(path)}: {node.name} has more than {FUNCTION_LINES_MAX} lines"
            for node in ast.walk(tree(path))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            and (node.end_lineno or 0) - node.lineno >= FUNCTION_LINES_MAX
        ]
    assert wrong == []


def test_only_the_supervisor_and_the_command_line_catch_everything() -> None:
    catchers = set()
    for path in PRODUCT:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ExceptHandler):
                kind = ast.unparse(node.type) if node.type else ""
                passes_on = isinstance(node.body[-1], ast.Raise)
                if kind in ("", "Exception", "BaseException") and not passes_on:
                    catchers.add("/".join(path.relative_to(ROOT).parts[:2]))
    assert catchers <= MAY_CATCH_EVERYTHING


def test_no_mocks() -> None:
    mocking = set()
    for path in SOURCES:
        imported = {
            module
            for node in ast.walk(tree(path))
            if isinstance(node, ast.Import | ast.ImportFrom)
            for module in [getattr(node, "module", None), *(alias.name for alias in node.names)]
        }
        if imported & {"unittest.mock", "mock"}:
            mocking.add(name(path))
    assert mocking <= MAY_PATCH


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
