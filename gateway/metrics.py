"""Counters and gauges, rendered as Prometheus text (exposition format 0.0.4)."""

from collections.abc import Callable

Series = tuple[str, tuple[tuple[str, str], ...]]
"""Name and labels."""


class Counter:
    """Add to `value` directly; one event loop, no lock."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0


class Metrics:
    """All series of one gateway. Asking twice for the same series gives the same counter."""

    def __init__(self) -> None:
        self._help: dict[str, tuple[str, str]] = {}
        self._counters: dict[Series, Counter] = {}
        self._read: dict[Series, Callable[[], float]] = {}

    def counter(self, name: str, doc: str, **labels: str) -> Counter:
        self._help[name] = ("counter", doc)
        return self._counters.setdefault((name, tuple(sorted(labels.items()))), Counter())

    def gauge(self, name: str, doc: str, read: Callable[[], float], **labels: str) -> None:
        self._help[name] = ("gauge", doc)
        self._read[(name, tuple(sorted(labels.items())))] = read

    def total(self, name: str, doc: str, read: Callable[[], float], **labels: str) -> None:
        """A counter that is counted elsewhere: what `read` gives must not fall."""
        self._help[name] = ("counter", doc)
        self._read[(name, tuple(sorted(labels.items())))] = read

    def forget(self, label: str, value: str) -> None:
        """Every series with this label: what it told of is no more, and must not look as if it had failed."""
        for kept in (self._counters, self._read):
            for series in [one for one in kept if (label, value) in one[1]]:
                del kept[series]

    def render(self) -> str:
        samples: dict[str, list[str]] = {}
        for (name, labels), counter in self._counters.items():
            samples.setdefault(name, []).append(f"{_series(name, labels)} {counter.value}")
        for (name, labels), read in self._read.items():
            samples.setdefault(name, []).append(f"{_series(name, labels)} {read()}")
        lines = []
        for name in sorted(samples):
            kind, doc = self._help[name]
            lines += [f"# HELP {name} {doc}", f"# TYPE {name} {kind}", *samples[name]]
        return "\n".join(lines) + "\n"


def _series(name: str, labels: tuple[tuple[str, str], ...]) -> str:
    if not labels:
        return name
    quoted = (
        f'{key}="{value}"'
        for key, value in (
            (key, value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n"))
            for key, value in labels
        )
    )
    return f"{name}{{{','.join(quoted)}}}"
