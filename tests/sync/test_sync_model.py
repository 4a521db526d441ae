"""The sync against all that Kafka, the power and an operator may do to it, in any order: nothing accepted is lost,
nothing is delivered twice, and what was dropped is told. No broker is needed: see gateway.testing.sink."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway.errors import SinkUnavailable
from gateway.testing.sink import Fault, MemoryTopic
from tests.sync.world import Image, World, quick

TOPICS = ("alpha", "beta", "keyed")
RECORD = st.tuples(
    st.sampled_from(TOPICS),
    st.sampled_from([b"k1", b"k2", b"k3", None]),
    st.integers(0, 3000) | st.sampled_from([45_000, 60_000]),
)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    quick(monkeypatch)


class SyncModel(RuleBasedStateMachine):
    """A record for "keyed" without a key and one of 45,000 bytes for "beta" are never taken by Kafka."""

    @initialize(when_full=st.sampled_from(["drop_oldest", "drop_oldest", "reject"]))
    def begin(self, when_full: str) -> None:
        self.loop = asyncio.new_event_loop()
        self.root = Path(tempfile.mkdtemp())
        self.world = World(self.root, when_full)
        self.missing: dict[str, MemoryTopic] = {}
        self.image: Image | None = None
        self.do(self.world.start())

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(work)

    @rule(records=st.lists(RECORD, min_size=1, max_size=6))
    def emit(self, records: list[tuple[str, bytes | None, int]]) -> None:
        self.do(self.world.emit(*records))

    @rule(records=st.lists(RECORD, min_size=1, max_size=3), times=st.integers(10, 70))
    def trickle(self, records: list[tuple[str, bytes | None, int]], times: int) -> None:
        """One small commit after the other, as in a quiet outage: what merging is for."""

        async def trickle() -> None:
            for index in range(times):
                topic, key, _ = records[index % len(records)]
                await self.world.emit((topic, key, 10))

        self.do(trickle())

    @rule(records=st.lists(RECORD, min_size=1, max_size=3))
    def flood(self, records: list[tuple[str, bytes | None, int]]) -> None:
        """More than the queue may hold."""

        async def flood() -> None:
            for index in range(30):
                topic, key, _ = records[index % len(records)]
                await self.world.emit(*[(topic, key, 8_000)] * 6)

        self.do(flood())

    @rule(faults=st.lists(st.sampled_from(list(Fault)), min_size=1, max_size=3))
    def transactions_fail(self, faults: list[Fault]) -> None:
        self.world.cluster.faults.extend(faults)

    @rule(times=st.integers(1, 2))
    def kafka_is_away(self, times: int) -> None:
        self.world.cluster.refusals.extend([SinkUnavailable("connection refused")] * times)

    @rule(fault=st.sampled_from([None, *Fault]))
    def kafka_hangs(self, fault: Fault | None) -> None:
        self.world.cluster.pause()
        if fault is not None:
            self.world.cluster.faults.append(fault)

    @rule()
    def kafka_answers(self) -> None:
        self.world.cluster.resume()

    @rule(topic=st.sampled_from([*TOPICS, "tidegate-ledger"]))
    def a_topic_is_deleted_or_made_again(self, topic: str) -> None:
        """Made again with what it held: to this test it only was not to be seen."""
        there = self.world.cluster.topics
        if topic in self.missing:
            there[topic] = self.missing.pop(topic)
        else:
            self.missing[topic] = there.pop(topic)

    @rule(topic=st.sampled_from(TOPICS))
    def a_topic_may_be_written_or_not(self, topic: str) -> None:
        there = self.missing.get(topic) or self.world.cluster.topics[topic]
        there.writable = not there.writable

    @rule(turns=st.integers(1, 50))
    def some_turns_of_the_loop(self, turns: int) -> None:
        async def turn() -> None:
            for _ in range(turns):
                await asyncio.sleep(0)

        self.do(turn())

    @rule()
    def quiet(self) -> None:
        self.do(self.world.quiet())

    @rule()
    def retry_dead_letters(self) -> None:
        self.do(self.world.retry())

    @rule()
    def another_delivers_under_our_id(self) -> None:
        self.world.rival()

    @rule()
    def an_operator_adopts(self) -> None:
        """Not a precondition: when the sync is held depends on the threads' timing, and hypothesis must not."""
        if self.world.held:
            self.do(self.world.sync.adopt(None))

    @rule()
    def stop_and_start(self) -> None:
        self.do(self.world.stop())
        self.do(self.world.start())

    @rule()
    def the_sync_is_made_anew(self) -> None:
        """As after a change of its settings: the queue stays open."""

        async def anew() -> None:
            await self.world.disconnect()
            self.world.connect()

        self.do(anew())

    @rule(outage=st.booleans())
    def kill_and_start(self, outage: bool) -> None:
        self.do(self.world.kill())
        if outage:
            self.kafka_is_away(2)
        self.do(self.world.start())

    @rule()
    def an_image_is_taken(self) -> None:
        self.image = self.do(self.world.image())

    @precondition(lambda self: self.image is not None)
    @rule()
    def the_image_is_put_back(self) -> None:
        if self.image is not None:
            self.do(self.world.put_back(self.image))
            self.do(self.world.start())

    @rule(records=st.lists(RECORD, min_size=1, max_size=3), quiet=st.booleans())
    def the_disk_loses_its_end(self, records: list[tuple[str, bytes | None, int]], quiet: bool) -> None:
        image = self.do(self.world.image())
        self.do(self.world.emit(*records))
        if quiet:
            self.do(self.world.quiet())
        self.do(self.world.put_back(image))
        self.do(self.world.start())

    @rule()
    def the_card_is_cloned_or_the_other_copy_runs(self) -> None:
        if self.world.twin is None:
            self.do(self.world.clone())
        else:
            self.do(self.world.switch())
            self.do(self.world.start())

    @invariant()
    def the_sync_lives(self) -> None:
        if hasattr(self, "world"):
            self.do(self.world.until(lambda: True))

    def heal(self) -> None:
        cluster = self.world.cluster
        cluster.topics |= self.missing
        self.missing = {}
        for topic in cluster.topics.values():
            topic.writable = True

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        self.heal()
        self.do(self.world.balance())
        self.loop.close()
        shutil.rmtree(self.root)


class LongSyncModel(SyncModel):
    pass


def _profile(examples: int, steps: int) -> settings:
    return settings(
        max_examples=int(os.environ.get("MODEL_EXAMPLES", examples)),
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


TestSyncModel = SyncModel.TestCase
TestSyncModel.settings = _profile(examples=6, steps=15)

TestLongSyncModel = pytest.mark.slow(LongSyncModel.TestCase)
TestLongSyncModel.settings = _profile(examples=40, steps=30)
