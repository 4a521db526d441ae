"""What is read from disks: segments and configurations."""

import os
import random
import re
import tempfile
import zlib
from pathlib import Path

import msgpack
from cramjam import zstd

from gateway import codec
from gateway.codec import DecodeError, Entry, Shape
from gateway.config import kinds, load, model, report, source, tables, template, units
from gateway.errors import ConfigError
from tests.fuzz.target import Target
from tests.serial.test_cases import CASES as SERIAL

SHAPES = (
    Shape("readings", b"press", (("tg.driver", b"floor"), ("tg.device", b"press"))),
    Shape("t", None, ()),
)
DRIVERS = ("mqtt", "http", "modbus", "serial", "coap", "simulated")


def segments() -> list[bytes]:
    """Also the packed content alone, which `run` wraps: changes reach behind the checksum there."""
    some = [Entry(SHAPES[number % 2], 1_790_000_000_000 + number, b"x" * number) for number in range(9)]
    encoded = [codec.encode(some[:count]) for count in (0, 1, 2, 9)]
    return [*encoded, *(bytes(zstd.decompress(one[5:])) for one in encoded)]


def run_segment(data: bytes, chance: random.Random) -> bool:
    taken = False
    body = bytes(zstd.compress(data))
    for one in (data, _checked(data[5:]), _checked(body)):
        try:
            entries = codec.decode(one)
        except DecodeError:
            continue
        assert codec.decode(codec.encode(entries)) == entries
        taken = True
    return taken


def _checked(body: bytes) -> bytes:
    return bytes((codec.VERSION,)) + zlib.crc32(body).to_bytes(4, "big") + body


def configurations() -> list[bytes]:
    errors = sorted((Path(__file__).parent.parent / "config" / "errors").glob("*.toml"))
    found = [template([name]) for name in DRIVERS]
    bare = [re.sub(r"(?m)^# ?(?=[\w\[])", "", text) for text in found]
    start = '[gateway]\nid = "g"\ndefault_topic = "all"\n[kafka]\nbootstrap_servers = ["k:9092"]\n'
    serial = [start + (case / "config.toml").read_text() for case in SERIAL]
    return [text.encode() for text in (*found, *bare, *serial)] + [path.read_bytes() for path in errors]


CONFIG_TOKENS = [
    *b"[ ] [[ ]] { } ' \" \"\"\" ''' \\ = . , # \n true nan -inf 1979-05-27 07:32:00 0x 0b1 1_0 \xef\xbb\xbf".split(
        b" "
    ),
    *(
        b'"${X}"',
        b'"{1}"',
        b'"0.0.0.0:0"',
        b'"[::1]:99999"',
        b'"9999d"',
        b'"1 TiB"',
        b'"a/+/#"',
        b'"("',
        b'"a{9999999999}"',
    ),
    *(b'pattern = "((((a*)*)*)*"\n', b"9" * 5000, b"0x" + b"f" * 5000, b"[" * 1000, b"a." * 40, b"(" * 500),
    *(b"[drivers.x]\n", b"[[routes]]\n", b'type = "serial"\n', b"-", b"1e400", b"-1", b'""', b"\0", b"\xff"),
]


def run_configuration(data: bytes, chance: random.Random) -> bool:
    path = Path(tempfile.gettempdir()) / f"tidegate-fuzz-{os.getpid()}.toml"
    path.write_bytes(data)
    try:
        load(path)
    except ConfigError as error:
        assert error.problems
        for problem in error.problems:
            assert problem.startswith(f"{path}:")
            assert len(problem.splitlines()) == 1
        return False
    finally:
        path.unlink()
    return True


WORDS: list[object] = [None, -1, 1 << 40, b"", "", (), ("a", b"", ()), 1.5, {}, True]
TARGETS = [
    Target(
        "segment",
        [codec],
        segments(),
        [*map(msgpack.packb, WORDS)],
        run_segment,
        400,
    ),
    Target(
        "config",
        [source, model, tables, kinds, report, units],
        configurations(),
        CONFIG_TOKENS,
        run_configuration,
        2000,
    ),
]
