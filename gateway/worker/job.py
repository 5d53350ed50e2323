"""One delivery of one event: what its handler sees, and what it emits."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import msgspec

from gateway import limits
from gateway.adapters.http_asking import Asking
from gateway.adapters.log import Log
from gateway.core.declared import Declared, valid
from gateway.core.delivery import emitted_id
from gateway.core.event import Draft, Event, Meta
from gateway.core.lanes import Item
from gateway.errors import GatewayError, LimitReached, Misconfigured
from gateway.service import Service
from gateway.store import Transaction
from gateway.worker.emitted import TYPES, Emitted
from gateway.worker.unit import Body, Unit

if TYPE_CHECKING:
    from gateway.worker.holding import Holding
    from gateway.worker.wants import Want

_encode = msgspec.json.Encoder().encode


class Emits:
    """What the deliveries of one service may emit, and the way into the log."""

    def __init__(
        self, log: Log, declared: Declared, group: str, service: Service, asking: Asking | None = None
    ) -> None:
        self.group = group
        self._asking = asking
        self.producer = f"service:{group}"
        self._log = log
        self._declared = declared
        self._service = service

    @property
    def asking(self) -> Asking:
        """The way to the routes of other services."""
        if self._asking is None:
            raise Misconfigured(f"service {self.group!r} runs without the others", "run it by `gateway work`")
        return self._asking

    def draft(
        self,
        id: str,
        topic: str,
        payload: object,
        headers: Mapping[str, str],
        after: float = 0.0,
        cause: Event | None = None,
    ) -> Emitted:
        """Return the event ``id``, which follows from ``cause``; raises what :meth:`Context.emit` says.

        ``after``: seconds that it waits; then it must be declared as what the service delays.
        """
        declares: Literal["emits", "delays"] = "delays" if after else "emits"
        if not self._service.sends_to(topic, declares):
            raise Misconfigured(
                f"service {self.group!r} does not declare that it {declares} {topic!r}",
                f"Service(…, {declares}=[{topic!r}])",
            )
        found = self._declared.find(topic)
        data = valid(found.topic, payload if isinstance(payload, bytes) else _encode(payload))
        known = Meta(
            ts=time.time_ns() // 1_000_000,
            type=TYPES[found.topic.payload],
            producer=self.producer,
            via="service",
            traceparent="" if cause is None else cause.meta.traceparent,
            cause="" if cause is None else cause.id,
            headers=dict(headers),
        )
        draft = Draft(Event(topic, data, id, known), found.key, retain=found.topic.retain)
        return Emitted(found.partition, draft, found.topic.ephemeral, after)

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


class Delivery:
    """The :class:`~gateway.service.Context` of one delivery."""

    __slots__ = ("_emits", "_unit", "attempt", "emitted", "event", "variables")

    def __init__(
        self, emits: Emits, event: Event, variables: Mapping[str, str], attempt: int, unit: Unit | None = None
    ) -> None:
        self.event = event
        self.variables = variables
        self.attempt = attempt
        self.emitted: list[Emitted] = []
        self._emits = emits
        self._unit = unit

    @property
    def asking(self) -> Asking:
        """For ``gateway.web.ask``."""
        return self._emits.asking

    async def transaction(self) -> Transaction:
        """See :meth:`Context.transaction`."""
        return Body(await self._owned().begin(), self)

    def emit(self, topic: str, payload: object, *, headers: Mapping[str, str] | None = None) -> str:
        """See :meth:`Context.emit`."""
        return self._add(topic, payload, headers, 0.0)

    def later(self, after: float, topic: str, payload: object, *, headers: Mapping[str, str] | None = None) -> str:
        """See :meth:`Context.later`."""
        if self._owned().work is None:
            raise Misconfigured("later() outside a transaction", "call it after: await context.transaction()")
        if not 0 < after <= limits.DELAY_MOST:
            raise Misconfigured(f"later() after {after} s", f"use 0 to {limits.DELAY_MOST:g} s; emit() leaves at once")
        return self._add(topic, payload, headers, after)

    def _add(self, topic: str, payload: object, headers: Mapping[str, str] | None, after: float) -> str:
        n, cause = len(self.emitted), self.event
        if n >= limits.EMITS:
            raise LimitReached(f"one delivery emitted {n} events", "emit fewer, larger ones")
        id = emitted_id(cause.id, self._emits.group, n)
        self.emitted.append(self._emits.draft(id, topic, payload, headers or {}, after, cause))
        return id

    def _owned(self) -> Unit:
        if self._unit is None:
            raise Misconfigured(
                f"service {self._emits.group!r} has no database", "Service(…, database=Database(…)), of gateway.sql"
            )
        return self._unit


class Job(msgspec.Struct, frozen=True, gc=False):
    """An item that was claimed, with its event, on its way to a slot."""

    holding: Holding
    item: Item
    event: Event
    want: Want
