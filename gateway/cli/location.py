"""Which configuration a command is about, and what it says."""

import os
from pathlib import Path

from gateway.config import Config, load
from gateway.errors import CommandError, ConfigUnreadable

VARIABLE = "TIDEGATE_CONFIG"
HERE = Path("tidegate.toml")
INSTALLED = Path("/etc/tidegate/tidegate.toml")
RULE = f"Without it ${VARIABLE}, {HERE} here, or {INSTALLED}."


def configuration_path(given: Path | None) -> Path:
    if given is not None:
        return given
    if VARIABLE in os.environ:
        return Path(os.environ[VARIABLE])
    # A folder that may not be looked into, as root's is for the gateway's user, has none.
    return HERE if os.access(HERE, os.F_OK) else INSTALLED


def configured(given: Path | None) -> Config:
    """Raises ConfigError, CommandError."""
    path = configuration_path(given)
    try:
        return load(path)
    except ConfigUnreadable as error:
        if error.missing:
            raise CommandError(f"no configuration: {_nowhere(given, path)}", os.EX_NOINPUT) from error
        if error.not_permitted:
            raise CommandError(
                f"{error}; run this as root, or as the user of the gateway", os.EX_NOPERM
            ) from error
        raise CommandError(str(error), os.EX_NOINPUT) from error


def _nowhere(given: Path | None, path: Path) -> str:
    """Where there is none, and what to do."""
    if given is not None:
        return f"{path} is not there; name another one with -c, or write one with `tidegate init {path}`"
    if VARIABLE in os.environ:
        return (
            f"{path} is not there, which ${VARIABLE} names; set it to another one, name one with -c, "
            f"or write one with `tidegate init {path}`"
        )
    return (
        f"neither ./{HERE} nor {path} is there; name one with -c or ${VARIABLE}, "
        "or write one with `tidegate init`"
    )
