"""One delivery of one event: what its handler sees, and what it emits."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from gateway import limits
from gateway.adapters.log import Log
from gateway.core.declared import Declared, valid
from gateway.core.delivery import emitted_id
from gateway.core.event import Draft, Event, Meta, Partition
from gateway.core.lanes import Item
from gateway.errors import GatewayError, LimitReached, Misconfigured
from gateway.service import Service

if TYPE_CHECKING:
    from gateway.worker.holding import Holding
    from gateway.worker.wants import Want

_encode = msgspec.json.Encoder().encode
#: What a topic's declaration says of a payload already.
_TYPES = {"json": "", "text": "text/plain", "bytes": "application/octet-stream"}


class Emits:
    """What the deliveries of one service may emit, and the way into the log."""

    def __init__(self, log: Log, declared: Declared, group: str, service: Service) -> None:
        self.group = group
        self.producer = f"service:{group}"
        self._log = log
        self._declared = declared
        self._service = service

    def draft(self, cause: Event, n: int, topic: str, payload: object, headers: Mapping[str, str]) -> Emitted:
        """Return the ``n``th event that follows from ``cause``; raises what :meth:`Context.emit` says."""
        if not self._service.emits_to(topic):
            raise Misconfigured(
                f"service {self.group!r} does not declare that it emits {topic!r}", f"Service(…, emits=[{topic!r}])"
            )
        found = self._declared.find(topic)
        data = valid(found.topic, payload if isinstance(payload, bytes) else _encode(payload))
        meta = Meta(
            ts=time.time_ns() // 1_000_000,
            type=_TYPES[found.topic.payload],
            producer=self.producer,
            via="service",
            traceparent=cause.meta.traceparent,
            cause=cause.id,
            headers=dict(headers),
        )
        event = Event(topic, data, emitted_id(cause.id, self.group, n), meta)
        return Emitted(found.partition, Draft(event, found.key, retain=found.topic.retain), found.topic.ephemeral)

    async def append(self, emitted: list[Emitted]) -> None:
        """Append in order; returns once all of it is as durable as its logs promise. Raises the first refusal."""
        start = 0
        while start < len(emitted):
            first, end = emitted[start], start + 1
            if first.passing:
                await self._log.publish_live(first.partition, first.draft.event)
            else:
                while end < len(emitted) and emitted[end].partition == first.partition and not emitted[end].passing:
                    end += 1
                drafts = [one.draft for one in emitted[start:end]]
                for answer in await self._log.append(first.partition, drafts, patient=True):
                    if isinstance(answer, GatewayError):
                        raise answer
            start = end


class Emitted(msgspec.Struct, frozen=True, gc=False):
    """An event on its way from a handler into the log."""

    partition: Partition
    draft: Draft
    #: Its topic is not kept.
    passing: bool


class Delivery:
    """The :class:`~gateway.service.Context` of one delivery."""

    __slots__ = ("_emits", "attempt", "emitted", "event", "variables")

    def __init__(self, emits: Emits, event: Event, variables: Mapping[str, str], attempt: int) -> None:
        self.event = event
        self.variables = variables
        self.attempt = attempt
        self.emitted: list[Emitted] = []
        self._emits = emits

    def emit(self, topic: str, payload: object, *, headers: Mapping[str, str] | None = None) -> str:
        """See :meth:`Context.emit`."""
        n = len(self.emitted)
        if n >= limits.EMITS:
            raise LimitReached(f"one delivery emitted {n} events", "emit fewer, larger ones")
        made = self._emits.draft(self.event, n, topic, payload, headers or {})
        self.emitted.append(made)
        return made.draft.event.id


class Job(msgspec.Struct, frozen=True, gc=False):
    """An item that was claimed, with its event, on its way to a slot."""

    holding: Holding
    item: Item
    event: Event
    want: Want
