"""The operators' view of connections: this edge's own, and what the others say of theirs within a moment."""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections.abc import Awaitable, Callable, Collection, Iterator

import msgspec

from gateway import limits
from gateway.adapters.http_api import Node
from gateway.adapters.identity import new_id
from gateway.adapters.log import Notice
from gateway.core.access import ANONYMOUS, Grant, Principal
from gateway.core.connected import Connected, Connection, Said, Wanted, first, order, since, together
from gateway.core.topic import is_filter
from gateway.edge.client import Client
from gateway.edge.desk import Desk
from gateway.edge.presence import principal_of
from gateway.edge.revocations import Held
from gateway.edge.shared import Shared
from gateway.errors import Busy, GatewayError

_log = logging.getLogger("gateway.edge")

_ASKED = "connections"


class _Survey(msgspec.Struct, frozen=True):
    """The question, as edges are told of it."""

    id: str
    #: The edge that asks.
    by: str
    wanted: Wanted


class Connections:
    """See ``adapters/http_connections``; who may is the desk's decision."""

    def __init__(
        self,
        desk: Desk,
        edge: Shared,
        clients: Collection[Client],
        held: Collection[Held],
        nodes: Callable[[], Awaitable[list[Node]]],
    ) -> None:
        """``nodes`` returns the edges that live."""
        self._desk, self._edge, self._clients, self._held, self._nodes = desk, edge, clients, held, nodes
        self._asking = self._answering = 0
        edge.revocations.listeners[_ASKED] = self._hear

    def allows(self, origin: str | None, host: str | None) -> bool:
        return self._desk.allows(origin, host)

    def refused(self, error: GatewayError) -> None:
        self._desk.refused(error)

    def check(self, token: str, whence: str) -> Grant:
        return self._desk.admitted(token, whence, "connections", "list")

    async def connected(self, grant: Grant, wanted: Wanted) -> Connected:
        if self._asking >= limits.SURVEYS:
            raise Busy(f"{limits.SURVEYS} such questions are under way here", "let one of them end")
        self._asking += 1
        try:
            own = self._edge.presence.edge
            names = {node.uid: node.name for node in await self._nodes() if node.uid != own}
            said = await self._ask(wanted, names) if names else {}
            self._desk.still(grant)
            return together({self._edge.name: self._said(wanted), **said}, wanted.limit)
        finally:
            self._asking -= 1

    async def _ask(self, wanted: Wanted, names: dict[str, str]) -> dict[str, Said | None]:
        """Return what each of the others says, by its name; None for who says nothing in time."""
        survey, log, loop = new_id(), self._edge.log, self._edge.loop
        until = loop.time() + limits.SURVEY_WITHIN
        asked = _Survey(survey, self._edge.presence.edge, wanted)
        await log.control.announce(Notice(_ASKED, msgspec.json.encode(asked)))
        said: dict[str, Said | None] = dict.fromkeys(names.values())
        silent = list(names)
        while silent:
            late = loop.time() >= until
            for edge, word in zip(silent, await log.surveys.take(survey, silent), strict=True):
                said[names[edge]] = _read(word)
            silent = [edge for edge in silent if said[names[edge]] is None]
            if late:
                break
            await asyncio.sleep(limits.SURVEY_LOOK)
        return said

    # --- what every edge hears ---

    def _hear(self, data: bytes) -> None:
        asked = msgspec.json.decode(data, type=_Survey)
        if asked.by != self._edge.presence.edge and self._answering < limits.SURVEY_ANSWERS:
            # Counted here: who was away reads many at once, and none of the tasks has begun.
            self._answering += 1
            self._edge.spawn(self._answer(asked), f"survey-{asked.id}")

    async def _answer(self, asked: _Survey) -> None:
        try:
            word = msgspec.json.encode(self._said(asked.wanted))
            await self._edge.log.surveys.answer(asked.id, self._edge.presence.edge, word)
        except GatewayError as e:
            _log.info("this edge could not say who is connected: %s", e)  # it is named as missing
        finally:
            self._answering -= 1

    # --- who is here ---

    def _said(self, wanted: Wanted) -> Said:
        # Rows are made of those alone that are told: an edge may have tens of thousands.
        found = [(order(one.waiting, one.id), one) for one in self._meeting(wanted)]
        least = heapq.nsmallest(wanted.limit, found, key=lambda pair: pair[0])
        return Said([self._row(one) for _, one in least], len(found))

    def _meeting(self, wanted: Wanted) -> Iterator[Client | Held]:
        who = _principal(wanted.user) if wanted.user else None
        filters = {wanted.topic} if wanted.topic else None
        if filters is not None and not is_filter(wanted.topic):
            # One walk for the topic, whatever the number of clients.
            filters.update(self._edge.fanout.filters(wanted.topic))
        here: list[Client | Held] = [*self._clients, *self._held]
        for one in here:
            if (
                one.grant is not None
                and who in (None, one.grant.principal)
                and wanted.client in ("", one.id)
                and (filters is None or not filters.isdisjoint(one.channels))
                and (one.waiting or not wanted.slow)
            ):
                yield one

    def _row(self, one: Client | Held) -> Connection:
        return Connection(
            client=one.id,
            user=str(one.grant.principal if one.grant is not None else ANONYMOUS),
            edge=self._edge.name,
            transport="sse" if isinstance(one, Held) else "websocket",
            codec="json" if isinstance(one, Held) else one.codec.NAME,
            sdk="" if isinstance(one, Held) else one.sdk,
            since=since(one.id),
            subscriptions=len(one.channels),
            filters=first(one.channels),
            waiting=one.waiting,
            round_trip=None if isinstance(one, Held) else one.round_trip,
        )


def _principal(text: str) -> Principal:
    return ANONYMOUS if text == ANONYMOUS.kind else principal_of(text)


def _read(word: bytes | None) -> Said | None:
    try:
        return None if word is None else msgspec.json.decode(word, type=Said)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None  # an edge of another version
