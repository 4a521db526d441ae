"""`make sweep`, small; and what it makes of what strace says."""

import argparse
import random
from collections import Counter
from pathlib import Path

import pytest

from gateway.testing.kafka import KafkaBroker
from tests.whole.calls import Call, Ports, needs_strace, parse
from tests.whole.sweep import Kind, cases, choose, sweep

PORTS = Ports(device=1883, kafka=9092)


@pytest.mark.kafka
@pytest.mark.slow
@pytest.mark.proof
@pytest.mark.timeout(300)
@needs_strace
async def test_a_gateway_survives_faults_at_its_system_calls(kafka: KafkaBroker, tmp_path: Path) -> None:
    """What fails prints how it is repeated."""
    options = argparse.Namespace(n=8, seed=random.randrange(1 << 16), case=None)
    assert await sweep(options, kafka, tmp_path)


@pytest.mark.parametrize(
    ("line", "call"),
    [
        ('7 pwrite64(8</data/queue.db-wal>, "x", 24, 0) = 24', Call("queue", "pwrite64", "queue.db-wal")),
        ('6 sendto(12<TCP:[1.1.1.1:1883->1.1.1.1:54]>, "x", 1) = 1', Call("main", "sendto", "device")),
        ('6 sendto(12<TCP:[1.1.1.1:55->1.1.1.1:9092]>, "x", 1) = 1', Call("main", "sendto", "Kafka")),
        ('7 sendto(5<UNIX-STREAM:[1->2]>, "x", 1 <unfinished ...>', Call("queue", "sendto", "wake-up")),
        ("7 newfstatat(AT_FDCWD</x>, \"/data/queue.db-wal\", {}, 0) = 0", Call("queue", "newfstatat", "queue.db-wal")),
        ("fdatasync(8</data/queue.db-wal>) = -1 EIO (INJECTED)", Call("other", "fdatasync", "queue.db-wal")),
        ("6 epoll_wait(3<anon_inode:[eventpoll]>, [], 3, 117) = 0", None),
        ("6 getpid() = 6", None),
        ("6 <... pwrite64 resumed>) = 24", None),
    ],
)  # fmt: skip
def test_a_call_is_known_by_its_thread_its_name_and_its_file(line: str, call: Call | None) -> None:
    assert parse(line, {6: "main", 7: "queue"}, PORTS) == call


def test_the_sample_has_of_each_sort_before_it_has_more_of_one() -> None:
    written, sent = Call("queue", "pwrite64", "queue.db"), Call("main", "sendto", "device")
    every = cases([written] * 50 + [sent] * 50)
    chosen = choose(every, 12, random.Random(1))
    assert len(every) == 6
    assert len(set(chosen)) == 12
    assert Counter(case.kind for case in chosen) == {
        Kind.KILL: 4,
        Kind.DELAY: 4,
        Kind.EIO: 2,
        Kind.ENOSPC: 2,
    }
    assert len(choose(every, 0, random.Random(1))) == 300
