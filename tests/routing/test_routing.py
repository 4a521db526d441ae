"""Which topic and key a channel leads to, and what a wrong route is told."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import Unroutable
from gateway.pattern import Pattern
from gateway.record import Record
from gateway.routing import Router, RouteSettings, problems


def route(**settings: str) -> RouteSettings:
    return RouteSettings(**{"from_": "floor", "topic": "t", **settings})


@pytest.mark.parametrize(
    ("pattern", "channel", "wildcards"),
    [
        ("site/+/telemetry", "site/7/telemetry", ("7",)),
        ("site/+/telemetry", "site/7/8/telemetry", None),
        ("site/#", "site", ("",)),
        ("site/#", "site/a/b", ("a/b",)),
        ("#", "", ("",)),
        ("#", "a/b", ("a/b",)),
        ("+/+", "/finance", ("", "finance")),
        ("a.c", "abc", None),
    ],
)
def test_patterns(pattern: str, channel: str, wildcards: tuple[str, ...] | None) -> None:
    assert Pattern(pattern).match(channel) == wildcards


@given(st.text(alphabet="ab/", min_size=1))
def test_a_channel_matches_itself_and_everything(channel: str) -> None:
    assert Pattern(channel).match(channel) == ()
    assert Pattern("#").match(channel) == (channel,)


def test_the_first_route_wins_and_fills_topic_key_and_headers() -> None:
    router = Router(
        [route(match="site/+/telemetry", topic="t.{driver}.{1}", key="{1}/{device}"), route()], None
    )
    [entry] = router.entries(
        "floor", [Record("site/a b/telemetry", "dev-1", b"21", 5, "text/plain", (("x", b"y"),))]
    )
    assert (entry.shape.topic, entry.shape.key, entry.time_ms, entry.value) == (
        "t.floor.a_b",
        b"a b/dev-1",
        5,
        b"21",
    )
    assert dict(entry.shape.headers) == {
        "content-type": b"text/plain",
        "tg.driver": b"floor",
        "tg.device": b"dev-1",
        "tg.channel": b"site/a b/telemetry",
        "x": b"y",
    }


def test_no_route_means_the_default_topic_or_a_refusal() -> None:
    record = Record("other", "dev-1", b"", 0)
    assert Router([], "rest").entries("floor", [record])[0].shape.topic == "rest"
    with pytest.raises(Unroutable, match="'other'"):
        Router([route(match="site/#")], None).entries("floor", [record])


def test_problems_are_found_before_any_record() -> None:
    wrong = [route(from_="flor", match="a/#/b"), route(match="+", key="{2}")]
    assert problems(wrong, {"floor": None}, None) == [
        ("routes[0].from", "no driver is called 'flor'; there are: floor"),
        ("routes[0].match", "# stands at the end"),
        ("routes[1].key", "{2} is not a field here; there are: {1}, {channel}, {device}, {driver}"),
    ]
    assert problems([route(match="a")], {"floor": ["a"]}, None) == []
    [(path, message)] = problems([route(match="a")], {"floor": ["a", "b"]}, None)
    assert (path, message.split(";")[0]) == ("drivers.floor", "no route takes channel 'b'")
    assert problems([route(match="a/#")], {"floor": None}, None)[0][0] == "drivers.floor"
    assert problems([route(match="a/#")], {"floor": None}, "rest") == []


@pytest.mark.parametrize("name", ["tidegate-positions", "..", "x" * 250])
def test_no_device_can_name_a_topic_that_is_not_for_it(name: str) -> None:
    router = Router([route(match="site/+", topic="{1}")], None, {"tidegate-positions"})
    assert router.entries("floor", [Record("site/telemetry", "dev-1", b"", 0)])[0].shape.topic == "telemetry"
    with pytest.raises(Unroutable, match="no record may go to topic"):
        router.entries("floor", [Record(f"site/{name}", "dev-1", b"", 0)])
