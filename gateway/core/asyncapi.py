"""What this gateway offers, as an AsyncAPI 3 document: as much of it as its reader may use."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from gateway import limits
from gateway.core.access import Principal, may
from gateway.core.catalogue import Participant, Place, places
from gateway.core.declared import Declared, Right, Topic
from gateway.core.mapping import covers
from gateway.core.schema import schemas

_SCHEMAS: Final = "#/components/schemas/{name}"
_TYPES: Final = {"json": "application/json", "text": "text/plain", "bytes": "application/octet-stream"}
_RIGHTS: Final[tuple[Right, ...]] = ("write", "read")
_VARIABLE: Final = re.compile(r"\{([a-z][a-z0-9_]*)\}")
#: ``binary`` is AsyncAPI's word for any octets. (In a JSON frame they are base64: docs/protocol.md.)
_PLAIN: Final[dict[str, dict[str, Any]]] = {
    "json": {},
    "text": {"type": "string"},
    "bytes": {"type": "string", "format": "binary"},
}
_DESCRIPTION: Final = """\
The application of this document is the gateway with its services: it *receives* what clients and devices publish, and \
*sends* what they subscribe to. A channel is a topic, or a family of them; its `x-topic-gateway-filter` is what to \
subscribe to. Where two channels let a topic through, the more literal one has it. A parameter with \
`x-topic-gateway-wildcard` is a level without a name: `+` is one level, `#` any number of them, none included \
(then the `/` before it goes too). With `x-topic-gateway-presence` whoever may subscribe by WebSocket may ask who else \
is there, and hear who comes and leaves (presence, presence_stats, join_leave). `x-topic-gateway-grants` of an \
operation: who may; `x-topic-gateway-denials`: who may not all the same. Only what its reader may use is here."""


class Reached(msgspec.Struct, frozen=True):
    """The gateway's address, as the reader of the document knows it."""

    #: With the port, where it has one.
    host: str
    secure: bool
    #: Of WebSocket clients.
    path: str


class Document(msgspec.Struct, frozen=True):
    """JSON, and an entity tag that changes with it (RFC 9110, 8.8.3)."""

    body: bytes
    etag: str

    @classmethod
    def of(cls, body: bytes) -> Document:
        return cls(body, f'"{hashlib.sha256(body).hexdigest()[:32]}"')


def _word(name: str) -> str:
    """Return the document's word for a field: ``x_key`` is an extension of ours, the rest is AsyncAPI's."""
    if name.startswith("x_"):
        return "x-topic-gateway-" + name[2:].replace("_", "-")
    first, *more = name.split("_")
    return first + "".join(word.title() for word in more)


class _Part(msgspec.Struct, frozen=True, omit_defaults=True, rename=_word):
    pass


class _Ref(_Part, frozen=True):
    ref: str = msgspec.field(name="$ref")


class _Tag(_Part, frozen=True):
    name: str


class _Server(_Part, frozen=True):
    host: str
    protocol: str
    description: str
    pathname: str = ""
    security: tuple[_Ref, ...] = ()


class _Parameter(_Part, frozen=True):
    description: str
    x_wildcard: str = ""


class _Message(_Part, frozen=True):
    name: str
    content_type: str
    payload: dict[str, Any]
    x_max_bytes: int


class _Channel(_Part, frozen=True):
    address: str
    title: str
    messages: dict[str, _Message]
    servers: tuple[_Ref, ...]
    tags: tuple[_Tag, ...]
    x_filter: str
    #: The declaration that rules here.
    x_declared: str
    x_kind: str
    parameters: dict[str, _Parameter] = {}
    x_key: str = ""
    x_identity: str = ""
    x_retain: bool = False
    x_history: bool = True
    x_ephemeral: bool = False
    #: Who may subscribe may ask who is there, and hear who comes and leaves.
    x_presence: bool = False
    x_durability: str = ""


class _Operation(_Part, frozen=True):
    action: str
    channel: _Ref
    summary: str
    tags: tuple[_Tag, ...]
    security: tuple[_Ref, ...] = ()
    bindings: dict[str, dict[str, Any]] = {}
    x_grants: tuple[str, ...] = ()
    x_denials: tuple[str, ...] = ()


class AsyncApi:
    """The documents of one gateway: one for all who may do the same. Pure, and encoded once for each of them."""

    def __init__(
        self,
        declared: Declared,
        *,
        title: str = "gateway",
        version: str = "0",
        participants: Sequence[Participant] = (),
        durability: Mapping[str, str] | None = None,
        mqtt: str = "",
        anonymous: bool = False,
    ) -> None:
        """``durability`` by application; ``mqtt`` is the broker's URL; ``anonymous``: a token may be absent."""
        self._title = title
        self._version = version
        self._durability = durability or {}
        self._mqtt = urlsplit(mqtt)
        self._anonymous = anonymous
        # Of all topics, so that a channel has one id in everybody's document.
        self._places = tuple(places(tuple(declared), participants))
        self._denying = tuple(topic for topic in declared if topic.deny_read or topic.deny_write)
        self._encoded: dict[tuple[bool, ...], bytes] = {}

    def document(self, who: Principal | None, reached: Reached) -> Document:
        """Return what ``who`` may read or write; for an operator, and for None, all that is declared, services too.

        Names of topics say much of a system, so a document has no more of them than its reader can use.
        """
        everything = who is None or who.kind == "operator"
        rights = tuple(
            who is None or everything or self._could(who, place, right) for place in self._places for right in _RIGHTS
        )
        key = (everything, *rights)
        rest = self._encoded.get(key)
        if rest is None:
            if len(self._encoded) >= limits.DOCUMENTS:
                self._encoded.clear()
            rest = self._encoded[key] = msgspec.json.encode(self._rest(rights, everything))
        # The address differs from reader to reader (a proxy, another name), all else does not.
        servers = msgspec.json.encode(dict(self._servers(reached)))
        return Document.of(b'{"asyncapi":"3.0.0","servers":%s,%s' % (servers, rest[1:]))

    def _servers(self, at: Reached) -> Iterator[tuple[str, _Server]]:
        yield (
            "websocket",
            _Server(
                at.host,
                "wss" if at.secure else "ws",
                "The Centrifugal client protocol v2, as JSON: subscribe to a filter, publish to an address.",
                at.path,
                self._security(self._anonymous),
            ),
        )
        yield (
            "http",
            _Server(
                at.host,
                "https" if at.secure else "http",
                "POST an event to the address below /topics; GET /topics/FILTER/events, the filter percent-encoded, "
                "subscribes (Server-Sent Events).",
                "/topics",
                self._security(self._anonymous),
            ),
        )
        if self._mqtt.netloc:
            yield (
                "mqtt",
                _Server(
                    self._mqtt.netloc.rpartition("@")[2],
                    "secure-mqtt" if self._mqtt.scheme == "mqtts" else "mqtt",
                    "Devices publish here, MQTT 3.1.1 or 5; QoS 1 is acknowledged once the event is in the log.",
                    security=(_Ref("#/components/securitySchemes/device"),),
                ),
            )

    def _rest(self, rights: Sequence[bool], everything: bool) -> dict[str, Any]:
        seen = [
            (place, write, read)
            for place, write, read in zip(self._places, rights[::2], rights[1::2], strict=True)
            if write or read
        ]
        payloads, shared = _payloads([place for place, _, _ in seen])
        operations: dict[str, _Operation] = {}
        for place, write, read in seen:
            operations |= self._operations(place, write, read)
            if everything:
                operations |= _services(place)
        return {
            "info": {"title": self._title, "version": self._version, "description": _DESCRIPTION},
            "defaultContentType": "application/json",
            "channels": {
                place.id: self._channel(place, payload) for (place, _, _), payload in zip(seen, payloads, strict=True)
            },
            "operations": operations,
            "components": {
                "schemas": shared,
                "securitySchemes": {
                    "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
                    "device": {"type": "userPassword"},
                },
            },
        }

    def _over(self, place: Place) -> Iterator[Topic]:
        """Yield what denies anything and lets all of ``place`` through."""
        return (topic for topic in self._denying if covers(topic.filter, place.filter))

    def _could(self, who: Principal, place: Place, right: Right) -> bool:
        # A denial whose variable is open takes some of the place, not all of it: here it is read as a grant is.
        return could(who, place.topic.grants(right)) and not any(
            may(who, one.denials(right), one.bind(place.filter)) for one in self._over(place)
        )

    def _channel(self, place: Place, payload: dict[str, Any]) -> _Channel:
        topic = place.topic
        address, parameters = _address(place.pattern)
        doors = ("websocket", "http", "mqtt") if topic.mqtt and self._mqtt.netloc else ("websocket", "http")
        return _Channel(
            address=address,
            title=place.pattern,
            messages={"event": _Message(place.id, _TYPES[topic.payload], payload, topic.max_bytes)},
            servers=tuple(_Ref(f"#/servers/{door}") for door in doors),
            tags=(_Tag(topic.owner),),
            x_filter=place.filter,
            x_declared=topic.pattern,
            x_kind=topic.kind,
            parameters=parameters,
            x_key=topic.key,
            x_identity=topic.identity,
            x_retain=topic.retain,
            x_history=topic.history,
            x_ephemeral=topic.ephemeral,
            x_presence=topic.presence,
            x_durability="none" if topic.ephemeral else self._durability.get(topic.owner, ""),
        )

    def _security(self, open: bool) -> tuple[_Ref, ...]:
        return () if open else (_Ref("#/components/securitySchemes/bearer"),)

    def _operations(self, place: Place, write: bool, read: bool) -> Iterator[tuple[str, _Operation]]:
        # The action is that of the application which the document describes (AsyncAPI 3.0.0, Operation Object), and
        # that is us: what a client publishes we receive. In AsyncAPI 2 the words meant the client's side.
        topic = place.topic
        posted: dict[str, dict[str, Any]] = {"http": {"method": "POST", "bindingVersion": "0.3.0"}}
        if topic.mqtt == "in":
            posted["mqtt"] = {"qos": 1, "bindingVersion": "0.2.0"}
        watched = {"http": {"method": "GET", "bindingVersion": "0.3.0"}}
        sides: tuple[tuple[bool, Right, str, str, dict[str, dict[str, Any]]], ...] = (
            (write, "write", "receive", "Clients publish this.", posted),
            (read, "read", "send", "Clients subscribe to this.", watched),
        )
        for may_it, right, action, summary, bindings in sides:
            if may_it and (grants := topic.grants(right)):
                yield (
                    f"{action}.{place.id}",
                    _Operation(
                        action=action,
                        channel=_Ref(f"#/channels/{place.id}"),
                        summary=summary,
                        tags=(_Tag("gateway"),),
                        security=self._security(self._anonymous and "anyone" in grants),
                        bindings=bindings,
                        x_grants=grants,
                        x_denials=tuple(word for one in self._over(place) for word in one.denials(right)),
                    ),
                )


def _services(place: Place) -> Iterator[tuple[str, _Operation]]:
    for action, does, groups in (("receive", "consumes", place.receivers), ("send", "emits", place.senders)):
        for group in groups:
            channel, summary = _Ref(f"#/channels/{place.id}"), f"The service {group} {does} this."
            yield f"{group}.{action}.{place.id}", _Operation(action, channel, summary, (_Tag(group),))


def could(who: Principal, grants: Iterable[str]) -> bool:
    """Say whether one of ``grants`` covers ``who``, on whatever topic."""
    for grant in grants:
        kind, _, name = grant.partition(":")
        if grant == "anyone" or (kind == who.kind and (not name or name[0] == "{" or name == who.name)):
            return True
    return False


def _payloads(places: Sequence[Place]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    types = [one for place in places for one in place.payloads]
    found, shared = schemas(types, _SCHEMAS)
    made, rest = list[dict[str, Any]](), iter(found)
    for place in places:
        own = [next(rest) for _ in place.payloads]
        # What several services consume has to please each of them.
        made.append(_PLAIN[place.topic.payload] if not own else own[0] if len(own) == 1 else {"allOf": own})
    return made, shared


def _address(pattern: str) -> tuple[str, dict[str, _Parameter]]:
    """Return ``pattern`` with a name for every wildcard, and its parameters."""
    levels, parameters = list[str](), dict[str, _Parameter]()
    taken = set(_VARIABLE.findall(pattern))
    for n, level in enumerate(pattern.split("/"), 1):
        match = _VARIABLE.fullmatch(level)
        if match:
            parameters[match[1]] = _Parameter("One level.")
        elif level in ("+", "#"):
            name = "rest" if level == "#" else f"level_{n}"
            while name in taken:
                name += "_"
            text = "One level." if level == "+" else "Any number of levels, none included: then without the / before."
            parameters[name] = _Parameter(text, level)
            level = f"{{{name}}}"
        levels.append(level)
    return "/".join(levels), parameters
