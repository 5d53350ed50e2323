"""What would happen to a topic: who may write and read it, where it is kept, and which declaration decides."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from gateway.core.access import Principal, denied, may
from gateway.core.catalogue import Consumed, Participant
from gateway.core.declared import Declared, Found, Right, Topic, valid
from gateway.core.mapping import Rule
from gateway.core.topic import is_filter, overlap
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
    history: bool
    ephemeral: bool
    #: What JSON payloads must decode to; empty where any JSON will do.
    schema: str


class Receiver(msgspec.Struct, frozen=True):
    """A group whose service has a function for the topic, or for some of the filter."""

    group: str
    pattern: str
    #: Why the function does not take the payload that was asked about, which would be a dead letter of the group.
    payload_error: str


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
    #: In the order of their groups; nobody gets a payload that is refused.
    receivers: tuple[Receiver, ...] = ()
    #: Sources of the MQTT maps that lead here.
    mapped: tuple[str, ...] = ()


def explain(
    declared: Declared,
    topic: str,
    who: Principal,
    payload: bytes | None = None,
    *,
    participants: Iterable[Participant] = (),
    rules: Iterable[Rule] = (),
) -> Explanation:
    """Explain ``topic`` (or a filter) to ``who``, without any effect.

    A filter's ``payload`` is judged by the first declaration that it meets.

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
            history=found.topic.history,
            ephemeral=found.topic.ephemeral,
            schema=""
            if found.topic.schema is None
            else getattr(found.topic.schema, "__name__", str(found.topic.schema)),
        )
        for found in met
    ]
    write = declared.refusal(who, topic, met, "write") if not is_filter(topic) else "events have one concrete topic"
    read = declared.refusal(who, topic, met, "read")
    fault = "" if payload is None else _fault(met[0].topic, payload)
    return Explanation(
        topic=topic,
        principal=str(who),
        may_write=not write,
        may_read=not read,
        recoverable=len(declared.places(met)) == 1 and all(f.topic.history and not f.topic.ephemeral for f in met),
        lines=lines,
        write_refused=write,
        read_refused=read,
        payload_error=fault,
        receivers=tuple(
            Receiver(one.group, consumed.pattern, "" if payload is None or fault else _unread(consumed, payload))
            for one in sorted(participants, key=lambda one: one.group)
            for consumed in one.consumes
            if overlap(consumed.filter, topic)
        ),
        mapped=tuple(rule.source for rule in rules if overlap(rule.reach, topic)),
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


def _unread(consumed: Consumed, payload: bytes) -> str:
    try:
        if consumed.payload is not None:
            msgspec.json.decode(payload, type=consumed.payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return str(error)
    return ""
