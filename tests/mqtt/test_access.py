"""Who may publish where, and what it costs to know."""

import tracemalloc

import pytest

from drivers.mqtt.access import TOPICS_BYTES_MAX, Rights, Topics, covers

NAME_BYTES = 1000
CLIENTS = 50


def test_topics_that_clients_invent_take_bounded_memory_over_all_clients() -> None:
    topics = Topics()
    every = [Rights(["#"], [], topics) for _ in range(CLIENTS)]
    tracemalloc.start()
    try:
        for number in range(2 * TOPICS_BYTES_MAX // NAME_BYTES):
            every[number % CLIENTS].channel(b"%0*d" % (NAME_BYTES, number))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1.5 * TOPICS_BYTES_MAX
    assert every[0].channel(b"a") == "a"
    assert every[0].channels([b"a"]) == ["a"]


@pytest.mark.parametrize(
    ("allowed", "asked", "covered"),
    [
        ("#", "a/+/b", True),
        ("a/#", "a", True),
        ("a/+", "a/b", True),
        ("a/+", "a/#", False),
        ("a/+", "a/+", True),
        ("a/b", "a/+", False),
        ("a/+/c", "a/b/c", True),
        ("a", "a/b", False),
        ("a/b", "a", False),
    ],
)
def test_a_subscription_must_be_covered(allowed: str, asked: str, covered: bool) -> None:
    assert covers(allowed, asked) is covered
