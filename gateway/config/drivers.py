"""Finds drivers: the folders below `drivers`, and what others install under the entry-point group `tidegate.drivers`."""

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from importlib.resources import files
from typing import Any

import drivers
from gateway.config.kinds import INVALID, Kind, sort_of
from gateway.config.report import Place, did_you_mean
from gateway.config.tables import ReadsItself, TableKind, described
from gateway.driver import Manifest

GROUP = "tidegate.drivers"


@dataclass(frozen=True, kw_only=True)
class DriverConfig(ReadsItself):
    """One [drivers.NAME]: `settings` is an instance of the manifest's config class."""

    name: str
    manifest: Manifest
    settings: Any

    @classmethod
    def kind(cls) -> Kind:
        return DriverKind()


def _folders() -> list[str]:
    return [module.name for module in pkgutil.iter_modules(drivers.__path__) if module.ispkg]


def _installed() -> Mapping[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


def driver_types() -> list[str]:
    """Every type that a [drivers.NAME] table may have; imports none of them."""
    return sorted({*_folders(), *_installed()})


def load_manifest(driver_type: str) -> Manifest:
    """Raises LookupError for an unknown type, ImportError if its package doesn't import."""
    if driver_type in _folders():
        found = getattr(importlib.import_module(f"drivers.{driver_type}"), "DRIVER", None)
    else:
        found = _installed()[driver_type].load()
    if not isinstance(found, Manifest):
        raise ImportError("it offers no Manifest")
    return found


def sample(driver_type: str) -> str:
    """The sample.toml beside a driver's settings class. Raises LookupError, ImportError or OSError."""
    module = importlib.import_module(load_manifest(driver_type).config.__module__)
    return files(module.__package__ or "").joinpath("sample.toml").read_text()


@dataclass(frozen=True)
class DriverKind:
    """A table whose `type` says which settings class the rest of it is."""

    words = "a table with a driver's type and settings"

    def read(self, value: object, place: Place) -> Any:
        if not isinstance(value, dict):
            place.problem(f"must be {self.words}, not {sort_of(value)}")
            return INVALID
        manifest = self._manifest(value, place)
        if manifest is None:
            return INVALID
        rest = {key: item for key, item in value.items() if key != "type"}
        settings = TableKind(manifest.config).read(rest, place)
        if settings is INVALID:
            return INVALID
        return DriverConfig(name=str(place.keys[-1]), manifest=manifest, settings=settings)

    @staticmethod
    def _manifest(table: Mapping[str, object], place: Place) -> Manifest | None:
        here = place.below("type")
        known = f"the types are {', '.join(driver_types())}"
        if "type" not in table:
            here.problem(f"missing; {known}")
            return None
        driver_type = table["type"]
        if not isinstance(driver_type, str):
            here.problem(f"must be a string, not {sort_of(driver_type)}; {known}")
            return None
        try:
            return load_manifest(driver_type)
        except LookupError:
            here.problem(
                f"no driver of type {driver_type!r}; {known}{did_you_mean(driver_type, driver_types())}"
            )
        except ImportError as error:
            here.problem(f"driver {driver_type!r} can't be loaded: {error}")
        return None

    def plain(self, value: Any) -> Any:
        return {"type": value.manifest.name, **TableKind(value.manifest.config).plain(value.settings)}

    def schema(self) -> dict[str, Any]:
        types = driver_types()
        return {
            "type": "object",
            "properties": {"type": {"enum": types, "description": "Which driver this is."}},
            "required": ["type"],
            "allOf": [
                {
                    "if": {"properties": {"type": {"const": name}}, "required": ["type"]},
                    "then": _schema_of(name),
                }
                for name in types
            ],
        }


def _schema_of(driver_type: str) -> dict[str, Any]:
    manifest = load_manifest(driver_type)
    table = TableKind(manifest.config)
    properties = {setting.key: described(setting) for setting in table.settings.values()}
    return {
        **table.schema(),
        "description": manifest.summary,
        "properties": {"type": True, **properties},
    }
