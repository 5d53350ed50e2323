"""Tickets as one edge gives and takes them: at a bounded rate, for one stream of one bearer."""

from __future__ import annotations

import secrets
from collections.abc import Callable

from gateway import limits
from gateway.adapters.log import Ticket, Tickets
from gateway.core.access import Grant
from gateway.errors import BadToken, Busy


class TicketBooth:
    """Whoever has a ticket has had the right to it: it is asked again when it is used."""

    def __init__(self, tickets: Tickets, now: Callable[[], float]) -> None:
        self._tickets = tickets
        self._now = now
        self._second, self._given = 0, 0

    async def give(self, grant: Grant, filter: str, cursor: str) -> str:
        """Return a new ticket; raises :class:`Busy` over ``limits.TICKETS_PER_SECOND``."""
        second = int(self._now())
        if second != self._second:
            self._second, self._given = second, 0
        if self._given >= limits.TICKETS_PER_SECOND:
            raise Busy(f"{limits.TICKETS_PER_SECOND} tickets were given in this second", "ask again", retry_after=1.0)
        self._given += 1
        made = secrets.token_urlsafe(32)
        await self._tickets.put(made, Ticket(filter, grant, cursor), limits.TICKET_LIFE)
        return made

    async def take(self, ticket: str, filter: str) -> tuple[Grant, str]:
        """Return whose ``ticket`` it is, and where the stream begins; it is used up in any case."""
        if not 0 < len(ticket) <= limits.ID_BYTES:
            raise BadToken("that is no ticket", "get one by POST /tickets")
        found = await self._tickets.take(ticket)
        if found.filter != filter:
            raise BadToken("the ticket is for another filter", "get one for this filter by POST /tickets")
        if found.grant.expires is not None and found.grant.expires <= self._now():
            raise BadToken("the token behind the ticket is over", "get a new token, then a ticket")
        return found.grant, found.cursor
