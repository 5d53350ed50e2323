"""``/asyncapi.json`` on HTTP: whole, or 304 where the client has it already (RFC 9110, 13.1.2)."""

from __future__ import annotations

from typing import Protocol

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.adapters.http import Guarded, check_origin, typed
from gateway.adapters.http_credentials import bearer
from gateway.core.asyncapi import Document


class Described(Guarded, Protocol):
    """Who can say what it offers."""

    def asyncapi(self, token: str, host: str, secure: bool) -> Document:
        """Return what the bearer of ``token``, who asked ``host``, may use; raises :class:`BadToken`."""


def route(of: Described) -> Route:
    async def asyncapi(request: Request) -> Response:
        check_origin(request, of)
        host, secure = request.headers.get("host", ""), request.url.scheme == "https"
        found = of.asyncapi(bearer(request), host, secure)
        # Another document for another token: no shared cache may keep it, and nobody without asking again.
        headers = {"etag": found.etag, "cache-control": "private, no-cache", "vary": "authorization"}
        # Compared weakly (RFC 9110, 8.8.3.2): a proxy that compresses makes a tag weak.
        known = {tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")}
        if not known.isdisjoint({found.etag, "*"}):
            return Response(status_code=304, headers=headers)
        return Response(found.body, headers=headers, media_type="application/json")

    return Route("/asyncapi.json", typed(asyncapi, of), methods=["GET"])
