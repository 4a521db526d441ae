"""The judge sees each way in which a delivery can be wrong, and calls nothing wrong that is not."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from gateway.testing.kafka import KafkaBroker
from tests.judge.judge import Follower

JUDGE = Path(__file__).parent / "judge.py"
FAULTS = ("lost", "in_window", "wrong", "twice", "again", "out_of_order", "unasked")
CLEAN = {**dict.fromkeys(FAULTS, 0), "drain_s": None}
Told = tuple[int, int]
"""(n, how often it was sent)"""
There = tuple[int, bool, int]
"""(n, marked as sent again, the gateway's number)"""

CASES: dict[str, tuple[Sequence[Told], Sequence[There], dict[str, int], bool]] = {
    "all there": ([(1, 1), (2, 1)], [(1, False, 1), (2, False, 2)], {}, True),
    "lost": ([(1, 1), (2, 1)], [(2, False, 1)], {"lost": 1}, False),
    "twice": ([(1, 1)], [(1, False, 1), (1, False, 2)], {"twice": 1}, False),
    "sent again and marked": ([(1, 2)], [(1, False, 1), (1, True, 2)], {"again": 1}, True),
    "only the second sending was stored": ([(1, 2)], [(1, True, 1)], {}, True),
    "sent again but not marked": ([(1, 2)], [(1, False, 1), (1, False, 2)], {"twice": 1}, False),
    "marked more often than sent": ([(1, 1)], [(1, False, 1), (1, True, 2)], {"twice": 1}, False),
    "out of order": ([(1, 1), (2, 1)], [(2, False, 1), (1, False, 2)], {"out_of_order": 1}, False),
    "nobody was told": ([], [(1, False, 1)], {"unasked": 1}, True),
    "a number is missing": ([(1, 1), (2, 1)], [(1, False, 1), (2, False, 3)], {}, False),
    "a number is there twice": ([(1, 1), (2, 1)], [(1, False, 1), (2, False, 1)], {}, False),
}


Served = tuple[int, float]
"""(count, when)"""
Reading = tuple[int, int]
"""(count, check)"""

KILL = {"killed": 100.0, "back": 110.0}
UNACKED_S = 5.0
SERVED: dict[str, tuple[Sequence[Served], Sequence[Reading], dict[str, int], bool]] = {
    "all there": ([(1, 50), (2, 51)], [(1, -1), (2, -2)], {}, True),
    "missing before the window": ([(1, 94.9), (2, 120)], [(2, -2)], {"lost": 1}, False),
    "missing behind the window": ([(1, 110.1), (2, 120)], [(2, -2)], {"lost": 1}, False),
    "missing at the end": ([(1, 120), (2, 121)], [(1, -1)], {"lost": 1}, False),
    "missing where it was not flushed": ([(1, 95.1), (2, 120)], [(2, -2)], {"in_window": 1}, True),
    "missing where nobody listened": ([(1, 109.9), (2, 120)], [(2, -2)], {"in_window": 1}, True),
    "in the window and there": ([(1, 100), (2, 120)], [(1, -1), (2, -2)], {}, True),
    "one of each": (
        [(1, 90), (2, 105), (3, 120)],
        [(3, -3)],
        {"lost": 1, "in_window": 1},
        False,
    ),
    "never served": ([(1, 50)], [(1, -1), (2, -2)], {"wrong": 1}, False),
    "half of another reading": ([(1, 50), (2, 51)], [(1, -1), (2, -1)], {"wrong": 1}, False),
    "an old one again": ([(1, 50), (2, 51)], [(1, -1), (1, -1), (2, -2)], {"twice": 1}, False),
    "twice in the window": ([(1, 101)], [(1, -1), (1, -1)], {"twice": 1}, False),
    "served out of order": ([(1, 50), (2, 51)], [(2, -2), (1, -1)], {"out_of_order": 1}, False),
}


def judge(kafka: KafkaBroker, topic: str, journals: Path, *options: str | Path) -> tuple[int, dict[str, Any]]:
    command = [sys.executable, str(JUDGE), "--bootstrap", kafka.bootstrap, "--journals", str(journals)]
    done = subprocess.run(
        [*command, *options, "--continuous", "--json", topic], capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    return done.returncode, json.loads(done.stdout)


@pytest.mark.kafka
@pytest.mark.parametrize("case", CASES)
def test_verdict(kafka: KafkaBroker, topic: str, tmp_path: Path, case: str) -> None:
    told, there, expected, clean = CASES[case]
    identity = {"driver": "floor", "device": "press"}
    lines = [json.dumps({**identity, "id": f"press/{n}", "n": n, "sends": sends}) + "\n" for n, sends in told]
    (tmp_path / "press.jsonl").write_text("".join(lines))
    producer = Producer({"bootstrap.servers": kafka.bootstrap})
    for n, marked, number in there:
        headers = {"tg.driver": "floor", "tg.queue": "q", "tg.lane": "main", "tg.seq": str(number)}
        body = json.dumps({"device": "press", "id": f"press/{n}", "n": n})
        producer.produce(topic, body, key="press", headers={**headers, **({"tg.dup": "1"} if marked else {})})
    producer.flush(10)
    code, verdict = judge(kafka, topic, tmp_path)
    account = {"accepted": len(told), "in_kafka": len(there), **CLEAN, **expected}
    assert verdict["drivers"] == {"floor": account}
    assert verdict["clean"] is clean
    assert code == (0 if clean else 1)


def serve(journals: Path, served: Sequence[Served]) -> None:
    lines = [
        {"device": "meter", "time": when, "values": {"count": count, "check": -count}}
        for count, when in served
    ]
    (journals / "meters.served").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.kafka
def test_after_a_silence_another_consumer_goes_on_where_the_last_one_was(
    kafka: KafkaBroker, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.judge.judge.SILENT_S", 0.2)
    producer = Producer({"bootstrap.servers": kafka.bootstrap})
    follower = Follower(kafka.bootstrap, [topic])
    found: list[bytes] = []
    first = follower._consumer  # noqa: SLF001
    deadline = time.monotonic() + 30
    for number in range(3):
        producer.produce(topic, b"%d" % number)
        producer.flush()
        while len(found) <= number or follower._consumer is first:  # noqa: SLF001
            assert time.monotonic() < deadline
            found += [message.body for message in follower.read()]
        first = follower._consumer  # noqa: SLF001
    follower.close()
    assert found == [b"0", b"1", b"2"]


def send_readings(kafka: KafkaBroker, topic: str, readings: Sequence[object]) -> None:
    producer = Producer({"bootstrap.servers": kafka.bootstrap})
    for number, values in enumerate(readings, 1):
        body = json.dumps({"device": "meter", "time": 0, "values": values, "quality": {}})
        headers = {"tg.driver": "meters", "tg.queue": "q", "tg.lane": "main", "tg.seq": str(number)}
        producer.produce(topic, body, key="meter", headers=dict(headers))
    producer.flush(10)


@pytest.mark.kafka
@pytest.mark.parametrize("case", SERVED)
def test_verdict_on_devices_that_nobody_tells(
    kafka: KafkaBroker, topic: str, tmp_path: Path, case: str
) -> None:
    served, there, expected, clean = SERVED[case]
    serve(tmp_path, served)
    (tmp_path / "kills").write_text(json.dumps(KILL) + "\n")
    send_readings(kafka, topic, [{"count": count, "check": check} for count, check in there])
    window = ("--kills", tmp_path / "kills", "--unacked", str(UNACKED_S))
    code, verdict = judge(kafka, topic, tmp_path, *window)
    account = {"accepted": len(served), "in_kafka": len(there), **CLEAN, **expected}
    assert verdict["drivers"] == {"meters": account}
    assert verdict["window_s"] == 15
    assert verdict["clean"] is clean
    assert code == (0 if clean else 1)


@pytest.mark.kafka
def test_without_a_kill_there_is_no_window(kafka: KafkaBroker, topic: str, tmp_path: Path) -> None:
    serve(tmp_path, [(1, 100.0), (2, 120.0)])
    send_readings(kafka, topic, [{"count": 2, "check": -2}])
    code, verdict = judge(kafka, topic, tmp_path, "--unacked", "1000")
    assert (code, verdict["drivers"]["meters"]["lost"], verdict["window_s"]) == (1, 1, 0)


@pytest.mark.kafka
def test_only_a_record_without_any_value_is_no_reading(
    kafka: KafkaBroker, topic: str, tmp_path: Path
) -> None:
    serve(tmp_path, [])
    send_readings(kafka, topic, [{}, {"check": -1}, {"count": "?"}, {"count": 1}, None])
    _, verdict = judge(kafka, topic, tmp_path)
    assert verdict["drivers"]["meters"]["wrong"] == verdict["drivers"]["meters"]["in_kafka"] == 4


@pytest.mark.kafka
def test_partitions_of_one_device_have_no_order(
    kafka: KafkaBroker, new_topic: Callable[..., str], tmp_path: Path
) -> None:
    topic = new_topic(partitions=2)
    producer = Producer({"bootstrap.servers": kafka.bootstrap})
    for n in (0, 1):
        body = json.dumps({"device": "press", "id": f"press/{n}", "n": n})
        headers = {"tg.driver": "floor", "tg.queue": "q", "tg.lane": "main", "tg.seq": str(n + 1)}
        producer.produce(topic, body, partition=n, headers=dict(headers))
    producer.flush(10)
    assert judge(kafka, topic, tmp_path)[1]["drivers"]["floor"]["out_of_order"] == 1


@pytest.mark.kafka
def test_a_watching_judge_counts_and_says_when_all_was_there(
    kafka: KafkaBroker, topic: str, tmp_path: Path
) -> None:
    command = [sys.executable, str(JUDGE), "--bootstrap", kafka.bootstrap, "--journals", str(tmp_path)]
    producer = Producer({"bootstrap.servers": kafka.bootstrap})
    with subprocess.Popen(
        [*command, "--watch", "--json", topic], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as judge:
        assert judge.stdin
        assert judge.stdout
        news = (json.loads(line) for line in judge.stdout)

        def send(n: int) -> None:
            body = json.dumps({"device": "press", "id": f"press/{n}", "n": n})
            producer.produce(topic, body, headers={"tg.driver": "floor"})
            producer.flush(10)

        def acknowledge(n: int) -> None:
            told = {"driver": "floor", "device": "press", "id": f"press/{n}", "n": n, "sends": 1}
            with (tmp_path / "press.jsonl").open("a") as journal:
                journal.write(json.dumps(told) + "\n")

        acknowledge(1)
        acknowledge(2)
        send(1)
        assert next(line for line in news if line["in_kafka"] == {"floor": 1})["drained"] == {}
        judge.stdin.write("now\n")
        judge.stdin.flush()
        next(line for line in news if line["drained"] == {"floor": None})
        acknowledge(3)
        send(2)
        drained = next(line for line in news if line["drained"]["floor"] is not None)
        assert drained["in_kafka"] == {"floor": 2}
        judge.stdin.close()
        verdict = list(news)[-1]
    assert verdict["drivers"]["floor"]["lost"] == 1
    assert verdict["drivers"]["floor"]["drain_s"] == drained["drained"]["floor"] > 0


@pytest.mark.kafka
def test_a_watching_judge_awaits_nothing_from_the_window(
    kafka: KafkaBroker, topic: str, tmp_path: Path
) -> None:
    serve(tmp_path, [(1, 50), (2, 105), (3, 120)])
    (tmp_path / "kills").write_text(json.dumps(KILL) + "\n")
    send_readings(kafka, topic, [{"count": 1, "check": -1}])
    command = [sys.executable, str(JUDGE), "--bootstrap", kafka.bootstrap, "--journals", str(tmp_path)]
    window = ["--kills", str(tmp_path / "kills"), "--unacked", str(UNACKED_S)]
    with subprocess.Popen(
        [*command, *window, "--watch", "--json", topic],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as judge:
        assert judge.stdin
        assert judge.stdout
        news = (json.loads(line) for line in judge.stdout)
        next(line for line in news if line["in_kafka"] == {"meters": 1})
        judge.stdin.write("now\n")
        judge.stdin.flush()
        next(line for line in news if line["drained"] == {"meters": None})
        send_readings(kafka, topic, [{"count": 3, "check": -3}])
        next(line for line in news if (line["drained"]["meters"] or 0) > 0)
        judge.stdin.close()
        verdict = list(news)[-1]
    assert verdict["drivers"]["meters"]["in_window"] == 1
    assert verdict["clean"]


@pytest.mark.slow
def test_without_kafka_there_is_no_verdict(tmp_path: Path) -> None:
    command = [sys.executable, str(JUDGE), "--bootstrap", "127.0.0.1:1", "--journals", str(tmp_path), "topic"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "could not judge" in done.stderr
