"""From a driver's record to an entry for the queue: the topic, the key and the headers that it will have in Kafka."""

import re
from collections.abc import Iterable, Mapping, Sequence, Set
from fnmatch import fnmatchcase
from typing import NamedTuple

from gateway.codec import Entry, Shape
from gateway.errors import Unroutable
from gateway.limits import NAME_BYTES_MAX
from gateway.pattern import Pattern
from gateway.record import Record
from gateway.routing.settings import RouteSettings

SHAPES_MAX = 20_000
"""Distinct (driver, channel, device, content type) kept; beyond it the cache starts anew."""

_RESERVED = "the gateway writes its own records there; devices' need another topic"
_FIELD = re.compile(r"\{([^{}]*)\}")
_TOPIC_UNFIT = re.compile(r"[^A-Za-z0-9._-]")
_TOPIC_CHARACTERS_MAX = 249
_NO_TOPICS = (".", "..")


class _Route(NamedTuple):
    drivers: str
    pattern: Pattern
    topic: str
    key: str


class Router:
    """Routes are tried in order; the first that takes the channel wins, then `default_topic` with the device as key.

    No record goes to a topic of `reserved`, whatever its device calls itself: positions are believed after a crash.
    """

    def __init__(
        self, routes: Sequence[RouteSettings], default_topic: str | None, reserved: Set[str] = frozenset()
    ) -> None:
        self._routes = [_Route(route.from_, Pattern(route.match), route.topic, route.key) for route in routes]
        self._default_topic = default_topic
        self._reserved = reserved
        self._shapes: dict[tuple[str, str, str, str], Shape] = {}

    def entries(self, driver: str, records: Sequence[Record]) -> list[Entry]:
        """Raises Unroutable."""
        known = self._shapes.get
        new = tuple.__new__  # half the time of calling Entry
        entries = []
        for channel, device, body, time_ms, content_type, headers in records:
            shape = known((driver, channel, device, content_type))
            if shape is None:
                shape = self._shape(driver, channel, device, content_type)
            if headers:
                shape = shape._replace(headers=shape.headers + headers)
            entries.append(new(Entry, (shape, time_ms, body)))
        return entries

    def _shape(self, driver: str, channel: str, device: str, content_type: str) -> Shape:
        topic, key = self.destination(driver, channel, device)
        origin = (("tg.driver", driver), ("tg.device", device), ("tg.channel", channel))
        headers = (("content-type", content_type), *origin) if content_type else origin
        shape = Shape(
            topic, key.encode()[:NAME_BYTES_MAX], tuple((name, value.encode()) for name, value in headers)
        )
        if len(self._shapes) >= SHAPES_MAX:
            self._shapes.clear()
        self._shapes[driver, channel, device, content_type] = shape
        return shape

    def destination(self, driver: str, channel: str, device: str) -> tuple[str, str]:
        """(topic, key). Raises Unroutable."""
        for route in self._routes:
            if fnmatchcase(driver, route.drivers):
                wildcards = route.pattern.match(channel)
                if wildcards is not None:
                    fields = {"driver": driver, "channel": channel, "device": device}
                    fields |= {str(number): text for number, text in enumerate(wildcards, 1)}
                    topic = _fill(
                        route.topic, {name: _TOPIC_UNFIT.sub("_", text) for name, text in fields.items()}
                    )
                    if topic in (*self._reserved, *_NO_TOPICS) or len(topic) > _TOPIC_CHARACTERS_MAX:
                        raise Unroutable(
                            f"channel {channel!r} of driver {driver!r}: no record may go to topic {topic!r}"
                        )
                    return topic, _fill(route.key, fields)
        if self._default_topic is not None:
            return self._default_topic, device
        raise Unroutable(
            f"no route takes channel {channel!r} of driver {driver!r} and there is no default_topic"
        )


def _fill(template: str, fields: Mapping[str, str]) -> str:
    return _FIELD.sub(lambda found: fields[found[1]], template)


def problems(
    routes: Sequence[RouteSettings],
    channels: Mapping[str, Sequence[str] | None],
    default_topic: str | None,
    reserved: Set[str] = frozenset(),
) -> list[tuple[str, str]]:
    """What is wrong with the routes of drivers with these channels (None: devices choose), as (path, message)."""
    found: list[tuple[str, str]] = []
    for message in _topic_problems(default_topic or "", [], reserved):
        found.append(("gateway.default_topic", message))
    for index, route in enumerate(routes):
        found += [
            (f"routes[{index}].{field}", message)
            for field, message in _route_problems(route, list(channels), reserved)
        ]
    if found or default_topic is not None:
        return found
    router = Router(routes, None)
    for driver, names in channels.items():
        probes = names if names is not None else ["\0any channel"]
        for channel in probes:
            try:
                router.destination(driver, channel, "")
            except Unroutable:
                what = f"channel {channel!r}" if names is not None else "a channel that no pattern names"
                message = f'no route takes {what}; add a route with match = "#" or set gateway.default_topic'
                found.append((f"drivers.{driver}", message))
                break
    return found


def hidden(routes: Sequence[RouteSettings], drivers: Sequence[str]) -> list[tuple[str, str]]:
    """Routes that never take a record, as (path, message): one before them takes all that they could."""
    found = []
    taken = [set(_heard(route, drivers)) for route in routes]
    for index, route in enumerate(routes):
        for before, earlier in enumerate(routes[:index]):
            if taken[index] <= taken[before] and earlier.match in ("#", route.match):
                found.append(
                    (f"routes[{index}]", f"never takes a record: routes[{before}] takes all of them")
                )
                break
    return found


def _heard(route: RouteSettings, drivers: Iterable[str]) -> list[str]:
    return [driver for driver in drivers if fnmatchcase(driver, route.from_)]


def _route_problems(
    route: RouteSettings, drivers: Sequence[str], reserved: Set[str]
) -> list[tuple[str, str]]:
    taken = _heard(route, drivers)
    found = [("topic", message) for message in _topic_problems(route.topic, taken, reserved)]
    if not taken:
        found.append(
            ("from", f"no driver is called {route.from_!r}; there are: {', '.join(drivers) or 'none'}")
        )
    try:
        wildcards = Pattern(route.match).wildcards
    except ValueError as error:
        return [*found, ("match", str(error))]
    known = {"driver", "channel", "device", *map(str, range(1, wildcards + 1))}
    for name, template in (("topic", route.topic), ("key", route.key)):
        for field in _FIELD.findall(template):
            if field not in known:
                fields = ", ".join(sorted(f"{{{one}}}" for one in known))
                found.append((name, f"{{{field}}} is not a field here; there are: {fields}"))
        if set("{}") & set(_FIELD.sub("", template)):
            found.append((name, "a brace is alone; a field is written like {device}"))
    return found


def _topic_problems(template: str, drivers: Sequence[str], reserved: Set[str]) -> list[str]:
    """Why no record may have this topic, whatever its channel and its device are called."""
    found: dict[str, None] = {}
    for topic in [template.replace("{driver}", _TOPIC_UNFIT.sub("_", one)) for one in drivers] or [template]:
        if topic in reserved:
            found[_RESERVED] = None
        elif topic in _NO_TOPICS:
            found[f"Kafka has no topic {topic!r}"] = None
        elif len(_FIELD.sub("", topic)) > _TOPIC_CHARACTERS_MAX:
            found[f"Kafka's topics have at most {_TOPIC_CHARACTERS_MAX} characters"] = None
    return list(found)
