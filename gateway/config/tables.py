"""Arrays, tables and settings classes; `kind_of` turns a field's annotation into its kind."""

import dataclasses
import tomllib
import types
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from gateway.config.kinds import (
    INVALID,
    AddressKind,
    BoolKind,
    Bounds,
    ChoiceKind,
    Kind,
    NameOrPathKind,
    NumberKind,
    NumbersKind,
    PathKind,
    QuantityKind,
    TextKind,
    sort_of,
)
from gateway.config.report import Place, did_you_mean
from gateway.config.secrets import SecretKind
from gateway.config.toml import write_value
from gateway.config.units import DURATION, RATE, SIZE
from gateway.settings import Address, Duration, NameOrPath, Numbers, Output, Rate, Secret, Size


@dataclass(frozen=True)
class ListKind:
    item: Kind
    bounds: Bounds

    @property
    def words(self) -> str:
        return f"an array, each item {self.item.words}"

    def read(self, value: object, place: Place) -> Any:
        if not isinstance(value, list):
            place.problem(f"must be {self.words}, not {sort_of(value)}")
            return INVALID
        if not self.bounds.within(len(value)):
            place.problem(f"has {len(value)} items; must have {self.bounds.words()}")
        return [self.item.read(item, place.below(index)) for index, item in enumerate(value)]

    def plain(self, value: Any) -> Any:
        return [self.item.plain(item) for item in value]

    def schema(self) -> dict[str, Any]:
        return {"type": "array", "items": self.item.schema(), **self.bounds.schema("minItems", "maxItems")}


@dataclass(frozen=True)
class DictKind:
    item: Kind
    bounds: Bounds

    @property
    def words(self) -> str:
        return f"a table of names, each {self.item.words}"

    def read(self, value: object, place: Place) -> Any:
        if not isinstance(value, dict):
            place.problem(f"must be {self.words}, not {sort_of(value)}")
            return INVALID
        if not self.bounds.within(len(value)):
            place.problem(f"has {len(value)} entries; must have {self.bounds.words()}")
        return {name: self.item.read(item, place.below(name)) for name, item in value.items()}

    def plain(self, value: Any) -> Any:
        return {name: self.item.plain(item) for name, item in value.items()}

    def schema(self) -> dict[str, Any]:
        limits = self.bounds.schema("minProperties", "maxProperties")
        return {"type": "object", "additionalProperties": self.item.schema(), **limits}


@dataclass(frozen=True)
class Setting:
    """One field of a settings class as the operator sees it."""

    key: str
    attribute: str
    kind: Kind
    doc: str
    example: str | None
    default: Any
    """What an absent key means; INVALID if the key is required."""

    @property
    def required(self) -> bool:
        return self.default is INVALID


@dataclass(frozen=True)
class TableKind:
    """A settings class."""

    cls: type[Any]

    words = "a table"

    @cached_property
    def settings(self) -> Mapping[str, Setting]:
        hints = get_type_hints(self.cls, include_extras=True)
        fields = [_setting(field, hints[field.name]) for field in dataclasses.fields(self.cls)]
        return {setting.key: setting for setting in fields}

    def read(self, value: object, place: Place) -> Any:
        if not isinstance(value, dict):
            place.problem(f"must be {self.words}, not {sort_of(value)}")
            return INVALID
        before = place.report.count
        fields = self.fields(value, place)
        return self.cls(**fields) if place.report.count == before else INVALID

    def fields(self, table: Mapping[str, object], place: Place) -> dict[str, Any]:
        """Arguments for the class; some INVALID if problems were reported."""
        for key in table:
            if key not in self.settings:
                place.below(key).problem(f"unknown key{self._meant(key)}")
        return {setting.attribute: self._field(setting, table, place) for setting in self.settings.values()}

    def _meant(self, key: str) -> str:
        return did_you_mean(key, self.settings) or f"; known are {', '.join(self.settings)}"

    @staticmethod
    def _field(setting: Setting, table: Mapping[str, object], place: Place) -> Any:
        here = place.below(setting.key)
        if setting.key in table:
            return setting.kind.read(table[setting.key], here)
        if not setting.required:
            return setting.default
        if isinstance(setting.kind, TableKind):
            # An absent table may have nothing but defaults; if not, what it lacks is named.
            return setting.kind.read({}, here)
        like = f", such as {setting.example}" if setting.example else ""
        here.problem(f"missing; must be {setting.kind.words}{like}")
        return INVALID

    def plain(self, value: Any) -> Any:
        pairs = ((setting, getattr(value, setting.attribute)) for setting in self.settings.values())
        return {setting.key: setting.kind.plain(item) for setting, item in pairs if item is not None}

    def schema(self) -> dict[str, Any]:
        required = [
            setting.key
            for setting in self.settings.values()
            if setting.required
            and not (isinstance(setting.kind, TableKind) and not setting.kind.schema().get("required"))
        ]
        return {
            "type": "object",
            "properties": {setting.key: described(setting) for setting in self.settings.values()},
            "additionalProperties": False,
            **({"required": required} if required else {}),
        }


def described(setting: Setting) -> dict[str, Any]:
    """The schema of a setting with what an editor shows about it."""
    schema = {**setting.kind.schema(), "description": setting.doc}
    if not setting.required and setting.default is not None:
        schema["default"] = setting.kind.plain(setting.default)
    return schema


def _setting(field: "dataclasses.Field[Any]", annotation: Any) -> Setting:
    default = INVALID
    if field.default is not dataclasses.MISSING:
        default = field.default
    elif field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
    return Setting(
        # `from` and its like are no names in Python.
        key=field.name.rstrip("_"),
        attribute=field.name,
        kind=kind_of(annotation, field.metadata),
        doc=field.metadata["doc"],
        example=field.metadata["example"],
        default=default,
    )


class ReadsItself:
    """A class that brings its own kind instead of being read field by field."""

    @classmethod
    def kind(cls) -> Kind:
        raise NotImplementedError


def kind_of(annotation: Any, metadata: Mapping[str, Any]) -> Kind:
    """Raises TypeError for an annotation outside the vocabulary of gateway.settings."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        (present,) = (one for one in arguments if one is not type(None))
        return kind_of(present, metadata)
    if origin is Literal:
        return ChoiceKind(arguments)
    bounds = Bounds(metadata["minimum"], metadata["maximum"])
    if origin is list:
        return ListKind(kind_of(arguments[0], _of_items(metadata)), bounds)
    if origin is dict:
        return DictKind(kind_of(arguments[1], _of_items(metadata)), bounds)
    if isinstance(annotation, type) and issubclass(annotation, ReadsItself):
        return annotation.kind()
    if isinstance(annotation, type) and dataclasses.is_dataclass(annotation):
        return TableKind(annotation)
    kinds: dict[Any, Kind] = {
        bool: BoolKind(),
        int: NumberKind(True, bounds),
        float: NumberKind(False, bounds),
        str: TextKind(metadata["form"], metadata["example"], bounds),
        Numbers: NumbersKind(),
        Path: PathKind(),
        Output: PathKind(written=True),
        NameOrPath: NameOrPathKind(),
        Address: AddressKind(bounds),
        Secret: SecretKind(metadata["form"]),
        Duration: QuantityKind(DURATION, False, bounds),
        Size: QuantityKind(SIZE, True, bounds),
        Rate: QuantityKind(RATE, True, bounds),
    }
    if annotation not in kinds:
        raise TypeError(f"{annotation!r} is not in the vocabulary of gateway.settings")
    return kinds[annotation]


def _of_items(metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    """Bounds of an array or table count its items; the form is each item's, and the example has one."""
    example = metadata["example"] and tomllib.loads(f"items = {metadata['example']}")["items"]
    item = write_value(example[0]) if isinstance(example, list) else None
    return {**metadata, "minimum": None, "maximum": None, "example": item}
