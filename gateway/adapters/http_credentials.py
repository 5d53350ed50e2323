"""What an HTTP request brings to say who it is from: a token, an API key, or a one-use ticket."""

from __future__ import annotations

from typing import Final

from starlette.requests import Request

from gateway.errors import BadToken

#: How every API key of ours begins.
API_KEY: Final = "gwk_"


def bearer(request: Request) -> str:
    """Return what the request brings, empty where that is nothing; raises :class:`BadToken`.

    A token or an API key by ``Authorization: Bearer``; an API key by ``X-API-Key`` or ``Authorization: apikey``. Never
    by the query, which ends in logs and histories.
    """
    brought = [*request.headers.getlist("authorization"), *request.headers.getlist("x-api-key")]
    if len(brought) > 1:
        # Proxies and servers differ in which of two they read.
        raise BadToken("the request says twice who it is from", "send one Authorization or one X-API-Key header")
    header = request.headers.get("authorization", "")
    scheme, _, token = header.partition(" ")
    if header and (scheme.lower() not in ("bearer", "apikey") or not token.strip()):
        raise BadToken("the Authorization header is not Bearer", "send Authorization: Bearer TOKEN")
    key = request.headers.get("x-api-key", token if scheme.lower() == "apikey" else "").strip()
    if (key or "x-api-key" in request.headers) and not key.startswith(API_KEY):
        raise BadToken("that is no API key", "make one with `gateway token --api-key NAME`")
    return token.strip() or key


def ticket(request: Request) -> str:
    """Return the ticket of the query; raises :class:`BadToken` where it is not all that the request brings."""
    found = request.query_params.getlist("ticket")
    if len(found) > 1 or request.method != "GET" or bearer(request):
        raise BadToken("a ticket comes alone", "send one ticket, by GET, and no Authorization header")
    return found[0]
