"""One-use tickets: what a page takes into its EventSource, which cannot send a token."""

from __future__ import annotations

from hashlib import sha256
from typing import cast

import msgspec

from gateway.adapters.log.link import Link
from gateway.core.access import Grant
from gateway.errors import BadToken

_REMEDY = "get a new one by POST /tickets: it is good once, and not for long"


class Ticket(msgspec.Struct, frozen=True):
    """What a ticket is good for: one filter, as one bearer."""

    filter: str
    grant: Grant
    #: Where the stream begins, as `Last-Event-ID` has it; empty where it begins now.
    cursor: str = ""


class Tickets:
    """The tickets of one gateway. `Log.tickets` is one; its methods raise `Unavailable` while the server is away."""

    def __init__(self, link: Link, gateway: str) -> None:
        self._link = link
        self._gateway = gateway

    async def put(self, secret: str, ticket: Ticket, seconds: float) -> None:
        """Keep ``ticket`` for whoever brings ``secret`` within so many seconds; the server sees its hash alone."""
        await self._link.ask("SET", self._key(secret), msgspec.msgpack.encode(ticket), "PX", int(seconds * 1000))

    async def take(self, secret: str) -> Ticket:
        """Return the ticket and end it, in one command (GETDEL): two who bring it are not both let in.

        Raises :class:`BadToken` where there is none.
        """
        found = cast("bytes | None", await self._link.ask("GETDEL", self._key(secret)))
        if found is None:
            raise BadToken("the ticket is unknown, used, or too old", _REMEDY)
        return read_ticket(found)

    def _key(self, secret: str) -> str:
        # Not the ticket itself: MONITOR, slow logs and copies of the data show keys.
        return f"{{{self._gateway}}}:ticket:{sha256(secret.encode(errors='replace')).hexdigest()}"


def read_ticket(data: bytes) -> Ticket:
    """Return the ticket that was kept as ``data``; raises :class:`BadToken` where somebody else wrote it."""
    try:
        return msgspec.msgpack.decode(data, type=Ticket)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise BadToken("the ticket cannot be read", _REMEDY) from None
