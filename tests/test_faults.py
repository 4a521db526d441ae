"""The page of faults in drivers/README.md has a row for every fault that a test injects, and no other."""

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.faults import KINDS, Fault, written

HERE = Path(__file__).parent


def marked() -> Iterator[Fault]:
    for path in HERE.rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.fault":
                kind, what = (ast.literal_eval(argument) for argument in node.args[:2])
                yield kind, path.parent.name, what


def test_the_page_has_a_row_for_every_fault() -> None:
    found = set(marked())
    assert {kind for kind, _, _ in found} <= KINDS.keys()
    assert written() == found
