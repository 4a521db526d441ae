"""The JSON Schema of the configuration, for completion and checks in editors.

It takes everything that `load` takes. What needs arithmetic or the whole file (ranges of quantities, routes, listeners) only `load` refuses.
"""

from typing import Any

from gateway.config.model import Config
from gateway.config.tables import TableKind


def schema() -> dict[str, Any]:
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "tidegate configuration",
        **TableKind(Config).schema(),
    }
