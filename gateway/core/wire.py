"""The Centrifugal client protocol v2: its commands and results, and their JSON form.

One text frame holds objects joined by a line break. Schema: ``client.proto`` of centrifugal/protocol. Replies carry
their result key even when it is empty; empty fields inside are left out. Field names are the protocol's. The other form
is ``core/wire_protobuf``; both are a :class:`Codec`.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from typing import Final, Literal, Protocol

import msgspec

from gateway.core import frame as _frame
from gateway.core.event import Event, Meta, Position, Record
from gateway.core.payload import check_json
from gateway.errors import BadPayload, GatewayError

#: What fan-out calls this form, and the WebSocket subprotocol that asks for it.
NAME: Final = "json"
SUBPROTOCOL: Final = "centrifuge-json"
#: Answer of a client to our ping, and our ping itself.
PING: Final = b"{}"
#: Without data a publish is a mistake here: JSON has no empty document.
EMPTY: Final = False
_NULL: Final = msgspec.Raw(b"null")
_NOTHING: Final = msgspec.Raw(b"")
_RECOVER_STRICTLY: Final = 2


class Connect(msgspec.Struct, frozen=True):
    token: str = ""
    data: msgspec.Raw = _NULL
    name: str = ""
    version: str = ""


class Subscribe(msgspec.Struct, frozen=True):
    channel: str = ""
    token: str = ""
    recover: bool = False
    epoch: str = ""
    offset: int = 0
    data: msgspec.Raw = _NULL
    positioned: bool = False
    recoverable: bool = False
    join_leave: bool = False
    flag: int = 0
    type: int = 0
    #: A filter by tags that the server would have to apply.
    tf: msgspec.Raw = _NOTHING

    @property
    def strict(self) -> bool:
        """The client wants error 112 instead of ``recovered: false``."""
        return bool(self.flag & _RECOVER_STRICTLY)


class Unsubscribe(msgspec.Struct, frozen=True):
    channel: str = ""


class Publish(msgspec.Struct, frozen=True):
    channel: str = ""
    #: Empty where there is none, which no topic takes for null.
    data: msgspec.Raw = _NOTHING


class Rpc(msgspec.Struct, frozen=True):
    method: str = ""
    data: msgspec.Raw = _NULL


class Presence(msgspec.Struct, frozen=True):
    channel: str = ""


class Since(msgspec.Struct, frozen=True):
    """A position, exclusive."""

    offset: int = 0
    epoch: str = ""


class History(msgspec.Struct, frozen=True):
    channel: str = ""
    #: 0: the position alone. Negative: as many as one reply may hold.
    limit: int = 0
    since: Since | None = None
    reverse: bool = False


class Refresh(msgspec.Struct, frozen=True):
    """A newer token of the same bearer."""

    token: str = ""


class SubRefresh(msgspec.Struct, frozen=True):
    """A newer token of one subscription."""

    channel: str = ""
    token: str = ""


class Unserved(msgspec.Struct, frozen=True):
    """A command that this server does not offer; its fields do not matter."""


class Command(msgspec.Struct, frozen=True):
    id: int = 0
    connect: Connect | None = None
    subscribe: Subscribe | None = None
    unsubscribe: Unsubscribe | None = None
    publish: Publish | None = None
    rpc: Rpc | None = None
    presence: Presence | None = None
    presence_stats: Presence | None = None
    history: History | None = None
    refresh: Refresh | None = None
    sub_refresh: SubRefresh | None = None
    send: Unserved | None = None

    @property
    def method(self) -> str:
        """The one method it names; empty for a pong, ``?`` where it names several."""
        named = [name for name in METHODS if getattr(self, name) is not None]
        return named[0] if len(named) == 1 else "?" if named else ""


METHODS: Final = tuple(name for name in Command.__struct_fields__ if name != "id")


class ConnectResult(msgspec.Struct, frozen=True, omit_defaults=True):
    client: str
    version: str
    #: Seconds between two pings of ours; the client gives up somewhat later.
    ping: int = 0
    pong: bool = False
    expires: bool = False
    ttl: int = 0


class RefreshResult(msgspec.Struct, frozen=True, omit_defaults=True):
    client: str
    version: str
    expires: bool = False
    #: Seconds until the token is over, at least 1 where it ``expires``: then the SDK brings another.
    ttl: int = 0


class SubRefreshResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """Whether something ends, and in how many seconds, at least 1: then the SDK brings another token."""

    expires: bool = False
    ttl: int = 0


class SubscribeResult(SubRefreshResult, frozen=True, omit_defaults=True):
    recoverable: bool = False
    epoch: str = ""
    publications: list[msgspec.Raw] = []
    recovered: bool = False
    offset: int = 0
    positioned: bool = False
    was_recovering: bool = False


class ClientInfo(msgspec.Struct, frozen=True):
    """One client of a topic. Neither field is left out where it is empty: SDKs read both."""

    user: str
    client: str


class PresenceResult(msgspec.Struct, frozen=True):
    #: By the client's id.
    presence: dict[str, ClientInfo]


class PresenceStatsResult(msgspec.Struct, frozen=True):
    num_clients: int
    num_users: int


class HistoryResult(msgspec.Struct, frozen=True):
    publications: list[msgspec.Raw]
    epoch: str
    offset: int


class PublishResult(msgspec.Struct, frozen=True):
    """What ``rpc`` of method ``publish`` answers: where the event stands, and whether it stood there before."""

    id: str
    offset: int
    epoch: str
    duplicate: bool


class _Error(msgspec.Struct, frozen=True, omit_defaults=True):
    code: int
    message: str
    temporary: bool = False


class Tags(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is known of an event beside its data, as the strings that tags are.

    The topic is always among them: no SDK shows a publication's channel, so a wildcard subscriber learns the concrete
    topic only here.
    """

    id: str
    topic: str
    ts: str = ""
    content_type: str = ""
    encoding: str = ""
    traceparent: str = ""


class _Publication(msgspec.Struct, frozen=True, omit_defaults=True):
    data: msgspec.Raw
    tags: Tags
    offset: int = 0


_decode = msgspec.json.Decoder(Command).decode
_encoder = msgspec.json.Encoder()
_encode = _encoder.encode


class Codec(Protocol):
    """One form of the protocol. ``core/wire`` itself is one, ``core/wire_protobuf`` the other."""

    @property
    def NAME(self) -> str: ...
    @property
    def SUBPROTOCOL(self) -> str: ...
    @property
    def PING(self) -> bytes: ...
    @property
    def EMPTY(self) -> bool: ...
    def commands(self, message: bytes) -> list[bytes]: ...
    def decode(self, line: bytes) -> Command: ...
    def frame(self, message: bytes) -> bytes: ...
    def reply(self, id: int, method: str, result: msgspec.Struct | None = None) -> bytes: ...
    def rpc_reply(self, id: int, data: bytes) -> bytes: ...
    def error(self, id: int, cause: GatewayError) -> bytes: ...
    def publication(self, record: Record) -> bytes: ...
    def event_publication(self, event: Event, offset: int = 0) -> bytes: ...
    def push(self, channel: str, publication: bytes) -> bytes: ...
    def push_subscribe(self, channel: str, at: SubscribeResult) -> bytes: ...
    def push_refresh(self, ends: SubRefreshResult) -> bytes: ...
    def push_unsubscribe(self, channel: str, code: int, reason: str) -> bytes: ...
    def push_moved(self, channel: str, what: Literal["join", "leave"], info: ClientInfo) -> bytes: ...


def commands(message: bytes) -> list[bytes]:
    """Return the commands of one message, to be decoded one by one; raises :class:`BadPayload` where it is none."""
    return message.strip(b"\n").split(b"\n")


def frame(message: bytes) -> bytes:
    """Return the WebSocket frame of a reply or a push."""
    return _frame.text(message)


def decode(line: bytes) -> Command:
    """Return one command; raises :class:`BadPayload` where it is none.

    Where only its payload is at fault the command comes back, and the payload's own check refuses it: that is an
    error reply, not the end of the connection.
    """
    try:
        command = _decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as e:
        raise BadPayload(f"not a command: {e}", "send one JSON object a line") from None
    except RecursionError:
        raise BadPayload("the command is nested too deep", "send a flatter one") from None
    try:
        check_json(line)
    except BadPayload:
        body = command.publish or command.rpc
        if body is None:
            raise
        # A payload may be as deep as JSON may be, and stands two levels down: judge the line without it.
        check_json(re.sub(rb'"data"[ \t\r]*:[ \t\r]*' + re.escape(bytes(body.data)), b'"data":0', line, count=1))
    return command


def reply(id: int, method: str, result: msgspec.Struct | None = None) -> bytes:
    """Return the reply to command ``id``."""
    return b'{"id":%d,"%s":%s}' % (id, method.encode(), b"{}" if result is None else _encode(result))


def rpc_reply(id: int, data: bytes) -> bytes:
    """Return the reply to an rpc; ``data`` is JSON."""
    return b'{"id":%d,"rpc":{"data":%s}}' % (id, data)


def error(id: int, cause: GatewayError) -> bytes:
    """Return the error reply to command ``id``. The message says what happened and what to do."""
    return b'{"id":%d,"error":%s}' % (id, _encode(_Error(cause.reply, str(cause) or cause.code, cause.retry)))


def publication(record: Record) -> bytes:
    """Return the publication of ``record``, made once in a process however many watch it."""
    if record.pub is None:
        record.pub = event_publication(record.event, record.offset)
    return record.pub


def event_publication(event: Event, offset: int = 0) -> bytes:
    """Return the publication of ``event``. Without an ``offset`` it does not move a client's position."""
    data, type, encoding = event.data, event.meta.type, ""
    text = _text(data) if type.startswith("text/") else None
    if text is not None:
        data = _encode(text)
    elif type:
        data, encoding = b'"%s"' % base64.b64encode(data), "base64"
    # Only what clears a last value is empty; JSON has no empty document.
    return _encode(_Publication(msgspec.Raw(data or b"null"), tags_of(event, encoding), offset))


def tags_of(event: Event, encoding: str = "") -> Tags:
    """Return the tags of ``event``; ``encoding`` says how its bytes were made text."""
    meta: Meta = event.meta
    return Tags(event.id, event.topic, str(meta.ts) if meta.ts else "", meta.type, encoding, meta.traceparent)


def _text(data: bytes) -> str | None:
    try:
        return data.decode()
    except UnicodeDecodeError:
        # A topic of bytes takes any, under any content type. Raising here would end a partition's reader.
        return None


def push(channel: str, publication: bytes) -> bytes:
    """Return the push of one publication to the subscribers of ``channel``."""
    return b'{"push":{"channel":%s,"pub":%s}}' % (_encode(channel), publication)


def push_subscribe(channel: str, at: SubscribeResult) -> bytes:
    """Return the push that tells a client what a server subscribed it to, and where it stands there."""
    return b'{"push":{"channel":%s,"subscribe":%s}}' % (_encode(channel), _encode(at))


def push_refresh(ends: SubRefreshResult) -> bytes:
    """Return the push that tells a client when its connection ends now."""
    return b'{"push":{"refresh":%s}}' % _encode(ends)


def push_unsubscribe(channel: str, code: int, reason: str) -> bytes:
    """Return the push that ends a subscription; from code 2500 on the SDK subscribes again by itself."""
    return b'{"push":{"channel":%s,"unsubscribe":{"code":%d,"reason":%s}}}' % (
        _encode(channel),
        code,
        _encode(reason),
    )


def push_moved(channel: str, what: Literal["join", "leave"], info: ClientInfo) -> bytes:
    """Return the push that tells the subscribers of ``channel`` who came, or who left."""
    return b'{"push":{"channel":%s,"%s":{"info":%s}}}' % (_encode(channel), what.encode(), _encode(info))


def subscribed(
    position: Position,
    *,
    recoverable: bool,
    was_recovering: bool = False,
    recovered: bool = False,
    publications: Sequence[bytes] = (),
    ttl: int = 0,
) -> SubscribeResult:
    """Return the result of a subscribe whose client now stands at ``position``."""
    return SubscribeResult(
        expires=ttl > 0,
        ttl=ttl,
        recoverable=recoverable,
        positioned=recoverable,
        epoch=str(position.epoch) if recoverable else "",
        offset=position.offset if recoverable else 0,
        was_recovering=was_recovering,
        recovered=recovered,
        publications=[msgspec.Raw(p) for p in publications],
    )
