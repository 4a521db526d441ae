"""The sync: one task that moves the queue to Kafka, exactly once, however often the link or the process ends.

Connect, read the positions that Kafka holds, reconcile them with the queue's, publish; then one transaction after the
other, each with its records and the positions behind them. After any failure nothing of the connection is used again:
close hard, wait (full jitter, seeded by the gateway's id), begin anew; what was in doubt is then decided by Kafka.
"""

import asyncio
import logging
import os
from collections.abc import Sequence
from contextlib import suppress

from gateway.backoff import Backoff
from gateway.clock import Clock
from gateway.errors import CommandError, QueueFull, Refused, SinkHeld, SinkRefused, SinkUnavailable
from gateway.queue import LANES, Queue, statement
from gateway.repeats import Repeats, since
from gateway.sync.batches import Batches, Identity, Partitioner
from gateway.sync.lane import PARKED_MAX, Lane, Take, progressed, up_to
from gateway.sync.ledger import ledger_shape
from gateway.sync.lineage import Seen
from gateway.sync.memory import Adoption, Memory, Place
from gateway.sync.pace import Pace
from gateway.sync.position import Key, Progress, decode, decode_key, encode, encode_key, position_at
from gateway.sync.reconcile import Answer, predecessors
from gateway.sync.settings import KafkaSettings
from gateway.sync.sink import (
    Batch,
    InvalidTimestamp,
    PositionRecord,
    Receipt,
    Rejected,
    Sink,
    TopicUnusable,
)
from gateway.sync.standing import Standing
from gateway.sync.status import LinkState, Sent, SyncStatus
from gateway.sync.topics import PARKED_S, Topics

BACKOFF_S = (1.0, 4.0)
"""The most that an outage lasts longer for us: a try that fails costs a few packets and half a millisecond."""

REFUSED_BACKOFF_S = (30.0, 300.0, 30.0)
"""Who tries a wrong password more often than once in 30 s is taken for an attacker."""

HELD_S = 600.0
"""A held sync looks again so often: a rival may have gone."""

STOP_S = 2.0
"""A transaction under way when the process is told to end may finish within this."""

HINT_INTERVAL_S = 60.0
"""What Kafka's positions have grown by since then is read after a crash, perhaps over a slow link."""

BATCH_BYTES_MIN = 1024
MAIN, LEDGER = LANES

_log = logging.getLogger(__name__)


class Sync:
    """`run` until cancelled. `partition` says which partition a key goes to, given their number."""

    def __init__(
        self,
        queue: Queue,
        sink: Sink,
        settings: KafkaSettings,
        gateway_id: str,
        clock: Clock,
        partition: Partitioner,
        hardware_id: str | None = None,
        replaces: str | None = None,
        sent: Sent | None = None,
    ) -> None:
        self._queue = queue
        self._sink = sink
        self._settings = settings
        self._clock = clock
        self._partition = partition
        self._hardware_id = hardware_id
        self._identity = Identity(gateway_id, queue.queue_id)
        self._memory = Memory(queue)
        self._standing = Standing(queue, self._memory, gateway_id, hardware_id, replaces)
        self._standing.pin_what_is_in_doubt()
        self._lanes = {name: Lane(name, queue) for name in LANES}
        self._topics = Topics(sink, clock)
        self._pace = Pace(settings.linger, settings.max_rate, settings.transaction_timeout)
        self._batch_bytes: dict[str, int] = {}
        self._backoff = Backoff(gateway_id, *BACKOFF_S)
        self._refused_backoff = Backoff(gateway_id, *REFUSED_BACKOFF_S)
        self._adopted = asyncio.Event()
        self._arrivals: dict[str, asyncio.Task[None]] = {}
        self._broker_offset_ms = 0.0
        self._latest: PositionRecord | None = None
        self._hint_stored = float("-inf")
        self._reconciled = self._in_doubt = self._told_delivering = self._held = False
        self._state, self._since = LinkState.CONNECTING, clock.monotonic()
        self._error: str | None = None
        self._alarm: str | None = None
        self._sent = sent or Sent()
        self._put_asides = Repeats()

    def status(self) -> SyncStatus:
        return SyncStatus(
            state=self._state,
            since_s=self._clock.monotonic() - self._since,
            error=self._error,
            alarm=self._alarm or next(iter(self._topics.parked.values()), self._standing.parted),
            parked=dict(self._topics.parked),
            beyond=max(0, self._lanes[MAIN].progress.beyond),
            delivered=dict(self._sent.records),
            records_per_s=self._pace.records_per_s(self._clock.monotonic()),
            bytes_sent=self._sent.bytes,
            transactions=self._sent.transactions,
        )

    async def adopt(self, answer: Answer | None) -> None:
        """An operator's word: the place found now is right, and what was in doubt was delivered or lost; or "fork".

        Raises CommandError while nothing is held: kept for later, it would decide what nobody has seen yet. So does a
        fork of what is no copy.
        """
        wrong = None
        if self._state is LinkState.LIVE:
            wrong = "records are being delivered: there is nothing to decide"
        elif answer == "fork":
            wrong = self._standing.why_no_fork()
        elif not self._held:
            wrong = "nothing was found yet that needs a decision; once there is, `tidegate status` says what"
        if wrong is not None:
            raise CommandError(wrong, os.EX_DATAERR)
        await self._memory.adopt(answer)
        self._adopted.set()

    async def run(self) -> None:
        """Raises StorageFailing when the queue's disk fails; nothing else ends it but being cancelled."""
        await self._standing.note_board()
        try:
            while True:
                pause = await self._connect_and_deliver()
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._adopted.wait()
                self._adopted.clear()
        finally:
            for arrival in self._arrivals.values():
                arrival.cancel()

    async def _connect_and_deliver(self) -> float:
        """Until something fails; returns the seconds to wait before the next try."""
        try:
            return await self._deliver_until_failure()
        except QueueFull as error:  # what must be noted before the next transaction can't be
            self._fail(LinkState.DOWN, error, alarm=True)
            return self._backoff.next_delay()

    async def _deliver_until_failure(self) -> float:
        try:
            await self._connect()
            while True:
                await self._round()
        except Rejected as error:
            await self._sink.close()
            await self._put_aside(error)
            return 0.0
        except SinkHeld as error:
            self._held = True
            self._fail(LinkState.HELD, error, alarm=True)
            return HELD_S
        except TopicUnusable as error:
            self._topics.park(error.topic, str(error))
            return 0.0
        except SinkRefused as error:
            self._fail(LinkState.DOWN, error, alarm=True)
            return self._refused_backoff.next_delay()
        except SinkUnavailable as error:
            self._fail(LinkState.DOWN, error, alarm=isinstance(error, InvalidTimestamp))
            return self._backoff.next_delay()
        except asyncio.CancelledError:
            await self._remember_where()
            raise
        finally:
            await self._sink.close()

    async def _connect(self) -> None:
        if self._state is not LinkState.HELD:
            self._change(LinkState.CONNECTING)
        self._topics.reconnected()
        cluster = await self._sink.open()
        adoption = self._memory.adoption
        moved = self._standing.check_place(self._place(cluster), adoption)
        seen = await self._read_positions(moved)
        highest = max((latest.offset for latest in seen.values()), default=-1)
        if adoption is not None or moved:
            await self._memory.set_accepted_offset(highest)
        await self._reconcile(seen, moved, adoption)
        self._pace.reconnected()
        await self._transact([])
        # Only now: a link that breaks before must find the operator's word, and what it was about, as it was.
        await self._memory.set_sent()
        await self._memory.set_settled(None)
        await self._memory.set_place(self._place(cluster))
        if not self._adopted.is_set():  # else an operator has just spoken again
            await self._memory.forget_adoption()
        if self._hardware_id is not None:
            await self._memory.set_hardware_id(self._hardware_id)
            await self._memory.set_copied(None)
        self._standing.sent = True
        self._held = False
        self._change(LinkState.LIVE)
        if not any(lane.front_waits for lane in self._lanes.values()):
            self._recovered()

    def _place(self, cluster: str) -> Place:
        return Place(
            cluster, self._identity.gateway_id, self._settings.positions_topic, self._settings.delivery
        )

    async def _read_positions(self, moved: bool) -> dict[Key, Seen]:
        seen: dict[Key, Seen] = {}
        # Nobody else can have delivered between our opening and our latest commit: it would have been fenced.
        hint = None if moved else self._latest or self._memory.hint
        for record in await self._sink.positions(hint):
            key = decode_key(record.key)
            if key is not None and key.gateway_id == self._identity.gateway_id:
                seen[key] = Seen(record.offset, decode(record.value))
        return seen

    async def _reconcile(self, seen: dict[Key, Seen], moved: bool, adoption: Adoption | None) -> None:
        """Raises SinkHeld where Kafka and the disk can't both be right."""
        verdicts = await self._standing.judge(seen, moved, adoption)
        self._identity = Identity(self._identity.gateway_id, self._queue.queue_id)
        for name, verdict in verdicts.items():
            lane = self._lanes[name]
            lane.resume(verdict.position, verdict.beyond)
            if not verdict.parted:
                for old in verdict.by:
                    await self._tell("salvaged", name, queue_id=old, through=lane.front)
            if verdict.note is not None and not verdict.parted:
                _log.warning("%s", verdict.note)
                await self._tell("note", lane.name, text=verdict.note)
        await self._queue.put([])  # what was dropped unknowingly is judged before anything passes it
        self._reconciled, self._in_doubt = True, False
        lost = predecessors(seen, self._queue.queue_id, self._queue.past.queue_ids())
        if lost:
            _log.warning("earlier queues of this gateway id are gone: %s", ", ".join(lost))
            await self._tell(
                "lost", MAIN, queues={queue: lanes.get(MAIN, 0) for queue, lanes in lost.items()}
            )

    async def _round(self) -> None:
        """Wait for records, then one transaction."""
        await self._something_waits()
        now = self._clock.monotonic()
        waiting = sum(lane.waiting_bytes for lane in self._lanes.values())
        await asyncio.sleep(self._pace.delay(now, waiting))
        main = await self._take(self._lanes[MAIN])
        if main is not None:
            await self._announce(main)
        ledger = await self._take(self._lanes[LEDGER])
        takes = [take for take in (main, ledger) if take is not None]
        if takes:
            await self._transact(takes)

    async def _something_waits(self) -> None:
        for name, lane in self._lanes.items():
            arrival = self._arrivals.get(name)
            if arrival is None or arrival.done():
                self._arrivals[name] = asyncio.create_task(self._queue.wait_for(name, lane.front))
        parked = [lane.progress.parked for lane in self._lanes.values() if lane.progress.parked]
        timeout = PARKED_S if parked else None
        if any(self._topics.usable(topics) for topics in parked):
            timeout = 0
        await asyncio.wait(self._arrivals.values(), timeout=timeout, return_when=asyncio.FIRST_COMPLETED)

    async def _take(self, lane: Lane) -> Take | None:
        parked = lane.progress.parked
        await self._topics.ask(parked)
        only = lane.catch_up(self._topics.usable(parked))
        after = lane.front if only is None else parked[only] - 1
        until = None if only is None else lane.front
        through, segments = await lane.read(after, until, self._pace.records, self._pace.bytes)
        if through <= after:
            return None
        if only is not None:
            return Take(lane.name, after, through, segments, {only}, {}, only)
        firsts: dict[str, int] = {}
        for segment in segments:
            for seq, entry in enumerate(segment.entries, segment.first):
                firsts.setdefault(entry[0][0], seq)
        unfit: dict[str, int] = {}
        for name, first in firsts.items():
            if name in parked:
                continue
            await self._topics.ask([name])
            if name not in self._topics.parked:
                continue
            if len(parked) + len(unfit) == PARKED_MAX:
                through = self._stop_before(name, first, after)
                segments = up_to(segments, through)
                firsts = {known: number for known, number in firsts.items() if number <= through}
                break
            unfit[name] = first
        return Take(
            lane.name,
            after,
            through,
            segments,
            firsts.keys() - parked.keys() - unfit.keys(),
            {**unfit, **parked},
        )

    def _stop_before(self, topic: str, first: int, after: int) -> int:
        """The last number that is taken. Raises SinkRefused if that is none."""
        if first > after + 1:
            return first - 1
        raise SinkRefused(
            f"{PARKED_MAX} topics can't be written, and record {first} is for one more: "
            f"{self._topics.parked[topic]}. It waits with all behind it until fewer are missing. Does a route make "
            "topics of what devices send?"
        )

    async def _announce(self, take: Take) -> None:
        """Before a lane's first record goes to a topic, or to one that has grown, the ledger says that it will."""
        told = self._memory.topics
        now = {topic: self._topics.known[topic].partitions for topic in sorted(take.topics)}
        new = {topic: partitions for topic, partitions in now.items() if told.get(topic) != partitions}
        if new:
            await self._tell("topics", MAIN, topics=new, from_seq=take.after + 1)
            await self._memory.set_topics({**told, **new})

    async def _tell(self, kind: str, lane: str, **fields: object) -> None:
        shape = ledger_shape(self._settings.ledger_topic, self._identity.gateway_id)
        entry = statement(shape, kind, lane, self._clock.wall_ms(), **fields)
        try:
            await self._queue.put([entry], lane=LEDGER)
        except Refused as refused:
            raise SinkUnavailable(f"the ledger can't be written: {refused}") from refused

    async def _transact(self, takes: Sequence[Take]) -> None:
        """One transaction with all that is taken, and the positions of all lanes behind it."""
        self._pace.began(self._clock.monotonic())
        batches = await self._build(takes)
        counts = dict.fromkeys(LANES, 0)
        for batch in batches:
            counts[batch.lane] += batch.data.records
        after = {name: lane.progress for name, lane in self._lanes.items()}
        for take in takes:
            after[take.lane] = progressed(after[take.lane], take, counts[take.lane])
            self._lanes[take.lane].pin(take)
        parks = any(progress.parked for progress in after.values())
        if parks:
            await self._memory.set_parked(True)
        self._in_doubt = True
        try:
            receipt, told_to_end = await self._deliver(
                batches, [self._record(name, after[name]) for name in LANES]
            )
        except SinkUnavailable:
            self._pace.failed()
            raise
        self._in_doubt = False
        if not parks:
            await self._memory.set_parked(False)
        self._latest = receipt.position
        self._broker_offset_ms = receipt.broker_ms - self._clock.monotonic() * 1000
        for take in takes:
            count = receipt.delivered.get(take.lane, 0)
            self._lanes[take.lane].delivered(take, count)
            self._sent.records[take.lane] += count
        size = sum(segment.size for take in takes for segment in take.segments)
        self._pace.ended(self._clock.monotonic(), size, sum(counts.values()), receipt.bytes_sent)
        self._sent.bytes += receipt.bytes_sent
        self._sent.transactions += 1
        if told_to_end:
            raise asyncio.CancelledError
        if takes:
            self._recovered()
        if self._clock.monotonic() - self._hint_stored > HINT_INTERVAL_S:
            self._hint_stored = self._clock.monotonic()
            await self._memory.set_hint(receipt.position)

    async def _build(self, takes: Sequence[Take]) -> list[Batch]:
        batches = Batches(
            self._identity,
            self._topics.known,
            round(self._broker_offset_ms + self._clock.monotonic() * 1000),
            self._partition,
            batch_bytes=self._batch_bytes,
            keyless=self._sent.transactions,
        )
        for take in takes:
            lane = self._lanes[take.lane]
            dead = frozenset(lane.dead)
            for segment in take.segments:
                await batches.add(segment, dead, lane.alone_through, take.takes)
        return batches.finish()

    async def _deliver(
        self, batches: Sequence[Batch], positions: Sequence[tuple[bytes, bytes]]
    ) -> tuple[Receipt, bool]:
        """(receipt, whether the process was told to end meanwhile): the transaction gets a moment all the same."""
        delivery = asyncio.create_task(self._sink.deliver(batches, positions))
        try:
            return await asyncio.shield(delivery), False
        except asyncio.CancelledError:
            done, _ = await asyncio.wait([delivery], timeout=STOP_S)
            if done and delivery.exception() is None:
                return delivery.result(), True
            delivery.cancel()
            raise

    def _record(self, lane: str, progress: Progress) -> tuple[bytes, bytes]:
        key = Key(self._identity.gateway_id, self._queue.queue_id, lane)
        return encode_key(key), encode(position_at(progress, self._queue.runs(lane), self._hardware_id))

    async def _put_aside(self, error: Rejected) -> None:
        """Nothing of the transaction was committed: smaller batches, then single records, then the dead letters."""
        for batch in error.batches:
            lane = self._lanes[batch.lane]
            if batch.data.records == 1:
                self._tell_put_aside(batch, error)
                with suppress(
                    SinkUnavailable
                ):  # a queue too full to tell it must not keep the record in the way
                    await self._tell(
                        "dead", batch.lane, first=batch.first, last=batch.first, reason=str(error)
                    )
                await lane.bury(batch.first, str(error))
            elif error.too_large and batch.data.size > BATCH_BYTES_MIN:
                size = max(BATCH_BYTES_MIN, batch.data.size // 2)
                self._batch_bytes[batch.topic] = min(size, self._batch_bytes.get(batch.topic, size))
            else:
                lane.alone_through = max(lane.alone_through, batch.last)

    def _tell_put_aside(self, batch: Batch, error: Rejected) -> None:
        """Each is in the ledger and among the dead letters; the log has one line for the first of a topic, then for many."""
        count = self._put_asides.due((batch.topic, error.too_large), self._clock.monotonic())
        if count:
            more = since(count, "such")
            _log.error("record %d of lane %s is put aside: %s%s", batch.first, batch.lane, error, more)

    async def _remember_where(self) -> None:
        """On the way out: if nothing is in doubt, the next start needn't ask what became of it."""
        if self._reconciled and not self._in_doubt:
            with suppress(QueueFull):  # then it must ask
                await self._memory.set_hint(self._latest)
                await self._memory.set_settled({name: lane.progress for name, lane in self._lanes.items()})

    def _recovered(self) -> None:
        if self._error is not None or not self._told_delivering:
            self._told_delivering = True
            _log.info("Kafka: records are delivered to %s", ", ".join(self._settings.bootstrap_servers))
        self._error = self._alarm = None
        self._backoff.reset()
        self._refused_backoff.reset()

    def _change(self, state: LinkState) -> None:
        """An outage is one, however often a connection is tried in it."""
        outage = self._error is not None and {state, self._state} == {LinkState.CONNECTING, LinkState.DOWN}
        if state is not self._state and not outage:
            self._since = self._clock.monotonic()
        self._state = state

    def _fail(self, state: LinkState, error: SinkHeld | SinkUnavailable | QueueFull, alarm: bool) -> None:
        """One line for the first failure, and for another kind of failure."""
        text = str(error) or type(error).__name__
        if self._error is None or (alarm and self._alarm != text):
            _log.log(logging.ERROR if alarm else logging.WARNING, "Kafka: %s; records are kept", text)
        else:
            _log.debug("Kafka: %s", text)
        self._error = text
        self._alarm = text if alarm else None
        self._change(state)
