"""What `check` says about a configuration."""

import pytest

from drivers.coap import DRIVER, Config, Oscore, Resource
from gateway.settings import Address, Secret

ANY = Address("127.0.0.1", 5683)
SECRET = Secret(lambda: "00", "test")


def polled(**fields: object) -> Resource:
    return Resource(**({"uri": "coap://a/b", "device": "d", "interval": 1.0} | fields))  # type: ignore[arg-type]


def keys(sender: str, recipient: str, **fields: object) -> Oscore:
    given = {"secret": SECRET, "sender_id": sender, "recipient_id": recipient} | fields
    return Oscore(**given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("config", "where", "what"),
    [
        (Config(), "listen", "nothing to do"),
        (Config(listen=ANY), "anonymous", "nobody may send"),
        (Config(listen=ANY, anonymous=True, buffer_bytes_max=16), "buffer_bytes_max", "less than"),
        (Config(resources=[polled(interval=None)]), "resources[0].interval", "one of interval and observe"),
        (Config(resources=[polled(observe=True)]), "resources[0].interval", "one of interval and observe"),
        (Config(resources=[polled(), polled(uri="coaps://a/b")]), "resources[1].uri", "DTLS is not spoken"),
        (Config(resources=[polled(uri="http://a/b")]), "resources[0].uri", "coap://host"),
        (Config(resources=[polled(uri="coap:///b")]), "resources[0].uri", "coap://host"),
        (Config(resources=[polled(uri="coap://a:x/b")]), "resources[0].uri", "ort"),
        (Config(resources=[polled(uri="coap://a")]), "resources[0].channel", "empty"),
        (Config(resources=[polled(channel="a/#")]), "resources[0].channel", "wildcard"),
        (Config(resources=[polled(device="")]), "resources[0].device", "empty"),
        (Config(resources=[polled(oscore="x")]), "resources[0].oscore", "no OSCORE context 'x'"),
        (Config(resources=[polled()] * 1001), "resources", "more than 1000"),
        (Config(listen=ANY, oscore={"a": keys("01", "01")}), "oscore.a.recipient_id", "own sender_id"),
        (
            Config(listen=ANY, oscore={"a": keys("01", "02"), "b": keys("03", "02")}),
            "oscore.b.recipient_id",
            "that of a",
        ),
        (Config(listen=ANY, oscore={"a": keys("01" * 8, "02")}), "oscore.a", "at most 7 bytes"),
        (Config(listen=ANY, oscore={"a": keys("01", "02", channels=["a+"])}), "oscore.a.channels", "'a+'"),
    ],
)
def test_mistakes(config: Config, where: str, what: str) -> None:
    found = dict(DRIVER.problems(config))
    assert what in found[where], found


def test_a_sound_one_has_none() -> None:
    config = Config(
        listen=ANY, oscore={"a": keys("01", "02", channels=["a/#"])}, resources=[polled(oscore="a")]
    )
    assert DRIVER.problems(config) == []
    assert DRIVER.channels(config) is None
    assert DRIVER.channels(Config(resources=[polled(), polled(uri="coap://a/%C3%A4?x=1")])) == ["b", "ä"]
