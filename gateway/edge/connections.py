"""The operators' view of connections: this edge's own, and what the others say of theirs within a moment."""

from __future__ import annotations

import heapq
import logging
from collections.abc import Collection, Iterator

import msgspec

from gateway.core.access import ANONYMOUS, Grant, Principal
from gateway.core.connected import Connected, Connection, Said, Wanted, first, order, since, together
from gateway.core.topic import is_filter
from gateway.edge.client import Client
from gateway.edge.desk import Desk
from gateway.edge.presence import principal_of
from gateway.edge.revocations import Held
from gateway.edge.shared import Shared
from gateway.edge.surveying import Surveying
from gateway.errors import GatewayError

_log = logging.getLogger("gateway.edge")

_ASKED = "connections"
_encode = msgspec.json.encode


class Connections:
    """See ``adapters/http_connections``; who may is the desk's decision."""

    def __init__(
        self,
        desk: Desk,
        edge: Shared,
        clients: Collection[Client],
        held: Collection[Held],
        surveying: Surveying,
    ) -> None:
        self._desk, self._edge, self._clients, self._held, self._surveying = desk, edge, clients, held, surveying
        surveying.answer(_ASKED, self._answer)

    def allows(self, origin: str | None, host: str | None) -> bool:
        return self._desk.allows(origin, host)

    def refused(self, error: GatewayError) -> None:
        self._desk.refused(error)

    def check(self, token: str, whence: str) -> Grant:
        return self._desk.admitted(token, whence, "connections", "list")

    async def connected(self, grant: Grant, wanted: Wanted) -> Connected:
        said = {name: _read(word) for name, word in (await self._surveying.ask(_ASKED, _encode(wanted))).items()}
        self._desk.still(grant)
        return together({self._edge.name: self._said(wanted), **said}, wanted.limit)

    async def _answer(self, asked: bytes) -> bytes:
        return _encode(self._said(msgspec.json.decode(asked, type=Wanted)))

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
