"""The Protobuf form of the Centrifugal client protocol v2: the same commands and results as ``core/wire``, packed.

One binary frame holds messages, each behind its length as a varint; a ping is one byte 0, and so is its answer. The
tables below hold the field numbers of ``client.proto`` (centrifugal/protocol) that this server reads or writes; what it
does not know it skips. Payloads are raw bytes: JSON clients get base64 where these get what was published.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, cast

import msgspec

from gateway.core import frame as _frame
from gateway.core import wire
from gateway.core.event import Event, Record
from gateway.errors import BadPayload, GatewayError

NAME: Final = "protobuf"
SUBPROTOCOL: Final = "centrifuge-protobuf"
PING: Final = b"\x00"
#: A publish without data has empty data: this form cannot tell the two apart.
EMPTY: Final = True

_VARINT, _FIXED64, _SIZED, _FIXED32 = 0, 1, 2, 5
_REMEDY: Final = "send what client.proto of the Centrifugal protocol describes"

# --- numbers and sizes ----------------------------------------------------------------------------------------------


_SMALL: Final = tuple(bytes([number]) for number in range(128))


def _varint(number: int) -> bytes:
    if 0 <= number < 128:
        return _SMALL[number]
    number &= 2**64 - 1  # a negative one takes ten bytes
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _sized(data: bytes) -> bytes:
    return _varint(len(data)) + data


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the number at ``at`` and where it ends; raises :class:`BadPayload` beyond 64 bits or the end."""
    number = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise BadPayload("the message ends inside a number", _REMEDY)
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            if number >= 2**64:
                break
            return number, at
    raise BadPayload("a number has more than 64 bits", _REMEDY)


def _read_sized(data: bytes, at: int) -> tuple[bytes, int]:
    size, at = _read_varint(data, at)
    end = at + size
    if end > len(data):
        raise BadPayload("the message ends inside a field", _REMEDY)
    return data[at:end], end


# --- what clients send ----------------------------------------------------------------------------------------------


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise BadPayload("a text is not UTF-8", "send UTF-8") from None


def _signed(number: int) -> int:
    return number - 2**64 if number >= 2**63 else number


def _int32(number: int) -> int:
    number &= 2**32 - 1
    return number - 2**32 if number >= 2**31 else number


def _uint32(number: int) -> int:
    return number & 2**32 - 1


class _Message(msgspec.Struct, frozen=True):
    """How a message is read: field number → its name, and what makes a value of a number, of bytes, or of a message."""

    type: Callable[..., msgspec.Struct]
    numbers: Mapping[int, tuple[str, Callable[[int], Any]]] = {}
    sized: Mapping[int, tuple[str, Callable[[bytes], Any]]] = {}
    messages: Mapping[int, tuple[str, _Message]] = {}

    def read(self, data: bytes) -> msgspec.Struct:
        """Return the message; the last one of a repeated field counts, and messages merge. Raises `BadPayload`."""
        fields: dict[str, Any] = {}
        parts: dict[int, bytes] = {}
        at = 0
        while at < len(data):
            tag, at = _read_varint(data, at)
            number, kind = tag >> 3, tag & 7
            if not 0 < number < 2**29:
                raise BadPayload(f"there is no field {number}", _REMEDY)
            if kind == _VARINT:
                value, at = _read_varint(data, at)
                if number in self.numbers:
                    name, made = self.numbers[number]
                    fields[name] = made(value)
            elif kind == _SIZED:
                body, at = _read_sized(data, at)
                if number in self.sized:
                    name, make = self.sized[number]
                    fields[name] = make(body)
                elif number in self.messages:
                    # Two of one message are one message of both (Protobuf, "last one wins" and merging).
                    parts[number] = parts.get(number, b"") + body
            elif kind in (_FIXED64, _FIXED32):
                at += 8 if kind == _FIXED64 else 4
                if at > len(data):
                    raise BadPayload("the message ends inside a field", _REMEDY)
            else:
                raise BadPayload(f"wire type {kind} is not read here", _REMEDY)  # groups are long gone from Protobuf
        for number, body in parts.items():
            name, message = self.messages[number]
            fields[name] = message.read(body)
        return self.type(**fields)


_TOPIC: Final = {1: ("channel", _text)}
_PRESENCE: Final = _Message(wire.Presence, sized=_TOPIC)
_COMMAND: Final = _Message(
    wire.Command,
    numbers={1: ("id", _uint32)},
    messages={
        4: (
            "connect",
            _Message(
                wire.Connect,
                sized={1: ("token", _text), 2: ("data", msgspec.Raw), 4: ("name", _text), 5: ("version", _text)},
            ),
        ),
        5: (
            "subscribe",
            _Message(
                wire.Subscribe,
                numbers={
                    3: ("recover", bool),
                    7: ("offset", int),
                    9: ("positioned", bool),
                    10: ("recoverable", bool),
                    11: ("join_leave", bool),
                    14: ("flag", _signed),
                },
                sized={
                    1: ("channel", _text),
                    2: ("token", _text),
                    6: ("epoch", _text),
                    8: ("data", msgspec.Raw),
                    13: ("tf", msgspec.Raw),
                },
            ),
        ),
        6: ("unsubscribe", _Message(wire.Unsubscribe, sized=_TOPIC)),
        7: ("publish", _Message(wire.Publish, sized={**_TOPIC, 2: ("data", msgspec.Raw)})),
        8: ("presence", _PRESENCE),
        9: ("presence_stats", _PRESENCE),
        10: (
            "history",
            _Message(
                wire.History,
                numbers={7: ("limit", _int32), 9: ("reverse", bool)},
                sized=_TOPIC,
                messages={8: ("since", _Message(wire.Since, {1: ("offset", int)}, {2: ("epoch", _text)}))},
            ),
        ),
        12: ("send", _Message(wire.Unserved)),
        13: ("rpc", _Message(wire.Rpc, sized={1: ("data", msgspec.Raw), 2: ("method", _text)})),
        14: ("refresh", _Message(wire.Refresh, sized={1: ("token", _text)})),
        15: ("sub_refresh", _Message(wire.SubRefresh, sized={**_TOPIC, 2: ("token", _text)})),
    },
)


def commands(message: bytes) -> list[bytes]:
    """Return the commands of one binary frame; raises :class:`BadPayload` where it is empty or cut."""
    found: list[bytes] = []
    at = 0
    while at < len(message):
        command, at = _read_sized(message, at)
        found.append(command)
    if not found:
        raise BadPayload("the frame is empty", _REMEDY)
    return found


def decode(line: bytes) -> wire.Command:
    """Return one command; raises :class:`BadPayload`. What a payload holds its topic's declaration judges."""
    return cast("wire.Command", _COMMAND.read(line))


# --- what we send ---------------------------------------------------------------------------------------------------

_METHODS: Final = {
    "connect": 5,
    "subscribe": 6,
    "unsubscribe": 7,
    "publish": 8,
    "presence": 9,
    "presence_stats": 10,
    "history": 11,
    "rpc": 13,
    "refresh": 14,
    "sub_refresh": 15,
}
#: Fields of a push, which is field 4 of a reply; 2 is its channel.
_PUB, _JOIN, _LEAVE, _UNSUBSCRIBE, _SUBSCRIBE, _REFRESH = 4, 5, 6, 7, 9, 12

#: Struct → field → its number. Every field of these structs is here; a test compares them with the schema.
NUMBERS: Final[Mapping[type[msgspec.Struct], Mapping[str, int]]] = {
    wire.SubRefreshResult: {"expires": 1, "ttl": 2},
    wire.ConnectResult: {"client": 1, "version": 2, "expires": 3, "ttl": 4, "ping": 7, "pong": 8},
    wire.RefreshResult: {"client": 1, "version": 2, "expires": 3, "ttl": 4},
    wire.SubscribeResult: {
        "expires": 1,
        "ttl": 2,
        "recoverable": 3,
        "epoch": 6,
        "publications": 7,
        "recovered": 8,
        "offset": 9,
        "positioned": 10,
        "was_recovering": 12,
    },
    wire.ClientInfo: {"user": 1, "client": 2},
    wire.PresenceResult: {"presence": 1},
    wire.PresenceStatsResult: {"num_clients": 1, "num_users": 2},
    wire.HistoryResult: {"publications": 1, "epoch": 2, "offset": 3},
}


def _field(number: int, value: Any) -> bytes:
    """Return one field; nothing where the value is what an absent field means."""
    if not value:
        return b""
    match value:
        case int():
            return _varint(number << 3 | _VARINT) + _varint(value)
        case str():
            return _message(number, value.encode())
        case list():
            return b"".join(_message(number, bytes(one)) for one in value)
        case dict():
            return b"".join(_message(number, _field(1, key) + _message(2, _body(one))) for key, one in value.items())
    return _message(number, bytes(value))


def _message(number: int, body: bytes) -> bytes:
    return _varint(number << 3 | _SIZED) + _sized(body)


def _body(value: msgspec.Struct) -> bytes:
    return b"".join(_field(number, getattr(value, name)) for name, number in NUMBERS[type(value)].items())


def frame(message: bytes) -> bytes:
    """Return the WebSocket frame of a reply or a push."""
    return _frame.binary(message)


def reply(id: int, method: str, result: msgspec.Struct | None = None) -> bytes:
    """Return the reply to command ``id``."""
    body = b"" if result is None else _body(result)
    return _sized(_field(1, id) + _message(_METHODS[method], body))


def rpc_reply(id: int, data: bytes) -> bytes:
    """Return the reply to an rpc."""
    return _sized(_field(1, id) + _message(_METHODS["rpc"], _field(1, data)))


def error(id: int, cause: GatewayError) -> bytes:
    """Return the error reply to command ``id``."""
    body = _field(1, cause.reply) + _field(2, str(cause) or cause.code) + _field(3, cause.retry)
    return _sized(_field(1, id) + _message(2, body))


def publication(record: Record) -> bytes:
    """Return the publication of ``record``, made once in a process however many watch it."""
    if record.packed is None:
        record.packed = event_publication(record.event, record.offset)
    return record.packed


def event_publication(event: Event, offset: int = 0) -> bytes:
    """Return the publication of ``event``. Without an ``offset`` it does not move a client's position."""
    tags = wire.tags_of(event)
    # Once for each event and filter, so written out: a third of the time that `_field` takes.
    parts = [b"\x22" + _sized(event.data)] if event.data else []
    if offset:
        parts.append(b"\x30" + _varint(offset))
    for name, key in _TAGS:
        value: str = getattr(tags, name)
        if value:
            parts.append(b"\x3a" + _sized(key + b"\x12" + _sized(value.encode())))
    return b"".join(parts)


#: The name of each tag, and its bytes as the key of an entry of the map.
_TAGS: Final = tuple((name, b"\x0a" + _sized(name.encode())) for name in wire.Tags.__struct_fields__)


def _pushed(channel: str, what: int, body: bytes) -> bytes:
    return _sized(b"\x22" + _sized(b"\x12" + _sized(channel.encode()) + _SMALL[what << 3 | _SIZED] + _sized(body)))


def push(channel: str, publication: bytes) -> bytes:
    """Return the push of one publication to the subscribers of ``channel``."""
    return _pushed(channel, _PUB, publication)


def push_subscribe(channel: str, at: wire.SubscribeResult) -> bytes:
    """Return the push that tells a client what a server subscribed it to, and where it stands there."""
    body = _field(1, at.recoverable) + _field(4, at.epoch) + _field(5, at.offset) + _field(6, at.positioned)
    return _pushed(channel, _SUBSCRIBE, body)


def push_refresh(ends: wire.SubRefreshResult) -> bytes:
    """Return the push that tells a client when its connection ends now."""
    return _pushed("", _REFRESH, _body(ends))


def push_unsubscribe(channel: str, code: int, reason: str) -> bytes:
    """Return the push that ends a subscription; from code 2500 on the SDK subscribes again by itself."""
    return _pushed(channel, _UNSUBSCRIBE, _field(2, code) + _field(3, reason))


def push_moved(channel: str, what: Literal["join", "leave"], info: wire.ClientInfo) -> bytes:
    """Return the push that tells the subscribers of ``channel`` who came, or who left."""
    return _pushed(channel, _JOIN if what == "join" else _LEAVE, _message(1, _body(info)))
