"""The one value that travels: an event, and where in the log it stands."""

from __future__ import annotations

import re
from typing import Final

import msgspec

#: What :attr:`Meta.reply_to` says where somebody waits at a door of ours for what a service answers. No device can say
#: it: a Response Topic has no wildcard (MQTT 5, 3.3.2.3.5).
ASKED: Final = "#gateway"

#: The name of one partition of one application's log, such as ``devices.3``. Its keys share the slot ``{devices.3}``.
Partition = str


#: Version 00: trace id, parent id and flags. What a later version adds comes after another dash.
_TRACEPARENT: Final = re.compile(
    r"(?!ff)([0-9a-f]{2})-((?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL
)


def traceparent(text: str) -> str:
    """Return ``text`` as a ``traceparent`` of version 00, empty where it is none.

    A trace that cannot be followed is no reason to refuse an event: an invalid one counts as absent, and of a later
    version what 00 knows is kept (W3C Trace Context, 3.2.2 and 3.2.4).
    """
    match = _TRACEPARENT.fullmatch(text)
    if match is None:
        return ""
    version, ids, flags, more = match.groups()
    if version == "00":
        return "" if more else text
    return f"00-{ids}-{int(flags, 16) & 1:02x}"  # of the flags 00 knows ``sampled`` alone


class Meta(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """What is known of an event beside its payload. Stored as one MessagePack map, absent fields left out."""

    #: Milliseconds since 1970, UTC, by the clock of the door it came through. For people: nothing is ordered by it.
    ts: int = 0
    #: MIME type of the payload as it is kept, where that is not JSON.
    type: str = ""
    #: MIME type it came in, where a decoder made JSON of it.
    was: str = ""
    #: The principal who published it, such as ``device:pump-7``.
    producer: str = ""
    #: The door it came through: ``mqtt``, ``ws``, ``http`` or ``service``.
    via: str = ""
    #: W3C Trace Context; every door lets in what :func:`traceparent` returns.
    traceparent: str = ""
    #: The id of the event that led to this one.
    cause: str = ""
    headers: dict[str, str] = {}
    reply_to: str = ""
    correlation: bytes = b""
    #: Which MQTT delivery it came by: ``[session, packet id]``. A redelivery finds its event id again with it.
    delivery: tuple[str, int] | None = None


class Event(msgspec.Struct, frozen=True, gc=False):
    """Something that happened, or was asked for, under one topic."""

    topic: str
    #: As declared for the topic; JSON payloads are valid, and hold no raw line break.
    data: bytes
    #: Who says the same thing twice sends the same id twice; watchers and services drop the second.
    id: str
    meta: Meta = Meta()


class Position(msgspec.Struct, frozen=True, order=True, gc=False):
    """A place in one partition's log. Offsets are gapless and never restart; an epoch names one history of them."""

    epoch: int
    offset: int

    def __str__(self) -> str:
        return f"{self.epoch}-{self.offset}"


class Record(msgspec.Struct, gc=False, weakref=False):
    """An event read back from the log. ``pub`` and ``packed`` keep its JSON and Protobuf forms: each is made once."""

    event: Event
    partition: Partition
    epoch: int
    offset: int
    #: Offset of the event before it with the same key; 0 for the first.
    prev: int = 0
    pub: bytes | None = None
    packed: bytes | None = None


class Draft(msgspec.Struct, frozen=True, gc=False):
    """An event on its way into the log, with all the log needs to know of its topic."""

    event: Event
    #: Events with the same key keep their order, and share a chain that recovery walks.
    key: str
    #: Keep it as the topic's last value.
    retain: bool = False
    #: A broker sent it because it was retained: append it only if it is not already the last value.
    replayed: bool = False
    #: ``principal/key`` of a publisher who wants one answer however often he asks; empty without.
    idempotency: str = ""


class Appended(msgspec.Struct, frozen=True, gc=False):
    """Where an event stands in the log; ``duplicate`` when it was there before."""

    position: Position
    id: str
    duplicate: bool = False


class Publication(msgspec.Struct, frozen=True):
    """What a client asks to be published."""

    topic: str
    data: bytes
    #: The door it came through, see :attr:`Meta.via`.
    via: str
    #: MIME type of ``data``; generic ones give way to what the topic declares.
    type: str = ""
    #: At most ``limits.ID_BYTES``; a new one is made where it is empty.
    id: str = ""
    #: The same key from the same principal on the same topic is answered once.
    idempotency: str = ""
    headers: dict[str, str] = {}
    traceparent: str = ""
