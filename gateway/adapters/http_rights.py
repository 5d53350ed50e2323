"""Rights over HTTP: one-use tickets for pages, and revocations for operators."""

from __future__ import annotations

from typing import Annotated, Literal, Protocol, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway import limits
from gateway.adapters.http import Guarded, body_of, check_origin, typed
from gateway.adapters.http_credentials import bearer
from gateway.adapters.http_problem import as_json
from gateway.core.access import Revocation
from gateway.core.payload import check_json
from gateway.errors import BadPayload

T = TypeVar("T", bound=msgspec.Struct)


class Wanted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a ticket is to be good for."""

    filter: str
    #: Where the stream is to begin, as a ``Last-Event-ID``; empty where it begins now.
    last_event_id: str = ""


class Given(msgspec.Struct, frozen=True):
    """A ticket, for ``GET /topics/{filter}/events?ticket=…``, once."""

    ticket: str
    expires_in: float


class Revoke(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is not to be believed any more: the tokens of one principal, one token, or whatever one key vouches for."""

    what: Literal["sub", "jti", "key"]
    #: ``user:alice``; a jti; a key's id.
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    #: By default as long as any token may last.
    seconds: Annotated[int, msgspec.Meta(ge=1, le=limits.TOKEN_LIFE)] = limits.TOKEN_LIFE


class Rights(Guarded, Protocol):
    """What the edge does about rights. Every method raises ``errors`` only."""

    async def ticket(self, token: str, filter: str, cursor: str) -> str:
        """Return a ticket for who may read ``filter``."""

    async def revoke(self, token: str, whence: str, asked: Revoke) -> Revocation:
        """Revoke, for an operator."""


def routes(of: Rights) -> list[Route]:
    async def ticket(request: Request) -> Response:
        check_origin(request, of)
        wanted = await _read(request, Wanted)
        made = await of.ticket(bearer(request), wanted.filter, wanted.last_event_id)
        return as_json(Given(made, limits.TICKET_LIFE), 201)

    async def revoke(request: Request) -> Response:
        check_origin(request, of)
        asked = await _read(request, Revoke)
        whence = request.client.host if request.client else "unknown"
        return as_json(await of.revoke(bearer(request), whence, asked), 201)

    return [
        Route("/tickets", typed(ticket, of), methods=["POST"]),
        Route("/revocations", typed(revoke, of), methods=["POST"]),
    ]


async def _read(request: Request, type: type[T]) -> T:
    data = await body_of(request, limits.RIGHTS_BODY_BYTES)
    try:
        return msgspec.json.decode(check_json(data), type=type)
    except msgspec.ValidationError as e:
        raise BadPayload(f"the body is not what was expected: {e}", "see docs/security.md") from None
