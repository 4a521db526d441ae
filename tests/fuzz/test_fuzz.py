"""A little of `make fuzz`, and that it finds what it looks for."""

import random
from pathlib import Path

import pytest

from drivers.coap import cbor
from tests.fuzz import fuzz
from tests.fuzz.branches import Branches
from tests.fuzz.fuzz import TARGETS, Found
from tests.fuzz.target import Target

CASES = sorted((Path(__file__).parent / "cases").glob("*/*"))
INPUTS = 1000
INPUTS_OF_CONFIGURATIONS = 100


@pytest.mark.slow
@pytest.mark.proof
@pytest.mark.parametrize("name", TARGETS)
def test_hostile_input(name: str) -> None:
    fuzz.watch_for_hangs()
    count = INPUTS_OF_CONFIGURATIONS if name == "config" else INPUTS
    fuzz.tell_of(fuzz.fuzz(TARGETS[name], count, "ci"), f"make fuzz N={count} SEED=ci TARGET={name}")


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.parent.name}/{case.name}")
def test_what_was_found(case: Path) -> None:
    fuzz.watch_for_hangs()
    target = TARGETS[case.parent.name]
    fuzz.once(target, case.read_bytes(), random.Random(1), Branches(target.modules))


def _target(run: object) -> Target:
    assert callable(run)
    return Target("planted", [cbor], [b"\x83\1\2\3"], [b"\xc4\x82\x20"], run, 400)


def test_an_error_that_escapes_is_found_and_told_with_its_input() -> None:
    def run(data: bytes, chance: random.Random) -> bool:
        cbor.decode(data)
        return True

    with pytest.raises(Found, match=r"(?s)planted, input \d+, \d+ bytes: .*ValueError.*\n[0-9a-f]*$"):
        fuzz.fuzz(_target(run), 1000, "1")


def test_an_input_that_costs_too_much_is_found() -> None:
    def run(data: bytes, chance: random.Random) -> bool:
        for _ in range(2000):
            cbor.decode(b"\x83\1\2\3")
        return True

    with pytest.raises(Found, match="bytecodes for 4 bytes"):
        fuzz.fuzz(_target(run), 1, "1")


def test_an_input_that_hangs_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(data: bytes, chance: random.Random) -> bool:
        while True:
            pass

    monkeypatch.setattr(fuzz, "HANG_S", 0.05)
    fuzz.watch_for_hangs()
    with pytest.raises(Found, match="no end within"):
        fuzz.fuzz(_target(run), 1, "1")


def test_inputs_that_reach_new_branches_are_changed_further() -> None:
    """From three small numbers to every kind of item that is read."""

    def run(data: bytes, chance: random.Random) -> bool:
        try:
            cbor.decode(data)
        except ValueError:
            return False
        return True

    result = fuzz.fuzz(_target(run), 5000, "1")
    assert result.seeds_branches < result.branches_all / 3
    assert result.branches > result.branches_all * 2 / 3
    assert result.corpus > 10
