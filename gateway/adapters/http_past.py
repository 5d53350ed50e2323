"""The past over HTTP: a topic's last value and its history, with nothing installed but curl."""

from __future__ import annotations

from typing import Final, Protocol
from urllib.parse import quote

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway import limits
from gateway.adapters.http import Guarded, check_origin, typed
from gateway.adapters.http_credentials import bearer
from gateway.core.event import Position, Record
from gateway.core.resume import parse
from gateway.errors import Refused

_JSON: Final = "application/json"
#: What was published is somebody's data, not a page of ours: no browser may run it with this origin's rights.
_HARMLESS: Final = {
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; sandbox",
    "cache-control": "private, no-cache",
    "vary": "authorization, origin",
}


class Past(Guarded, Protocol):
    """What the edge looks up for an HTTP client. Every method raises ``errors`` only."""

    async def last_value(self, token: str, topic: str) -> Record:
        """Return the last value of ``topic``."""

    async def history(
        self, token: str, topic: str, since: Position | None, limit: int, reverse: bool
    ) -> tuple[list[msgspec.Raw], Position]:
        """Return the publications that passed the filter ``topic``, and where the log stands."""


def routes(edge: Past) -> list[Route]:
    """Return the routes; like those of ``adapters/http``, of two readings of a path the suffix wins."""

    async def last(request: Request) -> Response:
        check_origin(request, edge)
        record = await edge.last_value(bearer(request), request.path_params["topic"])
        event, at = record.event, Position(record.epoch, record.offset)
        id = event.id if event.id.isascii() else quote(event.id)  # a header holds no more
        headers = {**_HARMLESS, "event-id": id, "event-position": str(at), "etag": f'"{at}"'}
        if _known(request, headers["etag"]):
            return Response(status_code=304, headers=headers)
        # Set by hand: Starlette would add a charset that nobody declared.
        type = event.meta.type or _JSON
        if not type.isascii():
            type = "application/octet-stream"
        return Response(event.data, headers={**headers, "content-type": type})

    async def history(request: Request) -> Response:
        check_origin(request, edge)
        topic = request.path_params["topic"]
        since, limit, reverse = _asked(request)
        publications, top = await edge.history(bearer(request), topic, since, limit, reverse)
        headers = {**_HARMLESS, "event-position": str(top), "etag": f'W/"{top}"'}
        if _known(request, headers["etag"]):
            return Response(status_code=304, headers=headers)
        answer = {"topic": topic, "epoch": str(top.epoch), "offset": top.offset, "publications": publications}
        return Response(msgspec.json.encode(answer), headers=headers, media_type=_JSON)

    return [
        Route("/topics/{topic:path}/history", typed(history, edge), methods=["GET"]),
        Route("/topics/{topic:path}", typed(last, edge), methods=["GET"]),
    ]


def _asked(request: Request) -> tuple[Position | None, int, bool]:
    query = request.query_params
    if unknown := sorted(set(query) - {"limit", "since", "reverse"}):
        raise Refused(f"there is no parameter {unknown[0][:40]!r}", "use limit, since and reverse")
    limit = query.get("limit", "-1")
    if limit != "-1" and not (limit.isascii() and limit.isdigit() and int(limit[:9]) <= limits.HISTORY_EVENTS):
        raise Refused(f"limit {limit[:20]!r} is no number of events", f"use 0 to {limits.HISTORY_EVENTS}")
    since = None
    if "since" in query:
        epoch, _, offset = query["since"].partition("-")
        since = parse(epoch, int(offset)) if offset.isascii() and offset.isdigit() and len(offset) < 20 else None
        if since is None:
            raise Refused(
                f"since {query['since'][:60]!r} is no position", "use EPOCH-OFFSET, as event-position says it"
            )
    reverse = query.get("reverse", "false")
    if reverse not in ("true", "false"):
        raise Refused(f"reverse {reverse[:20]!r} is neither true nor false", "use true for the newest first")
    return since, int(limit), reverse == "true"


def _known(request: Request, etag: str) -> bool:
    """Say whether the client has this already (RFC 9110, 13.1.2: the comparison is weak)."""
    given = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
    return "*" in given or etag.removeprefix("W/") in given
