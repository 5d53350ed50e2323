"""What a service's routes reach: its database, and the log."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import NoReturn

from gateway import limits
from gateway.adapters.http_asking import Asking
from gateway.adapters.identity import new_id
from gateway.errors import LimitReached, Misconfigured
from gateway.store import Outgoing, Reading, Store, Transaction
from gateway.worker.emitted import Emitted
from gateway.worker.job import Emits
from gateway.worker.unit import Body


class Routed:
    """``request.state.service``: applications reach it by ``gateway.sql`` and ``gateway.web``."""

    def __init__(self, emits: Emits, store: Store | None, wake: Callable[[], None]) -> None:
        self._emits, self._store, self._wake = emits, store, wake

    @property
    def asking(self) -> Asking:
        """The way to the routes of other services."""
        return self._emits.asking

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """What is done and emitted in the block is committed as it is left, and undone where it raises."""
        if self._store is None:
            self._no_database()
        work, emitting = await self._store.begin(), _Emitting(self._emits)
        try:
            yield Body(work, emitting)
            if emitting.emitted:
                await work.put([Outgoing(one.draft.event, one.after) for one in emitting.emitted])
        except BaseException:
            await work.rollback()
            raise
        await work.commit()
        if emitting.emitted:
            self._wake()

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Reading]:
        """What is committed."""
        if self._store is None:
            self._no_database()
        async with self._store.read() as db:
            yield db

    async def publish(self, topic: str, payload: object, headers: Mapping[str, str], id: str) -> str:
        """Publish without a transaction; returns the id once it is as durable as the topic's log promises."""
        made = self._emits.draft(id or new_id(), topic, payload, headers)
        await self._emits.append([made])
        return made.draft.event.id

    def _no_database(self) -> NoReturn:
        raise Misconfigured(
            f"service {self._emits.group!r} has no database", "Service(…, database=Database(…)), of gateway.sql"
        )


class _Emitting:
    """What one request emits; nobody caused it, so its ids are new."""

    def __init__(self, emits: Emits) -> None:
        self._emits = emits
        self.emitted: list[Emitted] = []

    def emit(self, topic: str, payload: object, *, headers: Mapping[str, str] | None = None) -> str:
        return self._add(topic, payload, headers, 0.0)

    def later(self, after: float, topic: str, payload: object, *, headers: Mapping[str, str] | None = None) -> str:
        if not 0 < after <= limits.DELAY_MOST:
            raise Misconfigured(f"later() after {after} s", f"use 0 to {limits.DELAY_MOST:g} s; emit() leaves at once")
        return self._add(topic, payload, headers, after)

    def _add(self, topic: str, payload: object, headers: Mapping[str, str] | None, after: float) -> str:
        if len(self.emitted) >= limits.EMITS:
            raise LimitReached(f"one request emitted {limits.EMITS} events", "emit fewer, larger ones")
        self.emitted.append(self._emits.draft(new_id(), topic, payload, headers or {}, after))
        return self.emitted[-1].draft.event.id
