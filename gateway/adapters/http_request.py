"""A request over HTTP: a publish with ``?wait=5s``, whose answer is what a service replied."""

from __future__ import annotations

import asyncio
from typing import Protocol

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from gateway import limits
from gateway.adapters.http_problem import NO_STORE
from gateway.core.event import Publication
from gateway.errors import Refused
from gateway.tables import duration


class Asks(Protocol):
    """What the edge does with a request."""

    async def request(self, token: str, asked: Publication, within: float) -> tuple[str, bytes]:
        """Publish, and return the event's id and the service's reply, JSON; raises ``errors`` only."""


async def answered(request: Request, api: Asks, token: str, asked: Publication) -> Response:
    """Return the reply to ``asked``; raises what ``api`` does, and :class:`ClientDisconnect` if nobody wants it."""
    within = _wait(request)
    work = asyncio.create_task(api.request(token, asked, within), name="request")
    gone = asyncio.create_task(_gone(request), name="client of a request")
    try:
        await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise ClientDisconnect
        id, reply = work.result()
    finally:
        work.cancel()
        gone.cancel()
        await asyncio.gather(work, gone, return_exceptions=True)
    return Response(reply, headers={**NO_STORE, "event-id": id}, media_type="application/json")


def _wait(request: Request) -> float:
    said = request.query_params.getlist("wait")
    try:
        within = duration(", ".join(said))
    except ValueError as e:
        raise Refused(f"wait {e}", "once in a request") from None
    if within > limits.WAIT_MOST:
        raise Refused(f"nobody waits here for {within:g} s", f"wait at most {limits.WAIT_MOST:g} s, then ask again")
    return within


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
