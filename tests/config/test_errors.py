"""Every mistake in errors/*.toml is told as errors/*.txt says, all of a file's at once."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.config import Config, driver_types, load, template
from gateway.errors import ConfigError

CASES = sorted((Path(__file__).parent / "errors").glob("*.toml"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_mistakes_are_told_with_file_line_path_and_what_would_be_right(
    case: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(case.parent)
    expected = case.with_suffix(".txt").read_text().replace("{types}", ", ".join(driver_types()))
    with pytest.raises(ConfigError) as raised:
        load(Path(case.name))
    assert [*raised.value.problems, ""] == expected.split("\n")


def test_a_secret_in_the_wrong_place_is_not_printed() -> None:
    with pytest.raises(ConfigError) as raised:
        load(Path(__file__).parent / "errors/secrets.toml")
    assert "hunter" not in str(raised.value)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "can't be read: No such file or directory"),
        (b"x" * (300 << 10), "larger than 256 KiB; is this the right file?"),
        (b"a = " + b"[" * 5000, "1: nested too deeply"),
        (b"\n" + b".".join([b"a"] * 5000) + b" = 1", "1: nested too deeply"),
        (b"a = 1\nb = " + b"9" * 5000, "2: a number is too long"),
    ],
    ids=["no file", "large", "deep array", "deep key", "long number"],
)
def test_what_is_no_configuration_at_all(tmp_path: Path, content: bytes | None, told: str) -> None:
    path = tmp_path / "tidegate.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError) as raised:
        load(path)
    assert str(raised.value).removeprefix(f"{path}:").strip() == told


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a.b = 1\n\na.b = 2\n", "3: a.b: is there twice, first in line 1; keep one of them"),
        ("[a]\nb = 1\n[c]\n[a]\n", "4: a: is there twice, first in line 1; keep one of them"),
        ("[a]\nb = 1\n[[a]]\n", "3: a: is there twice, first in line 1; keep one of them"),
        ("[[a]]\nb = 1\n[[a]]\nb = 1\nb = 2", "5: a[1].b: is there twice, first in line 4; keep one of them"),
        ('a = """\n\n"""\nb = 1\na = [\n1,\n]\n', "5: a: is there twice, first in line 1; keep one of them"),
        ('a = { "b c" = 1, "b c" = 2 }', "1: 'b c' is there twice in one table; keep one of them"),
        ("a = 1\n[a", "2: a: is there twice, first in line 1; keep one of them"),
        (
            (".".join("k" * 50) + " = 1\n") * 2,
            "2: not valid TOML at column 104: cannot overwrite a value",
        ),
        ("a = [\n[1]]\na = [\n[1]]\n", "3: a: is there twice, first in line 1; keep one of them"),
        ("a = '\u2028'\na = 1\n", "2: a: is there twice, first in line 1; keep one of them"),
        ("x = { a = 1, a.b = 2 }", "1: not valid TOML at column 21: cannot overwrite a value"),
        ('"a\u2028b" = 1\n' * 2, '2: "a b": is there twice, first in line 1; keep one of them'),
        ("[[a]]\n[a]", "2: a: is there twice, first in line 1; keep one of them"),
        ("a = 1\n[a.b]", "2: not valid TOML at column 5: cannot overwrite a value"),
    ],
)
def test_what_is_there_twice_is_named_with_both_its_lines(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "tidegate.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as raised:
        load(path)
    assert raised.value.problems == [f"{path}:{told}"]


TEMPLATE = template(["http", "simulated"])
WORDS = (*TEMPLATE.split(), "[[", "]]", "{", "}", "'", '"', '"""', "'''", "\\", "=", ".", ",", "\n", "#")
WORDS += ("nan", "0x" + "f" * 5000, "9" * 5000, "1979-05-27", "\x00", "\u2028", "\U0001f600", "[[routes]]\n")
pieces = st.lists(st.sampled_from(WORDS) | st.text(max_size=4), max_size=12).map(" ".join)


@settings(max_examples=200)
@given(pieces, st.integers(0, len(TEMPLATE)), st.integers(0, 60))
def test_any_text_is_a_configuration_or_an_error_that_says_where(
    tmp_path_factory: pytest.TempPathFactory, inserted: str, at: int, instead_of: int
) -> None:
    path = tmp_path_factory.getbasetemp() / f"any-{os.getpid()}.toml"
    for text in (inserted, TEMPLATE[:at] + inserted + TEMPLATE[at + instead_of :]):
        path.write_text(text, errors="replace")
        loaded = problems_or_configuration(path)
        if isinstance(loaded, list):
            assert loaded
            assert all(problem.startswith(f"{path}:") for problem in loaded)
            assert not any(len(problem.splitlines()) > 1 for problem in loaded)


def problems_or_configuration(path: Path) -> list[str] | Config:
    try:
        return load(path)
    except ConfigError as error:
        return error.problems
