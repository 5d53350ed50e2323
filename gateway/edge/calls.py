"""What a client may call by rpc, so that every SDK has it: a service, publish with an answer, explain."""

from __future__ import annotations

from typing import Any

import msgspec

from gateway import limits
from gateway.core import wire
from gateway.core.access import Principal
from gateway.core.event import Publication
from gateway.core.explain import explain
from gateway.core.payload import check_json
from gateway.edge.publisher import Publisher
from gateway.edge.requests import Requests
from gateway.errors import BadPayload, NotDeclared, Refused
from gateway.tables import duration


class NoSuchMethod(Refused):
    """An rpc by a name that nothing here answers to."""

    code = "no_such_method"
    status = 404
    reply = 104


class _Publish(msgspec.Struct, frozen=True):
    """The argument of the rpc ``publish``."""

    topic: str
    data: msgspec.Raw
    id: str = ""
    idempotency_key: str = ""


class _Request(msgspec.Struct, frozen=True):
    """The argument of the rpc ``request``."""

    topic: str
    data: msgspec.Raw
    idempotency_key: str = ""
    #: At most ``limits.WAIT_MOST``; beyond the SDK's own timeout only where the client asks the SDK for more, too.
    wait: str = ""


class _Requested(msgspec.Struct, frozen=True):
    """What the rpc ``request`` answers."""

    id: str
    data: msgspec.Raw


class _Explain(msgspec.Struct, frozen=True):
    """The argument of the rpc ``explain``."""

    topic: str


def waits(method: str) -> bool:
    """Say whether ``method`` is answered by a service, which may take its time."""
    return method not in ("publish", "explain")


async def call(publisher: Publisher, requests: Requests, who: Principal, method: str, data: bytes) -> bytes:
    """Answer an rpc of ``who`` with JSON: one of ours, else what the service answers that handles topic ``method``.

    Raises :class:`NoSuchMethod`, :class:`BadPayload`, and what publishing and asking do.
    """
    if method == "publish":
        asked: _Publish = _argument(data, _Publish)
        publication = Publication(asked.topic, bytes(asked.data), "ws", id=asked.id, idempotency=asked.idempotency_key)
        stored = await publisher.publish(who, publication)
        at = stored.position
        return msgspec.json.encode(wire.PublishResult(stored.id, at.offset, str(at.epoch), stored.duplicate))
    if method == "explain":
        subject: _Explain = _argument(data, _Explain)
        return msgspec.json.encode(explain(publisher.declared, subject.topic, who))
    if method == "request":
        request: _Request = _argument(data, _Request)
        publication = Publication(request.topic, bytes(request.data), "ws", idempotency=request.idempotency_key)
        stored, reply = await requests.ask(who, publication, _wait(request.wait))
        return msgspec.json.encode(_Requested(stored.id, msgspec.Raw(_one_line(reply))))
    try:
        publisher.declared.find(method)
    except NotDeclared:
        raise NoSuchMethod(
            f"there is no method and no topic {method[:60]!r}", "call publish, request, explain or a declared topic"
        ) from None
    _, reply = await requests.ask(who, Publication(method, data, "ws"), limits.RPC_WITHIN)
    return _one_line(reply)


def _wait(text: str) -> float:
    try:
        within = duration(text) if text else limits.RPC_WITHIN
    except ValueError as e:
        raise BadPayload(f"wait {e}", "or leave it out") from None
    if within > limits.WAIT_MOST:
        raise Refused(f"nobody waits here for {within:g} s", f"wait at most {limits.WAIT_MOST:g} s, then ask again")
    return within


def _one_line(reply: bytes) -> bytes:
    # A line break ends a reply on the wire; in JSON it stands only between tokens (RFC 8259, 2).
    return reply.replace(b"\n", b" ").replace(b"\r", b" ")


def _argument(data: bytes, type: type[msgspec.Struct]) -> Any:
    """Return an rpc's argument; raises :class:`BadPayload`."""
    check_json(data)
    try:
        return msgspec.json.decode(data, type=type)
    except msgspec.DecodeError as e:
        raise BadPayload(f"not the argument of this method: {e}", "see docs/protocol.md") from None
