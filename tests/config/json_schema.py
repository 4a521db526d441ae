"""As much of JSON Schema (draft 2020-12) as the configuration's schema uses; an unknown keyword is an error."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

TYPES: Mapping[str, Any] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "integer": int,
    "number": (int, float),
}
PASSIVE = {"$schema", "title", "type", "description", "default", "then"}


def violations(schema: Any, value: Any, path: str = "") -> Iterator[str]:
    if schema is True:
        return
    if schema is False:
        yield f"{path}: not allowed"
        return
    kind = schema.get("type", "")
    if kind and (not isinstance(value, TYPES[kind]) or (isinstance(value, bool) and kind != "boolean")):
        yield f"{path}: not of type {kind}"
        return
    for keyword in schema:
        if keyword not in PASSIVE:
            yield from _check(keyword, schema, value, path)


def _check(keyword: str, schema: Mapping[str, Any], value: Any, path: str) -> Iterator[str]:
    rule = schema[keyword]
    match keyword:
        case "properties":
            for name, part in rule.items():
                if name in value:
                    yield from violations(part, value[name], f"{path}/{name}")
        case "additionalProperties":
            for name in value.keys() - schema.get("properties", {}).keys():
                yield from violations(rule, value[name], f"{path}/{name}")
        case "items":
            for index, item in enumerate(value):
                yield from violations(rule, item, f"{path}/{index}")
        case "allOf":
            for part in rule:
                yield from violations(part, value, path)
        case "anyOf":
            if all(list(violations(part, value, path)) for part in rule):
                yield f"{path}: none of {rule}"
        case "if":
            if not list(violations(rule, value, path)):
                yield from violations(schema["then"], value, path)
        case _:
            if not _holds(keyword, rule, value):
                yield f"{path}: {keyword} {rule}"


def _holds(keyword: str, rule: Any, value: Any) -> bool:
    match keyword:
        case "required":
            return bool(set(rule) <= value.keys())
        case "enum":
            return bool(value in rule)
        case "const":
            return bool(value == rule)
        case "pattern":
            return re.search(rule, value) is not None
        case "minimum":
            return bool(value >= rule)
        case "maximum":
            return bool(value <= rule)
        case "minItems" | "minLength" | "minProperties":
            return bool(len(value) >= rule)
        case "maxItems" | "maxLength" | "maxProperties":
            return bool(len(value) <= rule)
    raise ValueError(f"unknown keyword {keyword}")
