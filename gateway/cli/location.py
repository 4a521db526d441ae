"""Which configuration a command is about."""

import os
from pathlib import Path

VARIABLE = "TIDEGATE_CONFIG"
HERE = Path("tidegate.toml")
INSTALLED = Path("/etc/tidegate/tidegate.toml")
RULE = f"Without it ${VARIABLE}, {HERE} here, or {INSTALLED}."


def configuration_path(given: Path | None) -> Path:
    if given is not None:
        return given
    if VARIABLE in os.environ:
        return Path(os.environ[VARIABLE])
    return HERE if HERE.exists() else INSTALLED
