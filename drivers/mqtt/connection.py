"""One client: packets in, records to the queue, acknowledgements out in order, and only after the fsync."""

import asyncio
import logging
import secrets
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import cast

from drivers.mqtt import protocol as mqtt
from drivers.mqtt.access import Rights
from drivers.mqtt.batch import DUP, RETAINED, Batch, headers_of, refused_acks, will_record
from drivers.mqtt.door import Door
from drivers.mqtt.passwords import Busy
from drivers.mqtt.protocol import V5, Connect, Malformed, Packet, Property, Publish, Reason, Will
from drivers.mqtt.sessions import ANONYMOUS, CLIENT_ID_BYTES_MAX, packet_id
from drivers.mqtt.subscriber import Subscriber
from drivers.mqtt.subscribers import Message
from gateway.errors import Refused
from gateway.limits import RECORD_OVERHEAD_BYTES
from gateway.record import Record

DISCONNECT_WITH_WILL = 0x04
PINGRESP = b"\xd0\0"
UNREAD_BYTES_MAX = 2 << 20
"""Beside one packet, of what a subscriber was sent: one that doesn't read would fill the memory."""

_log = logging.getLogger(__name__)


class Connection(asyncio.Protocol):
    """States: before CONNECT (`_rights` is None), serving, and `_ending`, in which nothing is read any more."""

    def __init__(self, door: Door, connections: "set[Connection]") -> None:
        self._door = door
        self._connections = connections
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._rest = b""
        self._version = mqtt.V311
        self._rights: Rights | None = None
        self._will: Will | None = None
        self._admission: asyncio.Task[None] | None = None
        self._subscriber: Subscriber | None = None
        self._expiry_s = 0.0
        self._unfinished: set[int] = set()
        self._disowned: set[int] = set()
        self._batches: deque[Batch] = deque()
        self._waiting_bytes = 0
        self._ending = False
        self._pings = 0
        self._farewell = b""
        self._writable = asyncio.Event()
        self._writable.set()
        self._waits_for_turn = False
        self.client_id = ""
        self.user = ANONYMOUS
        self.keep_alive_s = 0.0
        self.heard = True
        self.heard_at = self.began_at = door.clock.monotonic()

    @property
    def serving(self) -> bool:
        return self._rights is not None

    @property
    def lasting(self) -> bool:
        """Whether its session outlives the connection."""
        return self._expiry_s > 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(1 << 16)
        if len(self._connections) >= self._door.config.connections_max:
            self._transport.abort()
        else:
            self._connections.add(self)

    def data_received(self, data: bytes) -> None:
        self.heard = True
        if self._ending:
            return
        if self._rest:
            data = self._rest + data
        if self._rights is None:
            if self._admission is not None:
                self._keep(data)
            else:
                self._begin(data)
            return
        while not self._ending:
            try:
                packets, used = mqtt.split(data, self._door.config.packet_bytes_max)
                if not packets:
                    break
                self._take(data, packets)
            except Malformed as error:
                self.fail(error.reason, str(error))
                return
            data = data[used:]
            if len(packets) == mqtt.SPLIT_MAX and self._wait_for_turn(data):
                return
        if not self._ending and (self._rest or data):
            self._keep(data)

    def _wait_for_turn(self, rest: bytes) -> bool:
        """Let the others be served before the rest of a read that brought many packets; not if there is no room for it."""
        if not self._door.room.change(len(self._rest), len(rest)):
            self._door.room.change(len(rest), len(self._rest))
            return False
        self._rest = rest
        self._waits_for_turn = True
        self._transport.pause_reading()
        asyncio.get_running_loop().call_soon(self._next_turn)
        return True

    def _next_turn(self) -> None:
        self._waits_for_turn = False
        self.data_received(b"")
        if self._waiting_bytes <= self._door.config.in_flight_bytes_max:
            self._resume_reading()

    def eof_received(self) -> None:
        return None

    def connection_lost(self, error: Exception | None) -> None:
        self._ending = True
        self._keep(b"")
        if self._admission is not None:
            self._admission.cancel()
        if self._subscriber is not None:
            self._subscriber.end()
        sessions = self._door.sessions
        if sessions.connected.get(self.client_id) is self:
            del sessions.connected[self.client_id]
            self._leave_session()
        self._publish_will()
        self._connections.discard(self)
        self.gone.set_result(None)

    def pause_writing(self) -> None:
        """A client that doesn't read its acknowledgements isn't read either."""
        self._writable.clear()
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._writable.set()
        self._resume_reading()

    def fail(self, reason: Reason, message: str) -> None:
        """Acknowledge what is being stored, tell an MQTT 5 client why, close."""
        if self._ending:
            return
        self._door.emit.device_failed(self.client_id or self._peer(), message)
        self._leave(mqtt.encode_disconnect(reason) if self.serving and self._version == V5 else b"")

    def give_up(self, reason: Reason, message: str) -> None:
        """It is too slow or too silent. One that has not gone since the last time, for it doesn't read, is cut off."""
        if self._ending:
            self.abort()
        else:
            self.fail(reason, message)

    def take_over(self) -> None:
        """Another connection has this client id: nothing of this one is read any more."""
        if self._version == V5:
            self._transport.write(mqtt.encode_disconnect(Reason.TAKEN_OVER))
        self._keep(b"")
        self._leave_session()
        self._close()

    def finish(self) -> None:
        """The driver ends: read nothing more, acknowledge what is being stored, then close."""
        self._will = None
        self._leave(b"")

    def abort(self) -> None:
        self._batches.clear()
        self._transport.abort()

    def _keep(self, rest: bytes) -> None:
        """The beginning of a packet, or of more than CONNECT."""
        there_is_room = self._door.room.change(len(self._rest), len(rest))
        self._rest = rest
        if not there_is_room:
            self.fail(Reason.QUOTA_EXCEEDED, "too many unfinished packets at a time")

    def _leave_session(self) -> None:
        """It lasts until its client comes back or its expiry has passed. One that is let in later has none to leave."""
        if not self.serving:
            return
        sessions = self._door.sessions
        sessions.left(self.client_id, self._door.clock.monotonic() + self._expiry_s)
        if not self.lasting:
            with suppress(
                Refused
            ):  # it has ended all the same: its client finds nothing of it when it comes back
                sessions.clear(self.client_id, waits=False)

    def _leave(self, farewell: bytes) -> None:
        self._ending = True
        self._farewell = farewell
        self._transport.pause_reading()
        if not self._batches:
            self._part()

    def _part(self) -> None:
        if self._farewell and not self._transport.is_closing():
            self._transport.write(self._farewell)
        self._transport.close()

    def _close(self) -> None:
        self._ending = True
        self._transport.close()

    def _peer(self) -> str:
        peer = self._transport.get_extra_info("peername")
        return str(peer[0]) if peer else "unknown"

    # CONNECT

    def _begin(self, data: bytes) -> None:
        """The first packet must be CONNECT; what follows it waits until the client is let in."""
        try:
            packets, used = mqtt.split(data, self._door.config.packet_bytes_max)
            if not packets:
                if data and data[0] >> 4 != Packet.CONNECT:
                    raise Malformed("the first packet is not CONNECT", Reason.PROTOCOL_ERROR)
                self._keep(data[used:])
                return
            first, start, end = packets[0]
            if first >> 4 != Packet.CONNECT:
                raise Malformed("the first packet is not CONNECT", Reason.PROTOCOL_ERROR)
            connect = mqtt.connect(data, first, start, end)
        except Malformed as error:
            self._door.emit.device_failed(self._peer(), str(error))
            if error.reason is Reason.UNSUPPORTED_VERSION:
                self._transport.write(mqtt.encode_connack(mqtt.V311, False, error.reason, {}))
            self._close()
            return
        self._keep(data[end:])
        self._version = connect.version
        self._transport.pause_reading()
        self._admission = asyncio.create_task(self._admit(connect))

    async def _admit(self, connect: Connect) -> None:
        door, version = self._door, connect.version
        properties: mqtt.Properties = {}
        client_id = connect.client_id
        user = ANONYMOUS if connect.user is None else connect.user
        if not client_id and (connect.clean or version == V5):
            client_id = f"auto-{secrets.token_hex(8)}"
            properties[Property.ASSIGNED_CLIENT_ID] = client_id
        try:
            rights = await self._rights_of(connect, client_id, user)
            await self._take_session(connect, client_id, user)
        except Malformed as error:
            self._refuse(connect, client_id, error.reason, str(error))
            return
        except Refused as refused:
            self._refuse(connect, client_id, Reason.SERVER_UNAVAILABLE, str(refused))
            return
        present = door.sessions.present(client_id, door.subscribers.has_session(client_id))
        self._disowned = door.sessions.disowned(client_id, present)
        if version == V5:
            properties |= door.offered(int(self._expiry_s))
        if self._ending:
            return
        self._will = connect.will
        self._rights = rights
        self._transport.write(
            mqtt.encode_connack(version, present and not connect.clean, Reason.SUCCESS, properties)
        )
        given_up = partial(self.fail, Reason.SERVER_UNAVAILABLE)
        self._subscriber = Subscriber(
            door, client_id, version, rights, self.lasting, self._write_out, self._writable, given_up
        )
        if self.lasting and door.subscribers.has_session(client_id):
            await self._subscriber.attach()
        self._admission = None
        self._resume_reading()
        if self._rest:
            self.data_received(b"")

    async def _rights_of(self, connect: Connect, client_id: str, user: str) -> Rights:
        """Raises Malformed for a client that is not let in."""
        door = self._door
        if Property.AUTHENTICATION_METHOD in connect.properties:
            raise Malformed("enhanced authentication", Reason.BAD_AUTHENTICATION_METHOD)
        if not client_id or len(client_id.encode()) > CLIENT_ID_BYTES_MAX:
            raise Malformed("no client id, or one too long", Reason.CLIENT_ID_NOT_VALID)
        try:
            rights = await door.access.rights(client_id, connect.user, connect.password, self._peer())
        except Busy:
            raise Malformed("too many passwords to look at", Reason.SERVER_UNAVAILABLE) from None
        if rights is None and connect.user is None:
            raise Malformed("no user name", Reason.NOT_AUTHORIZED)
        if rights is None:
            raise Malformed("wrong user name or password", Reason.BAD_CREDENTIALS)
        try:
            allowed = connect.will is None or rights.channel(connect.will.topic) is not None
        except Malformed as error:
            raise Malformed(f"its will: {error}", Reason.TOPIC_NAME_INVALID) from error
        if not allowed:
            raise Malformed("may not publish where its will goes", Reason.NOT_AUTHORIZED)
        if door.sessions.is_another_s(client_id, user, door.clock.monotonic()):
            raise Malformed("another user's client id", Reason.CLIENT_ID_NOT_VALID)
        return rights

    def _refuse(self, connect: Connect, client_id: str, reason: Reason, why: str) -> None:
        """Shown at the address: a client may claim any id. 3.1.1 has no code for a will's topic."""
        self._door.emit.device_failed(self._peer(), f"{client_id!r} not let in: {why}")
        if connect.version == V5 or reason is not Reason.TOPIC_NAME_INVALID:
            self._transport.write(mqtt.encode_connack(connect.version, False, reason, {}))
        self._close()

    async def _take_session(self, connect: Connect, client_id: str, user: str) -> None:
        """What an older connection has under way is stored, or not, before CONNACK: until then nobody knows what a
        packet id means. A clean session's marks are gone from the disk by then. Raises Refused."""
        door = self._door
        sessions = door.sessions
        before = sessions.connected.pop(client_id, None)
        if before is not None:
            before.take_over()
        sessions.connected[client_id] = self
        self.client_id, self.user = client_id, user
        most = door.config.session_expiry
        if connect.version == V5:
            self._expiry_s = min(connect.properties.get(Property.SESSION_EXPIRY, 0), most)
        else:
            self._expiry_s = 0.0 if connect.clean else most
        self.keep_alive_s = connect.keep_alive * 1.5 or door.config.silence_max
        await sessions.settled(client_id)
        if connect.clean or sessions.ended(client_id, door.clock.monotonic()):
            await sessions.clear(client_id)
        # Nor may it find those of a connection that has just gone.
        if not sessions.has_subscriptions(client_id):
            await door.subscribers.forget(client_id)
        self._unfinished = sessions.resume(client_id, user)

    # Packets of a client that was let in

    def _take(self, data: bytes, packets: Sequence[tuple[int, int, int]]) -> None:
        batch = Batch()
        now_ms = self._door.clock.wall_ms()
        rights, client_id = cast(Rights, self._rights), self.client_id
        wanted = self._door.subscribers.wanted
        new = tuple.__new__  # half the time of calling Record, and this is the hot loop
        index = 0
        try:
            while index < len(packets):
                topics, payloads, acks, after = mqtt.plain(data, packets, index, self._version)
                channels = None if wanted or not topics else rights.channels(topics)
                if channels is not None:
                    batch.records += [
                        new(Record, (channel, client_id, payload, now_ms, "", ()))
                        for channel, payload in zip(channels, payloads, strict=True)
                    ]
                    batch.acks += acks
                    batch.promised += len(acks) // mqtt.ACK_BYTES
                    index = after
                    after += 1
                for first, start, end in packets[index : max(after, index + 1)]:
                    batch = self._take_one(data, first, start, end, batch, now_ms)
                    if self._ending:
                        return
                    index += 1
        finally:
            # What came before a malformed packet is stored: its bytes were right.
            self._store(batch)
            self._answer_pings()

    def _take_one(self, data: bytes, first: int, start: int, end: int, batch: Batch, now_ms: int) -> Batch:
        """Returns the batch that the next packet belongs to."""
        if first & 0xF0 != 0x30:
            return self._take_other(data, first, start, end, batch)
        message = mqtt.publish(data, first, start, end, self._version)
        topic, payload, qos, retain, dup, number, properties = message
        channel = cast(Rights, self._rights).channel(topic)
        if properties and Property.TOPIC_ALIAS in properties:
            raise Malformed("a topic alias, and none were offered", Reason.TOPIC_ALIAS_INVALID)
        if channel is None:
            return self._forbid(message, batch)
        if qos == 2:
            if number in self._unfinished and (dup or number not in self._disowned):
                self._disowned.discard(number)
                batch.acks += mqtt.encode_ack(Packet.PUBREC, number)
                return batch
            if len(self._unfinished) - len(self._disowned) >= self._door.config.qos2_in_flight_max:
                raise Malformed(
                    f"more than {self._door.config.qos2_in_flight_max} unfinished QoS 2 messages",
                    Reason.RECEIVE_MAXIMUM_EXCEEDED,
                )
            key = self._door.sessions.mark_key(self.client_id, number)
            if key in batch.forget:  # released and used again in one read: two steps, so two transactions
                self._store(batch)
                batch = Batch()
                if self._ending:
                    return batch
            self._unfinished.add(number)
            self._disowned.discard(number)
            batch.remember.append(self._door.sessions.mark(self.client_id, number, self._expiry_s))
            batch.acks += mqtt.encode_ack(Packet.PUBREC, number)
            batch.promised += 1
        elif qos:
            batch.acks += mqtt.encode_ack(Packet.PUBACK, number)
            batch.promised += 1
        headers = [*headers_of(properties)]
        if dup and qos == 1:
            headers.append(DUP)
        if retain:
            headers.append(RETAINED)
        content_type = str(properties.get(Property.CONTENT_TYPE, ""))
        batch.records.append(Record(channel, self.client_id, payload, now_ms, content_type, tuple(headers)))
        if retain or self._door.subscribers.wanted:
            batch.messages.append(Message(channel, payload, qos, retain))
        return batch

    def _forbid(self, message: Publish, batch: Batch) -> Batch:
        """MQTT 5 has a word for it; an older client would take any answer for a yes, so it gets none."""
        name = message.topic.decode(errors="replace")
        self._door.emit.device_failed(self.client_id, f"may not publish to {name[:100]}")
        if self._version != V5:
            self._store(batch)
            self.fail(Reason.NOT_AUTHORIZED, f"may not publish to {name[:100]}")
            return Batch()
        if message.qos:
            kind = Packet.PUBACK if message.qos == 1 else Packet.PUBREC
            batch.acks += mqtt.encode_ack(kind, message.packet_id, Reason.NOT_AUTHORIZED)
        return batch

    def _take_other(self, data: bytes, first: int, start: int, end: int, batch: Batch) -> Batch:
        kind, subscriber = first >> 4, cast(Subscriber, self._subscriber)
        if kind == Packet.PUBREL:
            number = mqtt.packet_id(data, first, start, end, self._version)
            known = number in self._unfinished
            if known:
                self._unfinished.discard(number)
                self._disowned.discard(number)
                batch.forget.append(self._door.sessions.mark_key(self.client_id, number))
            unknown = Reason.PACKET_ID_NOT_FOUND if self._version == V5 else None
            batch.acks += mqtt.encode_ack(Packet.PUBCOMP, number, None if known else unknown)
        elif kind == Packet.PINGREQ:
            if end != start:
                raise Malformed("a PINGREQ with a body")
            self._pings += 1
        elif kind == Packet.DISCONNECT:
            reason, properties = mqtt.disconnect(data, first, start, end, self._version)
            self._change_expiry(properties.get(Property.SESSION_EXPIRY, self._expiry_s))
            if reason != DISCONNECT_WITH_WILL:
                self._will = None
            self._store(batch)
            self._leave(b"")
            return Batch()
        elif kind == Packet.SUBSCRIBE:
            subscriber.subscribe(mqtt.subscribe(data, first, start, end, self._version))
        elif kind == Packet.UNSUBSCRIBE:
            subscriber.unsubscribe(mqtt.unsubscribe(data, first, start, end, self._version))
        elif kind in (Packet.PUBACK, Packet.PUBREC, Packet.PUBCOMP):
            number = mqtt.packet_id(data, first, start, end, self._version)
            if kind == Packet.PUBACK:
                subscriber.acknowledged(number)
        else:
            raise Malformed(f"a {Packet(kind).name if kind else 'packet of type 0'}", Reason.PROTOCOL_ERROR)
        return batch

    def _change_expiry(self, asked_s: float) -> None:
        if asked_s and not self.lasting:
            raise Malformed("a DISCONNECT that prolongs a session which ends with it", Reason.PROTOCOL_ERROR)
        self._expiry_s = min(asked_s, self._door.config.session_expiry)

    def _answer_pings(self) -> None:
        """Those of one turn in one write."""
        pings, self._pings = self._pings, 0
        if pings and not self._transport.is_closing():
            self._transport.write(PINGRESP * pings)

    # Storing and acknowledging

    def _store(self, batch: Batch) -> None:
        """Nothing once the connection ends: what follows a refused message in one read must not overtake it."""
        if self._ending or not (batch.acks or batch.records):
            return
        batch.bytes = sum(len(record[2]) for record in batch.records) + len(batch.acks)
        batch.bytes += RECORD_OVERHEAD_BYTES * len(batch.records)
        crowded = self._waiting_bytes + batch.bytes > self._door.config.in_flight_bytes_max // 2
        try:
            stored = self._door.emit(
                batch.records,
                remember=batch.remember,
                forget=batch.forget,
                waits=bool(batch.acks) or crowded,
            )
        except Refused as refused:
            self._refused(batch, refused)
            return
        self._batches.append(batch)
        self._waiting_bytes += batch.bytes
        if self._waiting_bytes > self._door.config.in_flight_bytes_max:
            self._transport.pause_reading()
        storing = asyncio.ensure_future(stored)
        storing.add_done_callback(partial(self._stored, batch))
        if batch.remember or batch.forget:
            self._door.sessions.changing(self.client_id, (*batch.remember, *batch.forget), storing)

    def _refused(self, batch: Batch, refused: Refused) -> None:
        """Nothing of the batch is stored. MQTT 5 gets 0x97 for each message; for 3.1.1, and where there are answers to
        what was stored before, silence and a closed connection."""
        self._not_stored(batch)
        if not batch.acks:
            self._door.emit.device_failed(self.client_id, str(refused))
            return
        answers, refusals = refused_acks(batch.acks)
        if self._version != V5 or refusals > batch.promised:
            self.fail(Reason.QUOTA_EXCEEDED, str(refused))
            return
        self._door.emit.device_failed(self.client_id, str(refused))
        refusal = Batch()
        refusal.acks, refusal.done = answers, True
        self._batches.append(refusal)
        self._acknowledge()

    def _not_stored(self, batch: Batch) -> None:
        """The client will send it again: packet ids stand as they do on the disk."""
        self._unfinished.difference_update(map(packet_id, batch.remember))
        self._unfinished.update(map(packet_id, batch.forget))

    def _stored(self, batch: Batch, stored: "asyncio.Future[None]") -> None:
        if stored.cancelled() or stored.exception() is not None:
            if not stored.cancelled():
                self._not_stored(batch)
            self._ending = True
            self._transport.abort()
            return
        batch.done = True
        self._acknowledge()
        for message in batch.messages:
            self._door.subscribers.tell(message)

    def _acknowledge(self) -> None:
        """In the order in which the packets came."""
        batches = self._batches
        while batches and batches[0].done:
            batch = batches.popleft()
            self._waiting_bytes -= batch.bytes
            unpromised = len(batch.records) - batch.promised
            if not self._transport.is_closing():
                self._transport.write(bytes(batch.acks))
                self._door.emit.accepted(len(batch.records))
            elif unpromised > 0:
                self._door.emit.accepted(unpromised)
        if self._ending:
            if not batches:
                self._part()
        elif self._waiting_bytes * 2 <= self._door.config.in_flight_bytes_max:
            self._resume_reading()

    def _resume_reading(self) -> None:
        waits = self._ending or not self._writable.is_set() or self._waits_for_turn
        if not (waits or self._transport.is_closing()):
            self._transport.resume_reading()

    def _publish_will(self) -> None:
        will, self._will = self._will, None
        if will is None or self._rights is None:
            return
        channel = self._rights.channel(will.topic)
        if channel is None:
            return
        record = will_record(will, channel, self.client_id, self._door.clock.wall_ms())
        try:
            stored = self._door.emit([record], waits=False)
        except Refused as refused:
            self._door.emit.device_failed(self.client_id, f"its will could not be stored: {refused}")
            return
        message = Message(channel, will.payload, will.qos, will.retain)
        asyncio.ensure_future(stored).add_done_callback(partial(self._will_stored, message))

    def _will_stored(self, message: Message, stored: "asyncio.Future[None]") -> None:
        if not stored.cancelled() and stored.exception() is None:
            self._door.emit.accepted(1)
            self._door.subscribers.tell(message)

    def _write_out(self, data: bytes) -> None:
        if self._transport.is_closing():
            return
        self._transport.write(data)
        unread = self._transport.get_write_buffer_size()
        if unread > UNREAD_BYTES_MAX + self._door.config.packet_bytes_max:
            why = f"cut off: it does not read, {unread} bytes of what it subscribed to wait for it"
            _log.warning("%s: subscriber %s: %s", self._door.name, self.client_id, why)
            self._door.emit.device_failed(self.client_id, why)
            self.abort()
