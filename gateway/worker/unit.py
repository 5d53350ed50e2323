"""What one delivery, one batch or one request does in its service's database: all of it, or nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from gateway.store import Outgoing, Parameters, Store, Work


class Emitting(Protocol):
    """Who decides what an emitted event is like: see `gateway.service.Context`."""

    def emit(self, topic: str, payload: object, *, headers: Mapping[str, str] | None = None) -> str:
        """Add an event that leaves with the transaction."""

    def later(self, after: float, topic: str, payload: object, *, headers: Mapping[str, str] | None = None) -> str:
        """Add an event that leaves some seconds after it."""


class Body:
    """The :class:`~gateway.store.Transaction` that a handler or a route holds."""

    __slots__ = ("_emitting", "_work")

    def __init__(self, work: Work, emitting: Emitting) -> None:
        self._work, self._emitting = work, emitting

    async def execute(self, statement: Any, parameters: Parameters = None) -> Any:
        return await self._work.execute(statement, parameters)

    async def scalar(self, statement: Any, parameters: Parameters = None) -> Any:
        return await self._work.scalar(statement, parameters)

    async def scalars(self, statement: Any, parameters: Parameters = None) -> Any:
        return await self._work.scalars(statement, parameters)

    def emit(self, topic: str, payload: object, *, headers: Mapping[str, str] | None = None) -> str:
        return self._emitting.emit(topic, payload, headers=headers)

    def later(self, after: float, topic: str, payload: object, *, headers: Mapping[str, str] | None = None) -> str:
        return self._emitting.later(after, topic, payload, headers=headers)


class Inbox(msgspec.Struct, frozen=True):
    """Where the deliveries of one group note what they handled."""

    store: Store
    group: str
    #: Called once something may leave the outbox.
    wake: Callable[[], None]

    def unit(self, ids: Sequence[str]) -> Unit:
        """Return the transaction of the events ``ids``, not begun."""
        return Unit(self, ids)

    async def seen(self, ids: Sequence[str]) -> set[str]:
        """Return which events were handled before."""
        return await self.store.seen(self.group, ids)


class Unit:
    """One transaction, begun when somebody asks for it; one for all of a batch."""

    __slots__ = ("_beginning", "_ids", "_inbox", "work")

    def __init__(self, inbox: Inbox, ids: Sequence[str]) -> None:
        self._inbox, self._ids = inbox, ids
        self._beginning: asyncio.Lock | None = None
        #: The open transaction.
        self.work: Work | None = None

    async def begin(self) -> Work:
        """Return the transaction; raises `Seen` where the event was handled before, and what the store raises."""
        if self._beginning is None:
            self._beginning = asyncio.Lock()
        async with self._beginning:
            if self.work is None:
                work = await self._inbox.store.begin()
                try:
                    await work.claim(self._inbox.group, self._ids)
                except BaseException:
                    await work.rollback()
                    raise
                self.work = work
            return self.work

    async def commit(self, outgoing: Sequence[Outgoing], reply: bytes | None = None) -> None:
        """Make it durable, with what leaves and with the reply; where that fails, all of it is undone."""
        work = self.work
        if work is None:
            return
        if outgoing:
            await work.put(outgoing)
        if reply is not None:
            await work.answer(self._inbox.group, self._ids[0], reply)
        self.work = None
        await work.commit()
        if outgoing:
            self._inbox.wake()

    async def undo(self) -> None:
        """Undo what is not committed."""
        if self.work is not None:
            work, self.work = self.work, None
            await work.rollback()
