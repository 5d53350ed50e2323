"""What would happen to a topic: who may write and read it, where it is kept, and which declaration decides."""

from __future__ import annotations

import msgspec

from gateway.core.access import Principal, denied, may
from gateway.core.declared import Declared, Found, Right, Topic, valid
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
    deny_write: tuple[str, ...]
    deny_read: tuple[str, ...]
    #: By this declaration alone.
    may_write: bool
    may_read: bool
    retain: bool
    #: Whether those who may read one topic of it may ask who is there, and hear who comes and leaves.
    presence: bool
    mqtt: str


class Explanation(msgspec.Struct, frozen=True):
    """Every declaration met: all of them must grant it, and none that lets any of it through may deny it."""

    topic: str
    principal: str
    may_write: bool
    may_read: bool
    #: Whether a subscriber who was away can be brought up to date.
    recoverable: bool
    lines: list[Line]
    #: Which declaration refuses, and by which words; empty where none does.
    write_refused: str = ""
    read_refused: str = ""
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
            deny_write=found.topic.deny_write,
            deny_read=found.topic.deny_read,
            may_write=_may(who, found, "write"),
            may_read=_may(who, found, "read"),
            retain=found.topic.retain,
            presence=found.topic.presence,
            mqtt=found.topic.mqtt or "",
        )
        for found in met
    ]
    write = declared.refusal(who, topic, met, "write") if not is_filter(topic) else "events have one concrete topic"
    read = declared.refusal(who, topic, met, "read")
    return Explanation(
        topic=topic,
        principal=str(who),
        may_write=not write,
        may_read=not read,
        recoverable=len(declared.places(met)) == 1 and all(f.topic.history and not f.topic.ephemeral for f in met),
        lines=lines,
        write_refused=write,
        read_refused=read,
        payload_error=_fault(met[0].topic, payload) if payload is not None else "",
    )


def _may(who: Principal, found: Found, right: Right) -> bool:
    topic = found.topic
    return may(who, topic.grants(right), found.bound) and not denied(who, topic.denials(right), found.bound)


def _fault(topic: Topic, payload: bytes) -> str:
    try:
        valid(topic, payload)
    except GatewayError as e:
        return str(e)
    return ""
