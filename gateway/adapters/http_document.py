"""``/asyncapi.json`` and ``/openapi.json`` on HTTP: whole, or 304 where the client has it (RFC 9110, 13.1.2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.adapters.http import Endpoint, Guarded, check_origin, typed
from gateway.adapters.http_credentials import bearer
from gateway.core.asyncapi import Document


class Described(Guarded, Protocol):
    """Who can say what it offers."""

    def asyncapi(self, token: str, host: str, secure: bool) -> Document:
        """Return what the bearer of ``token``, who asked ``host``, may use of topics; raises :class:`BadToken`."""

    def openapi(self, token: str, host: str, secure: bool) -> Document:
        """Return which routes he may ask, as ``asyncapi`` does."""


def routes(of: Described) -> list[Route]:
    return [
        Route(path, typed(_answered(of, document), of), methods=["GET"])
        for path, document in (("/asyncapi.json", of.asyncapi), ("/openapi.json", of.openapi))
    ]


def _answered(of: Guarded, document: Callable[[str, str, bool], Document]) -> Endpoint:
    async def answer(request: Request) -> Response:
        check_origin(request, of)
        found = document(bearer(request), request.headers.get("host", ""), request.url.scheme == "https")
        # Another document for another token: no shared cache may keep it, and nobody without asking again.
        headers = {"etag": found.etag, "cache-control": "private, no-cache", "vary": "authorization"}
        # Compared weakly (RFC 9110, 8.8.3.2): a proxy that compresses makes a tag weak.
        known = {tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")}
        if not known.isdisjoint({found.etag, "*"}):
            return Response(status_code=304, headers=headers)
        return Response(found.body, headers=headers, media_type="application/json")

    return answer
