"""TLS files that can't be used here and now. By convention they are the `cert`, `key`, `ca` and `client_ca` of settings."""

import dataclasses
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def unusable(settings: Any, path: str) -> Iterator[tuple[str, str]]:
    """As (path, why)."""
    if not dataclasses.is_dataclass(settings):
        return
    files: dict[str, Path] = {}
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if field.name in ("cert", "key", "ca", "client_ca") and isinstance(value, Path):
            try:
                value.open("rb").close()
                files[field.name] = value
            except OSError as error:
                yield f"{path}.{field.name}", f"{value}: {error.strerror}"
        else:
            yield from unusable(value, f"{path}.{field.name.rstrip('_')}")
    if "cert" in files and ("key" in files or getattr(settings, "key", None) is None):
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
