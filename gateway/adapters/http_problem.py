"""What a refused HTTP request hears: the error as problem+json (RFC 9457)."""

from __future__ import annotations

from typing import cast

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from gateway.errors import BadToken, GatewayError, Refused, RequestFailed, TooLarge

NO_STORE = {"cache-control": "no-store", "x-content-type-options": "nosniff"}


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """An error as RFC 9457 wants it."""

    type: str
    title: str
    status: int
    detail: str
    retryable: bool
    retry_after: float | None = None
    #: Of the event that a request became.
    event_id: str = ""


def problem(error: GatewayError) -> Response:
    """Return ``error`` as problem+json, with Retry-After and WWW-Authenticate where they belong."""
    headers = dict(NO_STORE)
    after = error.retry_after if error.retry_after is not None else 1.0 if error.retry else None
    if after is not None:
        headers["retry-after"] = str(max(1, round(after)))
    if isinstance(error, BadToken):
        headers["www-authenticate"] = "Bearer"
    event_id = ""
    if isinstance(error, RequestFailed):
        event_id = headers["event-id"] = error.event_id
    title = (type(error).__doc__ or error.code).splitlines()[0].rstrip(".")
    body = Problem(f"urn:topic-gateway:{error.code}", title, error.status, str(error), error.retry, after, event_id)
    return as_json(body, error.status, headers, "application/problem+json")


def as_json(
    body: msgspec.Struct, status: int, headers: dict[str, str] | None = None, type: str = "application/json"
) -> Response:
    return Response(msgspec.json.encode(body), status, headers or NO_STORE, type)


class SlowBody(Refused):
    """A request body that did not come in time."""

    code = "slow_body"
    status = 408


class Malformed(Refused):
    """A request that is not HTTP/1.1."""

    code = "bad_request"


class HeadTooLarge(TooLarge):
    """A request head over its bound."""

    code = "head_too_large"
    status = 431


class NoRoute(GatewayError):
    """No such path or method."""

    code = "no_route"
    status = 404
    whose = "caller"

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail, "see /openapi.json for the paths and methods of this server")
        self.status = status  # type: ignore[misc]  # one class for 404 and 405


async def no_route(request: Request, error: Exception) -> Response:
    # Starlette types its error handlers by Exception, and calls this one with HTTPException alone.
    known = cast("HTTPException", error)
    answer = problem(NoRoute(known.status_code, f"{request.method} {request.url.path[:200]}: {known.detail}"))
    answer.headers.update(known.headers or {})
    return answer


async def failed(request: Request, error: Exception) -> Response:
    # Starlette raises it again after this answer, so it is logged.
    return problem(GatewayError("the gateway made a mistake", "report it with the time of the request"))
