"""What people read about the configuration: the template that `tidegate init` writes, the reference, the effective settings."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gateway.config.drivers import driver_types, load_manifest, sample
from gateway.config.kinds import ChoiceKind
from gateway.config.model import Config
from gateway.config.tables import DictKind, ListKind, Setting, TableKind
from gateway.config.toml import write_table, write_value

_COMMENT_WIDTH = 100

_HEAD = """\
# Configuration of a tidegate gateway. `tidegate check` finds every mistake in it.
# A line that begins with "#" and no space shows a default or an example: take the "#" away to set it."""


def template(types: Sequence[str], gateway_id: str | None = None) -> str:
    """A commented configuration with a sample of each of these driver types. It loads as it is."""
    root = TableKind(Config).settings
    lines = [_HEAD]
    for key, setting in root.items():
        if isinstance(setting.kind, TableKind):
            given = {"id": write_value(gateway_id)} if key == "gateway" and gateway_id is not None else {}
            lines += _section(f"[{key}]", key, setting.kind, setting.doc, live=True, given=given)
    lines += ["", *_prose(root["drivers"].doc)]
    lines += _prose(
        f"The types are {', '.join(driver_types())}; `tidegate drivers TYPE` prints a sample of one."
    )
    for driver_type in types:
        lines += ["", sample(driver_type).rstrip()]
    routes = root["routes"].kind
    if isinstance(routes, ListKind) and isinstance(routes.item, TableKind):
        lines += _section("[[routes]]", "routes", routes.item, root["routes"].doc, live=bool(types))
    return "\n".join(lines) + "\n"


def _section(
    header: str, path: str, kind: TableKind, doc: str, *, live: bool, given: Mapping[str, str] | None = None
) -> Iterator[str]:
    """`given` is TOML to show instead of defaults and examples."""
    yield from ("", *_prose(doc), header if live else f"#{header}")
    for setting in kind.settings.values():
        if _inner(setting) is None:
            yield from _prose(setting.doc)
            mark = "" if live and setting.required else "#"
            yield f"{mark}{setting.key} = {(given or {}).get(setting.key) or _shown(setting)}"
    for setting in kind.settings.values():
        inner = _inner(setting)
        if inner is not None:
            suffix, table = inner
            here = f"{path}.{setting.key}{suffix}"
            header = f"[[{here}]]" if isinstance(setting.kind, ListKind) else f"[{here}]"
            yield from _section(header, here, table, setting.doc, live=live and setting.required)


def _inner(setting: Setting) -> tuple[str, TableKind] | None:
    """The table class that a setting is made of, with what its path adds to the setting's."""
    match setting.kind:
        case TableKind() as table:
            return "", table
        case ListKind(item=TableKind() as table):
            return "", table
        case DictKind(item=TableKind() as table):
            return ".NAME", table
    return None


def _shown(setting: Setting) -> str:
    """TOML for the template: the default, else an example."""
    if not setting.required and setting.default not in (None, [], {}):
        return write_value(setting.kind.plain(setting.default))
    if setting.example is not None:
        return setting.example
    if isinstance(setting.kind, ChoiceKind):
        return write_value(setting.kind.choices[0])
    if not setting.required and setting.default is not None:
        return write_value(setting.default)
    raise TypeError(f"setting {setting.key!r} needs an example")


def _prose(text: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(text, _COMMENT_WIDTH)]


def reference() -> str:
    """Markdown: every setting of the gateway and of every driver."""
    parts = []
    for key, setting in TableKind(Config).settings.items():
        match setting.kind:
            case TableKind() as table:
                parts += [f"## `[{key}]`", setting.doc, _table(table)]
            case ListKind(item=TableKind() as table):
                parts += [f"## `[[{key}]]`", setting.doc, _table(table)]
            case _:
                parts += [f"## `[{key}.NAME]`", setting.doc]
                for driver_type in driver_types():
                    manifest = load_manifest(driver_type)
                    parts += [
                        f'### `type = "{driver_type}"`',
                        f"{manifest.summary}.",
                        _table(TableKind(manifest.config)),
                    ]
    return "\n\n".join(parts) + "\n"


def driver_reference(driver_type: str) -> str:
    """The Markdown table of one driver's settings. Raises LookupError or ImportError."""
    return _table(TableKind(load_manifest(driver_type).config)) + "\n"


def _table(table: TableKind) -> str:
    rows = ["| Setting | Value | Default | Meaning |", "|---|---|---|---|"]
    for path, setting in _flat(table, ""):
        if setting.required:
            default = "required"
        else:
            default = (
                "" if setting.default is None else f"`{write_value(setting.kind.plain(setting.default))}`"
            )
        cells = (f"`{path}`", setting.kind.words, default, setting.doc)
        rows.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(rows)


def _flat(table: TableKind, path: str) -> Iterator[tuple[str, Setting]]:
    for setting in table.settings.values():
        yield f"{path}{setting.key}", setting
        inner = _inner(setting)
        if inner is not None:
            suffix, nested = inner
            index = "[]" if isinstance(setting.kind, ListKind) else suffix
            yield from _flat(nested, f"{path}{setting.key}{index}.")


def describe(config: Config) -> str:
    """The settings in force as TOML, defaults included, secrets as ***."""
    settings: dict[str, Any] = TableKind(Config).plain(config)
    return write_table(settings)
