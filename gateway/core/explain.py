"""What would happen to a topic: who may write and read it, where it is kept, and which declaration decides."""

from __future__ import annotations

import msgspec

from gateway.core.access import Principal, may
from gateway.core.declared import Declared, Topic, valid
from gateway.core.topic import is_filter
from gateway.errors import GatewayError


class Line(msgspec.Struct, frozen=True):
    """One declaration that the topic or filter meets."""

    pattern: str
    app: str
    kind: str
    payload: str
    #: Empty where a wildcard leaves it open.
    key: str
    partition: str
    write: tuple[str, ...]
    read: tuple[str, ...]
    may_write: bool
    may_read: bool
    retain: bool
    mqtt: str


class Explanation(msgspec.Struct, frozen=True):
    """Every declaration met; a filter may be read if all of them may."""

    topic: str
    principal: str
    may_write: bool
    may_read: bool
    #: Whether a subscriber who was away can be brought up to date.
    recoverable: bool
    lines: list[Line]
    #: What is wrong with the payload that was asked about; empty where nothing is.
    payload_error: str = ""


def explain(declared: Declared, topic: str, who: Principal, payload: bytes | None = None) -> Explanation:
    """Explain ``topic`` (or a filter) to ``who``, without any effect.

    Raises :class:`BadTopic` or :class:`NotDeclared`.
    """
    met = declared.meeting(topic)
    lines = [
        Line(
            pattern=found.topic.pattern,
            app=found.topic.owner,
            kind=found.topic.kind,
            payload=found.topic.payload,
            key=found.key,
            partition=found.partition,
            write=found.topic.write,
            read=found.topic.read,
            may_write=may(who, found.topic.write, found.bound),
            may_read=may(who, found.topic.read, found.bound),
            retain=found.topic.retain,
            mqtt=found.topic.mqtt or "",
        )
        for found in met
    ]
    return Explanation(
        topic=topic,
        principal=str(who),
        may_write=not is_filter(topic) and lines[0].may_write,
        may_read=all(line.may_read for line in lines),
        recoverable=len(declared.places(met)) == 1 and all(f.topic.history and not f.topic.ephemeral for f in met),
        lines=lines,
        payload_error=_fault(met[0].topic, payload) if payload is not None else "",
    )


def _fault(topic: Topic, payload: bytes) -> str:
    try:
        valid(topic, payload)
    except GatewayError as e:
        return str(e)
    return ""
