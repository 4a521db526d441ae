"""`make faults` runs the tests that are marked as a fault's, and writes what it saw into drivers/README.md.

A test says which fault it injects: `@pytest.mark.fault("line", "an answer comes after its time-out")`. Its folder below
tests/ names the driver. Loaded with `-p tests.faults`; without it the mark only shows where a fault is tested.
"""

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "drivers" / "README.md"
BEGIN, END = "<!-- written by `make faults` -->\n", "<!-- end -->\n"
KINDS = {
    "input": "Malformed and random input: no crash, no record, counted",
    "repeat": "Sent again, or too much of it: stored once, memory bounded",
    "line": "A bad line, a bad device: never a wrong value, the neighbours go on",
}

Fault = tuple[str, str, str]
"""(kind, driver, what is injected)"""


def table(counted: Iterable[tuple[Fault, int, int]]) -> str:
    """`counted` is (fault, cases that passed, cases that were run)."""
    found = {fault: (passed, ran) for fault, passed, ran in counted}
    text = ""
    for kind, heading in KINDS.items():
        text += f"\n{heading}:\n\n| driver | injected | cases | passed |\n|---|---|---|---|\n"
        for fault in sorted(fault for fault in found if fault[0] == kind):
            passed, ran = found[fault]
            text += f"| {fault[1]} | {fault[2]} | {ran} | {passed} |\n"
    return text


def written() -> set[Fault]:
    """The faults that the page has a row for."""
    kinds = {heading: kind for kind, heading in KINDS.items()}
    kind, found = "", set()
    for line in PAGE.read_text().partition(BEGIN)[2].partition(END)[0].splitlines():
        kind = kinds.get(line.removesuffix(":"), kind)
        row = re.fullmatch(r"\| (\w+) \| (.+) \| \d+ \| \d+ \|", line)
        if row:
            found.add((kind, row[1], row[2]))
    return found


class Writer:
    def __init__(self) -> None:
        self._of: dict[str, Fault] = {}
        self._ran: Counter[Fault] = Counter()
        self._passed: Counter[Fault] = Counter()

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in list(items):
            mark = item.get_closest_marker("fault")
            if mark is None:
                items.remove(item)
            else:
                driver = item.path.parent.name
                self._of[item.nodeid] = (mark.args[0], driver, mark.args[1])

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call":
            fault = self._of[report.nodeid]
            self._ran[fault] += 1
            self._passed[fault] += report.passed

    def pytest_sessionfinish(self) -> None:
        counted = [(fault, self._passed[fault], ran) for fault, ran in self._ran.items()]
        before, _, rest = PAGE.read_text().partition(BEGIN)
        _, _, after = rest.partition(END)
        PAGE.write_text(before + BEGIN + table(counted) + "\n" + END + after)


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Writer(), "fault-writer")
