"""TLS files that can't be used here and now. By convention they are the `cert`, `key`, `ca` and `client_ca` of settings."""

import dataclasses
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gateway.config.nested import nested


def unusable(settings: Any, path: str) -> Iterator[tuple[str, str]]:
    """As (path, why)."""
    for where, table in nested(path, settings):
        if dataclasses.is_dataclass(table):
            yield from _unusable(table, where)


def _unusable(table: Any, path: str) -> Iterator[tuple[str, str]]:
    files: dict[str, Path] = {}
    for name in ("cert", "key", "ca", "client_ca"):
        value = getattr(table, name, None)
        if isinstance(value, Path):
            try:
                value.open("rb").close()
                files[name] = value
            except OSError as error:
                yield f"{path}.{name}", f"{value}: {error.strerror}"
    if "cert" in files and ("key" in files or getattr(table, "key", None) is None):
        try:
            # A key with a password would be asked for at the terminal.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
                files["cert"], files.get("key"), password=""
            )
        except ssl.SSLError as error:
            named = " with ".join(str(files[name]) for name in ("cert", "key") if name in files)
            yield f"{path}.cert", f"{named}: no certificate with its key ({error.reason or error})"
    for name in sorted({"ca", "client_ca"} & files.keys()):
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(files[name])
        except ssl.SSLError as error:
            yield f"{path}.{name}", f"{files[name]}: no certificates ({error.reason or error})"
