"""Settings within settings, with their paths in the configuration."""

import dataclasses
from collections.abc import Iterator
from typing import Any


def nested(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """(path, value) of `value` and of all that is in it; a table comes before its settings."""
    yield path, value
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from nested(f"{path}.{field.name.rstrip('_')}", getattr(value, field.name))
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from nested(f"{path}.{name}", item)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from nested(f"{path}[{index}]", item)
