"""What an MQTT message becomes: an event on its way into the log, or a dead letter with its reason."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence

import msgspec

from gateway import limits
from gateway.core.declared import Declared, valid
from gateway.core.event import Draft, Event, Meta, Partition, traceparent
from gateway.core.payload import kept_type
from gateway.errors import BadPayload, BadTopic, NotDeclared, Refused

#: Makes JSON of one content type; whatever it raises for bytes that are not of it becomes a dead letter's reason.
Decode = Callable[[bytes], bytes]
#: User properties that are fields of an event, not headers of it.
_FIELDS = ("id", "traceparent")


class Arrived(msgspec.Struct, frozen=True, gc=False):
    """A message as the broker handed it over; ``topic`` is already what ``[[mqtt.map]]`` makes of it."""

    topic: str
    payload: bytes
    packet_id: int = 0
    retained: bool = False
    content_type: str = ""
    properties: Sequence[tuple[str, str]] = ()
    response_topic: str = ""
    correlation: bytes = b""


class Accepted(msgspec.Struct, frozen=True, gc=False):
    """To be appended to ``partition``; passing by where the topic is not kept."""

    partition: Partition
    draft: Draft
    ephemeral: bool = False


class Rejected(msgspec.Struct, frozen=True, gc=False):
    """To be buried in ``partition``, or beside all logs where no topic claims it (``partition`` is empty)."""

    reason: str
    error: str
    partition: Partition = ""


class Ingest:
    """Judges messages. Pure: the id of a new event and the time come with each."""

    def __init__(self, declared: Declared, decoders: Mapping[str, Decode], session: str) -> None:
        self._declared = declared
        self._decoders = decoders
        self._session = session

    def judge(self, arrived: Arrived, id: str, ts: int) -> Accepted | Rejected:
        """Decide what becomes of one message. ``id`` is used unless the device gave one; ``ts`` in milliseconds."""
        try:
            found = self._declared.find(arrived.topic)
        except NotDeclared as e:
            return Rejected("undeclared", str(e))
        except BadTopic as e:
            return Rejected("bad_topic", str(e))
        topic = found.topic
        if topic.mqtt != "in":
            return Rejected("not_mqtt", f"topic {topic.pattern!r} does not take messages over MQTT", found.partition)
        try:
            data, kind, decode = arrived.payload, "", None
            if arrived.content_type:
                kind = _kind(arrived.content_type)
                if topic.payload == "json":
                    decode = self._decoders.get(kind)
                    if decode is not None:
                        data = _decoded(decode, data, kind)
                    elif kind != "application/json" and not kind.endswith("+json"):  # RFC 6839, 3.1
                        raise BadPayload(f"no decoder makes JSON of {kind!r}", "send JSON, or declare a decoder")
            data = valid(topic, data)
            meta = Meta(
                ts=ts,
                type=kept_type(topic.payload, kind, data),
                was=kind if decode else "",
                producer=f"device:{found.bound['device']}" if "device" in found.bound else "mqtt",
                via="mqtt",
                reply_to=arrived.response_topic,
                correlation=arrived.correlation,
                delivery=(self._session, arrived.packet_id) if arrived.packet_id else None,
            )
            given = ""
            if arrived.properties:
                given, meta = _properties(arrived.properties, meta)
            id = given or found.identity(data) or id
            event = Event(arrived.topic, data, id, meta)
        except Refused as e:
            return Rejected("too_large" if e.code == "too_large" else "schema", str(e), found.partition)
        draft = Draft(event, found.key, retain=topic.retain, replayed=arrived.retained and topic.retain)
        return Accepted(found.partition, draft, topic.ephemeral)


def _kind(content_type: str) -> str:
    kind = content_type.partition(";")[0].strip().lower()
    if len(kind) > limits.ID_BYTES or not kind.isprintable():
        raise BadPayload("the content type is too long or not printable", f"use at most {limits.ID_BYTES} characters")
    return kind


def _decoded(decode: Decode, payload: bytes, kind: str) -> bytes:
    try:
        data = decode(payload)
    except Exception as e:  # noqa: BLE001  An application's code: one message it cannot take must not stop the others.
        raise BadPayload(f"not {kind}: {type(e).__name__}: {e}", "send what the content type says") from None
    if not isinstance(data, bytes):
        raise BadPayload(f"the decoder of {kind} made {type(data).__name__} of it", "return JSON as bytes from it")
    return data


def _properties(properties: Sequence[tuple[str, str]], meta: Meta) -> tuple[str, Meta]:
    """Return the event id among the user properties, if there is one, and ``meta`` with the rest of them."""
    fields = {name: value for name, value in properties if name in _FIELDS}
    headers = {name: value for name, value in properties if name not in _FIELDS}
    id = fields.get("id", "")
    if len(id.encode()) > limits.ID_BYTES or not id.isprintable():
        raise BadPayload("the user property id is too long or not printable", f"use at most {limits.ID_BYTES} bytes")
    if len(headers) > limits.HEADERS or _size(headers) > limits.HEADER_BYTES:
        raise BadPayload(
            f"{len(headers)} user properties", f"send at most {limits.HEADERS}, {limits.HEADER_BYTES} bytes in all"
        )
    return id, msgspec.structs.replace(meta, headers=headers, traceparent=traceparent(fields.get("traceparent", "")))


def _size(headers: Mapping[str, str]) -> int:
    return sum(len(name.encode()) + len(value.encode()) for name, value in headers.items())


class Deliveries:
    """Which recent MQTT deliveries became events, so that a redelivery does not become a second one.

    The broker marks a redelivery (DUP) and keeps its packet id while the session lives. Bounded to the newest
    ``most``: above what the broker may have unacknowledged, far below the 65,535 after which it must use a packet id
    again.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._marks: dict[tuple[int, int], None] = {}

    def remember(self, mark: tuple[int, int]) -> None:
        """Keep a delivery, see :func:`mark`; the order of the calls is that of the deliveries."""
        self._marks.pop(mark, None)
        self._marks[mark] = None
        if len(self._marks) > self._most:
            del self._marks[next(iter(self._marks))]

    def __contains__(self, mark: tuple[int, int]) -> bool:
        return mark in self._marks

    def forget(self) -> None:
        """The broker began a new session: its packet ids mean other messages now."""
        self._marks.clear()


def mark(packet_id: int, topic: str, data: bytes) -> tuple[int, int]:
    """Return what a delivery is known by again: its packet id, and a sum of the event as the log holds it.

    The sum tells apart what used one packet id in turn. It is no identity: two equal readings are two events.
    """
    return packet_id, zlib.crc32(data, zlib.crc32(topic.encode()))


class Sample:
    """Keeps a flood of stray messages from filling the dead letters: so many a second and sender, the rest counted."""

    def __init__(self) -> None:
        self._second = 0
        self._kept: dict[str, int] = {}
        self.left_out = 0

    def keep(self, topic: str, now: float) -> bool:
        """Say whether this stray is kept. The first two levels stand for its sender, whom a broker does not name."""
        if int(now) != self._second:
            self._second = int(now)
            self._kept.clear()
        sender = "/".join(topic.split("/", 2)[:2])
        count = self._kept.get(sender, 0)
        if count >= limits.STRAYS_PER_SECOND or (not count and len(self._kept) >= limits.STRAY_SENDERS):
            self.left_out += 1
            return False
        self._kept[sender] = count + 1
        return True
