"""Writes TOML; the standard library only reads it."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def write_key(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) else write_value(key)


def write_value(value: Any) -> str:
    if isinstance(value, str):
        # JSON's escapes are TOML's, but for DEL and the surrogate pairs that ensure_ascii would make.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list):
        return f"[{', '.join(map(write_value, value))}]"
    if isinstance(value, Mapping):
        pairs = ", ".join(f"{write_key(key)} = {write_value(item)}" for key, item in value.items())
        return f"{{ {pairs} }}" if pairs else "{}"
    return json.dumps(value)


def write_table(table: Mapping[str, Any]) -> str:
    return "\n".join(_lines(table, "")).strip() + "\n"


def _lines(table: Mapping[str, Any], path: str) -> Iterator[str]:
    inner = {key: value for key, value in table.items() if _has_header(value)}
    yield from (
        f"{write_key(key)} = {write_value(value)}" for key, value in table.items() if key not in inner
    )
    for key, value in inner.items():
        here = f"{path}.{write_key(key)}" if path else write_key(key)
        if isinstance(value, Mapping):
            yield from ("", f"[{here}]", *_lines(value, here))
        else:
            for item in value:
                yield from ("", f"[[{here}]]", *_lines(item, here))


def _has_header(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and all(isinstance(item, Mapping) for item in value)
    return isinstance(value, Mapping)
