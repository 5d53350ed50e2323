"""What left by MQTT: an event as a message, and the memory by which one that comes back is known."""

from __future__ import annotations

import zlib

import msgspec

from gateway import limits
from gateway.adapters.mqtt import Message
from gateway.core.event import ASKED, Event
from gateway.core.topic import is_filter

#: The user property by which a message of ours is known again: the id of its event.
GATEWAY_ID = "gw-id"
#: User properties that we set ourselves; a header of that name does not leave.
_OURS = (GATEWAY_ID, "id", "traceparent")


class Outgoing(msgspec.Struct, frozen=True):
    """The properties of the message that one event becomes; topic and payload are the event's own."""

    content_type: str
    properties: list[tuple[str, str]]
    response_topic: str | None = None
    correlation: bytes | None = None


def outgoing(event: Event) -> Outgoing:
    """Return how ``event`` leaves: its headers, ``gw-id`` and ``traceparent`` as user properties (MQTT 5, 3.3.2.3.7).

    A topic for answers and a correlation go along; what waits for an answer at a door of ours is no topic.
    """
    meta = event.meta
    properties = [(name, value) for name, value in meta.headers.items() if name.lower() not in _OURS]
    properties.append((GATEWAY_ID, event.id))
    if meta.traceparent:
        properties.append(("traceparent", meta.traceparent))
    kind = meta.type or "application/json"
    if meta.reply_to == ASKED:
        return Outgoing(kind, properties)
    there = meta.reply_to if meta.reply_to and not is_filter(meta.reply_to) else None
    return Outgoing(kind, properties, there, meta.correlation or None)


class Sent:
    """Which events left by MQTT, so that one that comes back is no new event. The oldest are forgotten."""

    def __init__(self) -> None:
        self._sums: dict[str, int] = {}

    def remember(self, event: Event) -> None:
        self._sums.pop(event.id, None)
        self._sums[event.id] = zlib.crc32(event.data)
        if len(self._sums) > limits.MQTT_SENT_KNOWN:
            del self._sums[next(iter(self._sums))]

    def echo(self, message: Message) -> bool:
        """Say whether ``message`` is one of ours. A device that answers with our properties says something else."""
        for name, value in message.user_properties:
            if name == GATEWAY_ID and self._sums.get(value) == zlib.crc32(message.payload):
                return True
        return False
