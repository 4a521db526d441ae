"""What must be made anew when the configuration is read again."""

from pathlib import Path

import pytest

from gateway.config import Changes, changes, load

OLD = """
[gateway]
id = "plant-7"
default_topic = "all"
[queue]
[kafka]
bootstrap_servers = ["kafka-1:9092"]
[metrics]
[log]
[drivers.one]
type = "simulated"
[drivers.two]
type = "simulated"
"""


def changed(folder: Path, old: str, new: str) -> Changes:
    paths = [folder / "old.toml", folder / "new.toml"]
    paths[0].write_text(OLD)
    paths[1].write_text(OLD.replace(old, new))
    return changes(*map(load, paths))


def told(changes: Changes) -> dict[str, object]:
    """What is said of something; names sorted."""
    found = {name: getattr(changes, name) for name in changes.__dataclass_fields__}
    return {
        name: sorted(value) if isinstance(value, frozenset) else value
        for name, value in found.items()
        if value
    }


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("", "", {}),
        ("[drivers.two]", "seed = 2\n[drivers.two]", {"drivers_changed": ["one"]}),
        ("[drivers.two]", "[drivers.three]", {"drivers_added": ["three"], "drivers_removed": ["two"]}),
        (
            'two]\ntype = "simulated"',
            'two]\ntype = "http"\nlisten = "127.0.0.1:1"\nanonymous = true',
            {"drivers_changed": ["two"]},
        ),
        ('"all"', '"others"', {"routes": True}),
        ("[drivers.one]", '[[routes]]\nfrom = "*"\ntopic = "t"\n[drivers.one]', {"routes": True}),
        ("kafka-1", "kafka-2", {"restart_sync": True}),
        ("[log]", '[log]\nlevel = "debug"', {"log": True}),
        ("[metrics]", '[metrics]\nlisten = "127.0.0.1:2"', {"metrics": True}),
        ("[queue]", '[queue]\nmax_bytes = "8 MiB"', {"needs_restart": ("queue.max_bytes",)}),
        ("plant-7", "plant-8", {"needs_restart": ("gateway.id",)}),
        (
            "[kafka]",
            '[kafka]\nledger_topic = "x"',
            {"restart_sync": True, "needs_restart": ("kafka.ledger_topic",)},
        ),
    ],
)
def test_only_what_changed_is_told(tmp_path: Path, old: str, new: str, expected: dict[str, object]) -> None:
    found = changed(tmp_path, old, new)
    assert told(found) == expected
    assert bool(found) == bool(expected)
