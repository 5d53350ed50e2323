"""What a client may call by rpc, so that every SDK has it: publish with an answer, explain."""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.core import wire
from gateway.core.access import Principal
from gateway.core.event import Publication
from gateway.core.explain import explain
from gateway.core.payload import check_json
from gateway.edge.publisher import Publisher
from gateway.errors import BadPayload, Refused


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


class _Explain(msgspec.Struct, frozen=True):
    """The argument of the rpc ``explain``."""

    topic: str


async def call(publisher: Publisher, who: Principal, method: str, data: bytes) -> bytes:
    """Answer an rpc of ``who`` with JSON.

    Raises :class:`NoSuchMethod`, :class:`BadPayload`, and what publishing does.
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
    raise NoSuchMethod(f"there is no method {method[:60]!r}", "the methods are publish and explain")


def _argument(data: bytes, type: type[msgspec.Struct]) -> Any:
    """Return an rpc's argument; raises :class:`BadPayload`."""
    check_json(data)
    try:
        return msgspec.json.decode(data, type=type)
    except msgspec.DecodeError as e:
        raise BadPayload(f"not the argument of this method: {e}", "see docs/protocol.md") from None
