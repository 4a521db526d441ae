"""Secrets: read when they are used, from the environment, a file or a systemd credential; never printed."""

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from gateway.config.kinds import INVALID, PathKind, sort_of
from gateway.config.nested import nested
from gateway.config.report import Place, did_you_mean
from gateway.settings import Form, Secret

INSTALLED, INSTALLED_PREFIX = Path("/etc/tidegate/credentials"), "tidegate_"
"""What deploy/systemd/tidegate.service loads, and how systemd names it then. A shell gets nothing from systemd."""

_SHAPES = '{ env = "NAME" }, { file = "/path" } or { credential = "name" }'


def _from_environment(name: str) -> str:
    if name not in os.environ:
        raise LookupError(f"environment variable {name} is not set")
    return os.environ[name]


def _from_file(path: Path) -> str:
    return path.read_text().rstrip("\r\n")


def _from_credential(name: str) -> str:
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    if folder is not None:
        return _from_file(Path(folder, name))
    if not name.startswith(INSTALLED_PREFIX):
        raise LookupError(
            f"no credentials from systemd here; a unit of your own needs LoadCredential={name}:/path/of/the/secret, "
            f"the installed one loads {INSTALLED}/{name} as {INSTALLED_PREFIX}{name}, and commands in a shell find it too"
        )
    path = INSTALLED / name.removeprefix(INSTALLED_PREFIX)
    try:
        return _from_file(path)
    except PermissionError as error:
        raise LookupError(
            f"no credentials from systemd here, and {path} is not for this user: be root"
        ) from error
    except OSError as error:
        raise LookupError(
            f"no credentials from systemd here, and {path}: {error.strerror}; put the secret there"
        ) from error


@dataclass(frozen=True)
class SecretKind:
    form: Form | None = None
    words: str = f"a secret: {_SHAPES}"

    def read(self, value: object, place: Place) -> Any:
        if isinstance(value, str):
            place.problem(
                "a secret is not written into this file, where copies and backups would carry it along; "
                f"say where it is: {_SHAPES}"
            )
            return INVALID
        if not isinstance(value, dict):
            place.problem(f"must be {self.words}, not {sort_of(value)}")
            return INVALID
        ways = ("env", "file", "credential")
        for key in value:
            if key not in ways:
                place.below(key).problem(f"unknown key; must be {self.words}{did_you_mean(key, ways)}")
                return INVALID
        if len(value) != 1:
            place.problem(f"must have exactly one of env, file and credential: {_SHAPES}")
            return INVALID
        ((way, where),) = value.items()
        return self._read_from(way, where, place)

    def _read_from(self, way: str, where: object, place: Place) -> Any:
        if not isinstance(where, str) or not where:
            place.below(way).problem(f"must be a string, not {'empty' if where == '' else sort_of(where)}")
            return INVALID
        reveal: Callable[[], str]
        match way:
            case "env":
                reveal = partial(_from_environment, where)
            case "file":
                path = PathKind().read(where, place.below(way))
                if path is INVALID:
                    return INVALID
                where = str(path)
                reveal = partial(_from_file, path)
            case _:
                if "/" in where:
                    place.below(way).problem(
                        "must be a credential's name, not a path; for a path write { file = ... }"
                    )
                    return INVALID
                reveal = partial(_from_credential, where)
        return Secret(reveal, f"{way}:{where}", self.form)

    def plain(self, value: Any) -> Any:
        return repr(value)

    def schema(self) -> dict[str, Any]:
        where = {"type": "string", "minLength": 1}
        return {
            "type": "object",
            "properties": {
                "env": {**where, "description": "Name of an environment variable."},
                "file": {**where, "description": "Path of a file; a newline at its end is dropped."},
                "credential": {**where, "description": "Name of a systemd credential.", "pattern": "^[^/]+$"},
            },
            "additionalProperties": False,
            "minProperties": 1,
            "maxProperties": 1,
        }


def unreadable(settings: Any, path: str) -> Iterator[tuple[str, str]]:
    """Secrets that can't be read here and now, or are not what they should be, as (path, why)."""
    for where, secret in nested(path, settings):
        if isinstance(secret, Secret):
            try:
                text = secret.reveal()
                if not text:
                    yield where, f"the secret from {secret.source} is empty"
                elif secret.form is not None and not secret.form.fits(text):
                    yield where, f"the secret from {secret.source} must be {secret.form.words}"
            except (LookupError, OSError, UnicodeDecodeError) as error:
                yield where, str(error)


def keep(settings: Any) -> None:
    """Every secret that can be read here and now; of others it is told where they are needed."""
    for _, secret in nested("", settings):
        if isinstance(secret, Secret):
            with suppress(LookupError, OSError, UnicodeDecodeError):
                secret.keep()
