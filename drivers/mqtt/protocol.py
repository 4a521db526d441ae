"""MQTT 3.1.1 and 5.0 packets: bytes in, values out, and back. Section numbers are those of OASIS MQTT 5.0.

Nothing here knows of sockets or clocks. What can't be a packet raises Malformed with MQTT 5's reason code.
"""

from collections.abc import Sequence
from enum import IntEnum
from typing import Any, NamedTuple


class Packet(IntEnum):
    """Types, section 2.1.2."""

    CONNECT = 1
    CONNACK = 2
    PUBLISH = 3
    PUBACK = 4
    PUBREC = 5
    PUBREL = 6
    PUBCOMP = 7
    SUBSCRIBE = 8
    SUBACK = 9
    UNSUBSCRIBE = 10
    UNSUBACK = 11
    PINGREQ = 12
    PINGRESP = 13
    DISCONNECT = 14
    AUTH = 15


class Reason(IntEnum):
    """Reason codes, section 2.4: those that we send."""

    SUCCESS = 0x00
    MALFORMED = 0x81
    PROTOCOL_ERROR = 0x82
    UNSUPPORTED_VERSION = 0x84
    CLIENT_ID_NOT_VALID = 0x85
    BAD_CREDENTIALS = 0x86
    NOT_AUTHORIZED = 0x87
    SERVER_UNAVAILABLE = 0x88
    BAD_AUTHENTICATION_METHOD = 0x8C
    KEEP_ALIVE_TIMEOUT = 0x8D
    TAKEN_OVER = 0x8E
    TOPIC_NAME_INVALID = 0x90
    PACKET_ID_NOT_FOUND = 0x92
    RECEIVE_MAXIMUM_EXCEEDED = 0x93
    TOPIC_ALIAS_INVALID = 0x94
    PACKET_TOO_LARGE = 0x95
    QUOTA_EXCEEDED = 0x97


class Property(IntEnum):
    """Section 2.2.2.2: those that we read or send."""

    CONTENT_TYPE = 0x03
    SESSION_EXPIRY = 0x11
    ASSIGNED_CLIENT_ID = 0x12
    AUTHENTICATION_METHOD = 0x15
    RECEIVE_MAXIMUM = 0x21
    TOPIC_ALIAS = 0x23
    USER_PROPERTY = 0x26
    MAXIMUM_PACKET_SIZE = 0x27
    SUBSCRIPTION_IDS_AVAILABLE = 0x29
    SHARED_SUBSCRIPTIONS_AVAILABLE = 0x2A


_BYTES = {
    **dict.fromkeys((0x01, 0x17, 0x19, 0x24, 0x25, 0x28, 0x29, 0x2A), 1),
    **dict.fromkeys((0x13, 0x21, 0x22, 0x23), 2),
    **dict.fromkeys((0x02, 0x11, 0x18, 0x27), 4),
}
_STRINGS = frozenset((0x03, 0x08, 0x09, 0x12, 0x15, 0x16, 0x1A, 0x1C, 0x1F))
_SUBSCRIPTION_ID = 0x0B
_LENGTH_BYTES_MAX = 4
ACK_BYTES = 4
USER_PROPERTIES_MAX = 64
SPLIT_MAX = 2000
"""Packets that are split off at a time: of the smallest, one read brings 131,072."""

V31, V311, V5 = 3, 4, 5
_NAMES = {b"MQTT": (V311, V5), b"MQIsdp": (V31,)}
_CONNACK_311 = {
    Reason.UNSUPPORTED_VERSION: 1,
    Reason.CLIENT_ID_NOT_VALID: 2,
    Reason.SERVER_UNAVAILABLE: 3,
    Reason.BAD_CREDENTIALS: 4,
    Reason.NOT_AUTHORIZED: 5,
}

Properties = dict[int, Any]
NO_PROPERTIES: Properties = {}


class Malformed(Exception):
    def __init__(self, message: str, reason: Reason = Reason.MALFORMED) -> None:
        super().__init__(message)
        self.reason = reason


class Will(NamedTuple):
    topic: bytes
    payload: bytes
    qos: int
    retain: bool
    properties: Properties


class Connect(NamedTuple):
    """`keep_alive` in seconds, 0: none. `clean`: Clean Session or Clean Start."""

    version: int
    client_id: str
    clean: bool
    keep_alive: int
    user: str | None
    password: bytes | None
    will: Will | None
    properties: Properties


class Publish(NamedTuple):
    """`packet_id` is 0 for QoS 0."""

    topic: bytes
    payload: bytes
    qos: int
    retain: bool
    dup: bool
    packet_id: int
    properties: Properties


class Subscribe(NamedTuple):
    """`filters` are (topic filter, QoS)."""

    packet_id: int
    filters: Sequence[tuple[str, int]]


class Unsubscribe(NamedTuple):
    packet_id: int
    filters: Sequence[str]


def split(data: bytes, packet_max: int) -> tuple[list[tuple[int, int, int]], int]:
    """Complete packets as (first byte, start, end of what follows the length), and where the rest begins. There may be
    more behind SPLIT_MAX of them, or it is malformed: then it is said when nothing is before it."""
    packets: list[tuple[int, int, int]] = []
    begin, size = 0, len(data)
    while size - begin >= 2 and len(packets) < SPLIT_MAX:
        length = data[begin + 1]
        start = begin + 2
        if length & 0x80:
            length &= 0x7F
            shift = 7
            while True:
                if start == size:
                    return packets, begin
                digit = data[start]
                start += 1
                length |= (digit & 0x7F) << shift
                if not digit & 0x80:
                    break
                shift += 7
                if shift > 7 * (_LENGTH_BYTES_MAX - 1):
                    if packets:
                        return packets, begin
                    raise Malformed("a remaining length of more than four bytes")
        if length > packet_max:
            if packets:
                return packets, begin
            raise Malformed(
                f"a packet of {length} bytes, at most {packet_max} are taken", Reason.PACKET_TOO_LARGE
            )
        end = start + length
        if end > size:
            break
        packets.append((data[begin], start, end))
        begin = end
    return packets, begin


def publish(data: bytes, first: int, start: int, end: int, version: int) -> Publish:
    """Section 3.3. `topic` is not checked but for its length."""
    after_topic = start + 2
    if after_topic > end:
        raise Malformed("a PUBLISH without a topic")
    at = after_topic + (data[start] << 8 | data[start + 1])
    qos = first >> 1 & 3
    if at + (2 if qos else 0) > end:
        raise Malformed("a PUBLISH shorter than its topic")
    topic = data[after_topic:at]
    packet_id = 0
    if qos:
        packet_id = data[at] << 8 | data[at + 1]
        at += 2
        if qos == 3 or packet_id == 0:
            raise Malformed("a PUBLISH with QoS 3" if qos == 3 else "a packet id of 0")
    elif first & 8:
        raise Malformed("DUP with QoS 0")
    properties = NO_PROPERTIES
    if version == V5:
        properties, at = _properties(data, at, end)
    return Publish(topic, data[at:end], qos, bool(first & 1), bool(first & 8), packet_id, properties)


def plain(
    data: bytes, packets: Sequence[tuple[int, int, int]], index: int, version: int
) -> tuple[list[bytes], list[bytes], bytearray, int]:
    """The PUBLISH packets from packets[index] on that have QoS 0 or 1 and nothing more to them: (topics, payloads, their
    PUBACKs, index of the first packet that is another, or malformed). A third of the time of `publish` for each."""
    topics: list[bytes] = []
    payloads: list[bytes] = []
    acks = bytearray()
    while index < len(packets):
        first, start, end = packets[index]
        begin = start + 2
        if first not in (0x30, 0x32) or begin > end:
            break
        stop = at = begin + (data[start] << 8 | data[start + 1])
        if first == 0x32:
            at += 2
            if at > end or not (data[stop] or data[stop + 1]):
                break
        if version == V5:
            if at >= end or data[at]:
                break
            at += 1
        if at > end:
            break
        if first == 0x32:
            acks += b"\x40\x02"
            acks += data[stop : stop + 2]
        topics.append(data[begin:stop])
        payloads.append(data[at:end])
        index += 1
    return topics, payloads, acks, index


def connect(data: bytes, first: int, start: int, end: int) -> Connect:
    """Section 3.1."""
    if first & 0x0F:
        raise Malformed("reserved bits of a CONNECT are set")
    name, at = _binary(data, start, end)
    if at + 4 > end:
        raise Malformed("a CONNECT that ends early")
    version, flags = data[at], data[at + 1]
    if name not in _NAMES:
        raise Malformed(f"the protocol is called MQTT, not {name[:20]!r}")
    if version not in _NAMES[name]:
        raise Malformed(f"MQTT version {version}; 3.1, 3.1.1 and 5.0 are spoken", Reason.UNSUPPORTED_VERSION)
    if flags & 1 or (not flags & 4 and flags & 0x38) or flags & 0x18 == 0x18:
        raise Malformed("flags of a CONNECT that exclude each other")
    if version != V5 and flags & 0x40 and not flags & 0x80:
        raise Malformed("a password without a user name")
    keep_alive = data[at + 2] << 8 | data[at + 3]
    at += 4
    properties = NO_PROPERTIES
    if version == V5:
        properties, at = _properties(data, at, end)
    client_id, at = _text(data, at, end, "client id")
    will = None
    if flags & 4:
        about = NO_PROPERTIES
        if version == V5:
            about, at = _properties(data, at, end)
        topic, at = _binary(data, at, end)
        payload, at = _binary(data, at, end)
        will = Will(topic, payload, flags >> 3 & 3, bool(flags & 0x20), about)
    user = password = None
    if flags & 0x80:
        user, at = _text(data, at, end, "user name")
    if flags & 0x40:
        password, at = _binary(data, at, end)
    if at != end:
        raise Malformed("a CONNECT longer than what it holds")
    return Connect(version, client_id, bool(flags & 2), keep_alive, user, password, will, properties)


def packet_id(data: bytes, first: int, start: int, end: int, version: int) -> int:
    """Of a PUBACK, PUBREC, PUBREL or PUBCOMP; MQTT 5 adds a reason and properties, which are passed over."""
    wanted = 2 if first >> 4 == Packet.PUBREL else 0
    if first & 0x0F != wanted or end - start < 2 or (version != V5 and end - start != 2):
        raise Malformed(f"a {Packet(first >> 4).name} of the wrong form")
    found = data[start] << 8 | data[start + 1]
    if found == 0:
        raise Malformed("a packet id of 0")
    return found


def subscribe(data: bytes, first: int, start: int, end: int, version: int) -> Subscribe:
    """Section 3.8."""
    number, at = _head(data, first, start, end, version)
    filters = []
    while at < end:
        text, at = _text(data, at, end, "topic filter")
        if at >= end or data[at] & 3 == 3 or (version != V5 and data[at] > 2):
            raise Malformed("a subscription without a QoS of 0 to 2")
        filters.append((text, data[at] & 3))
        at += 1
    if not filters:
        raise Malformed("a SUBSCRIBE without a topic filter", Reason.PROTOCOL_ERROR)
    return Subscribe(number, filters)


def unsubscribe(data: bytes, first: int, start: int, end: int, version: int) -> Unsubscribe:
    """Section 3.10."""
    number, at = _head(data, first, start, end, version)
    filters = []
    while at < end:
        text, at = _text(data, at, end, "topic filter")
        filters.append(text)
    if not filters:
        raise Malformed("an UNSUBSCRIBE without a topic filter", Reason.PROTOCOL_ERROR)
    return Unsubscribe(number, filters)


def disconnect(data: bytes, first: int, start: int, end: int, version: int) -> tuple[int, Properties]:
    """(reason code, properties), section 3.14."""
    if first & 0x0F or (version != V5 and start != end):
        raise Malformed("a DISCONNECT of the wrong form")
    if start == end:
        return 0, NO_PROPERTIES
    if start + 1 == end:
        return data[start], NO_PROPERTIES
    properties, _ = _properties(data, start + 1, end)
    return data[start], properties


def encode_connack(version: int, session_present: bool, reason: Reason, properties: Properties) -> bytes:
    if version == V5:
        return packet(Packet.CONNACK << 4, bytes((session_present, reason)) + encode_properties(properties))
    return bytes((Packet.CONNACK << 4, 2, session_present, _CONNACK_311.get(reason, 3) if reason else 0))


def encode_ack(kind: Packet, number: int, reason: Reason | None = None) -> bytes:
    """PUBACK, PUBREC, PUBCOMP; a reason only to MQTT 5."""
    first = kind << 4 | (2 if kind is Packet.PUBREL else 0)
    if reason:
        return bytes((first, 3, number >> 8, number & 0xFF, reason))
    return bytes((first, 2, number >> 8, number & 0xFF))


def encode_suback(version: int, number: int, codes: bytes) -> bytes:
    return packet(Packet.SUBACK << 4, number.to_bytes(2, "big") + (b"\0" if version == V5 else b"") + codes)


def encode_disconnect(reason: Reason) -> bytes:
    return bytes((Packet.DISCONNECT << 4, 1, reason))


def packet(first: int, body: bytes) -> bytes:
    return bytes((first,)) + _variable(len(body)) + body


def text(value: str) -> bytes:
    encoded = value.encode()
    return len(encoded).to_bytes(2, "big") + encoded


def encode_properties(properties: Properties) -> bytes:
    encoded = b""
    for number, value in properties.items():
        encoded += bytes((number,))
        encoded += value.to_bytes(_BYTES[number], "big") if number in _BYTES else text(value)
    return _variable(len(encoded)) + encoded


def _variable(value: int) -> bytes:
    encoded = b""
    while True:
        value, low = divmod(value, 128)
        encoded += bytes((low | 0x80 if value else low,))
        if not value:
            return encoded


def _head(data: bytes, first: int, start: int, end: int, version: int) -> tuple[int, int]:
    if first & 0x0F != 2 or end - start < 2:
        raise Malformed(f"a {Packet(first >> 4).name} of the wrong form")
    number = data[start] << 8 | data[start + 1]
    if number == 0:
        raise Malformed("a packet id of 0")
    at = start + 2
    if version == V5:
        _, at = _properties(data, at, end)
    return number, at


def _binary(data: bytes, at: int, end: int) -> tuple[bytes, int]:
    begin = at + 2
    if begin > end:
        raise Malformed("a packet that ends early")
    stop = begin + (data[at] << 8 | data[at + 1])
    if stop > end:
        raise Malformed("a string longer than its packet")
    return data[begin:stop], stop


def _text(data: bytes, at: int, end: int, what: str) -> tuple[str, int]:
    found, at = _binary(data, at, end)
    return decode_text(found, what), at


def decode_text(found: bytes, what: str) -> str:
    """Section 1.5.4."""
    try:
        decoded = found.decode()
    except UnicodeDecodeError:
        raise Malformed(f"a {what} that is not UTF-8") from None
    if "\0" in decoded:
        raise Malformed(f"a {what} with U+0000")
    return decoded


def _integer(data: bytes, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= end or shift > 21:
            raise Malformed("a length that doesn't end")
        digit = data[at]
        value |= (digit & 0x7F) << shift
        at += 1
        if not digit & 0x80:
            if shift and not digit:
                raise Malformed("a length with more bytes than it needs")
            return value, at
        shift += 7


def _properties(data: bytes, at: int, end: int) -> tuple[Properties, int]:
    """Section 2.2.2. User properties are a list of (name, value); the others may come once."""
    length, at = _integer(data, at, end)
    stop = at + length
    if stop > end:
        raise Malformed("properties longer than their packet")
    if not length:
        return NO_PROPERTIES, at
    found: Properties = {}
    while at < stop:
        number = data[at]
        at += 1
        value: Any
        if number == Property.USER_PROPERTY:
            name, at = _text(data, at, stop, "user property")
            value, at = _text(data, at, stop, "user property")
            pairs = found.setdefault(number, [])
            if len(pairs) >= USER_PROPERTIES_MAX:
                raise Malformed(f"more than {USER_PROPERTIES_MAX} user properties", Reason.QUOTA_EXCEEDED)
            pairs.append((name, value))
            continue
        if number in _BYTES:
            value, at = int.from_bytes(data[at : at + _BYTES[number]], "big"), at + _BYTES[number]
        elif number in _STRINGS:
            value, at = (
                _binary(data, at, stop) if number in (0x09, 0x16) else _text(data, at, stop, "property")
            )
        elif number == _SUBSCRIPTION_ID:
            value, at = _integer(data, at, stop)
        else:
            raise Malformed(f"property {number:#04x}, which MQTT doesn't know")
        if number in found and number != _SUBSCRIPTION_ID:
            raise Malformed(f"property {number:#04x} twice", Reason.PROTOCOL_ERROR)
        found[number] = value
    if at != stop:
        raise Malformed("properties that end inside one")
    return found, at
