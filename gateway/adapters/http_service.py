"""A service's own routes: Starlette's, below ``/APP/SERVICE/``, each asked within bounds and told who asks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import cast

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway import limits
from gateway.adapters.http_bounds import TooSlow, bounded, check_plain, closing, cut, cutting
from gateway.adapters.http_credentials import bearer
from gateway.adapters.http_operation import operations
from gateway.adapters.http_problem import problem
from gateway.adapters.tokens import Verifier
from gateway.core.access import ANONYMOUS
from gateway.errors import (
    Busy,
    Denied,
    GatewayError,
    Misconfigured,
    TooLarge,
    Unavailable,
)
from gateway.service import Service
from gateway.store import Reading, Transaction


class _Said(GatewayError):
    """What a route answers by Starlette's HTTPException."""

    whose = "caller"

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status  # type: ignore[misc]  # one class for whatever a route says
        self.code = "no_route" if status in (404, 405) else "refused"  # type: ignore[misc]  # for the same reason


@asynccontextmanager
async def transaction(request: Request) -> AsyncIterator[Transaction]:
    """The transaction of a route: committed, with what it emits, when the block is left; undone where it raises.

    Raises :class:`Misconfigured` where the service has no database, :class:`Unavailable` where it is away.
    """
    async with request.state.service.transaction() as db:
        yield db


@asynccontextmanager
async def reading(request: Request) -> AsyncIterator[Reading]:
    """What is committed, for a route that only asks."""
    async with request.state.service.reading() as db:
        yield db


async def publish(request: Request, topic: str, payload: object, *, id: str = "") -> str:
    """Publish as the service, without a transaction; returns the event's id once it is as durable as promised.

    ``id``: one that the caller knows, so that publishing again changes nothing; by default a new one. Raises what
    ``Context.emit`` raises, and :class:`Unavailable`.
    """
    return str(await request.state.service.publish(topic, payload, {}, id))


def check(service: Service, group: str) -> None:
    """Raise :class:`Misconfigured` for a route that cannot be served."""
    for route in service.routes:
        if not isinstance(route, Route | Mount):
            raise Misconfigured(
                f"service {group!r}: {route!r} is no route that is served",
                "use Route or Mount of starlette.routing; clients' WebSockets end at the edge",
            )
    for _ in operations(group, service):
        pass  # each is looked at as it comes


def application(service: Service, group: str, verifier: Verifier, state: Mapping[str, object]) -> ASGIApp:
    """Return the ASGI application of the routes of ``service``; raises :class:`Misconfigured`.

    A request's ``state`` has what is in ``state``, and ``principal``: whom its token names, or the anonymous one. A
    route may raise any :class:`GatewayError`, of its own too: it is answered with its ``status`` as problem+json.
    """
    check(service, group)

    async def told(request: Request, error: Exception) -> Response:
        return problem(cast("GatewayError", error))

    async def said(request: Request, error: Exception) -> Response:
        known = cast("HTTPException", error)
        response = problem(_Said(known.status_code, f"{request.method} {request.scope['path'][:200]}: {known.detail}"))
        response.headers.update(known.headers or {})
        return response

    async def failed(request: Request, error: Exception) -> Response:
        # Starlette raises it again after this answer, so it is logged.
        return problem(GatewayError(f"the service {group} made a mistake", "report it with the time of the request"))

    handlers = {GatewayError: told, HTTPException: said, Exception: failed}
    routes = Starlette(routes=service.routes, exception_handlers=handlers)
    # A redirect would send the client wherever its own Host header says.
    routes.router.redirect_slashes = False

    async def admitted(scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        try:
            check_plain(scope["raw_path"])
            if "origin" in request.headers:
                # The edge judges it and takes it away. Who comes past the edge is a page that was never judged.
                raise Denied("pages ask by an edge, not here", "send it to the edge; a proxy of yours removes Origin")
            token = bearer(request)
            who = verifier.verify(token, time.time()).principal if token else ANONYMOUS
        except GatewayError as error:
            await problem(error)(scope, receive, send)
            return
        scope["state"] = {**scope["state"], **state, "principal": who}
        await routes(scope, receive, send)

    return admitted


class Hosted:
    """The place of one service's routes in its process: not open yet, open, then draining. An ASGI application."""

    def __init__(self, group: str) -> None:
        self._group = group
        self._prefix = "/" + group.replace(".", "/")
        self._app: ASGIApp | None = None
        self._note: Callable[[int, float], None] = lambda status, seconds: None
        self._draining = False
        self._running: set[asyncio.Timeout] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def routes(self) -> list[Route]:
        """Both `/APP/SERVICE` and `/APP/SERVICE/` are its route ``/``."""
        return [Route(path, self) for path in (self._prefix, self._prefix + "/{rest:path}")]

    @property
    def running(self) -> int:
        """Requests under way."""
        return len(self._running)

    def open(self, app: ASGIApp, note: Callable[[int, float], None]) -> None:
        """Serve ``app`` from now on; ``note`` hears the status and the seconds of each answer."""
        self._app, self._note = app, note

    def unready(self) -> list[str]:
        return ["draining: this process is going down"] if self._draining else []

    async def drain(self) -> None:
        """Take nothing more; wait for what runs for ``limits.DRAIN_WITHIN``, then cancel it."""
        self._draining = True
        try:
            async with asyncio.timeout(limits.DRAIN_WITHIN):
                await self._idle.wait()
        except TimeoutError:
            for clock in self._running:
                if not clock.expired():
                    clock.reschedule(_at(0))
            try:
                async with asyncio.timeout(limits.CANCEL_AGAIN):
                    await self._idle.wait()
            except TimeoutError:
                pass  # it will not be cancelled; the server ends its connection

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app, loop = self._app, asyncio.get_running_loop()
        refusal = self._refusal(Request(scope))
        if app is None or refusal is not None:
            refusal = refusal or Unavailable(f"{self._group} is not ready yet", "ask again", retry_after=1.0)
            await problem(refusal)(scope, receive, closing(send) if self._draining else send)
            return
        path = scope["path"] if scope["path"] != self._prefix else self._prefix + "/"
        scope = {**scope, "root_path": self._prefix, "app_root_path": self._prefix, "path": path, "path_params": {}}
        del scope["router"]  # ours knows none of its names
        status, began = 0, loop.time()
        outward = cutting(scope, send)

        def until(when: float | None) -> None:
            if not clock.expired():
                clock.reschedule(when)

        async def started(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                until(None)
            await outward(message)

        def heard() -> None:
            if not status:  # else an answer without end would end
                until(_at(limits.ROUTE_WITHIN))

        clock = asyncio.timeout(limits.BODY_WITHIN + limits.ROUTE_WITHIN)
        self._running.add(clock)
        self._idle.clear()
        try:
            async with clock:
                await app(scope, bounded(receive, limits.ROUTE_BODY_BYTES, heard), started)
        except TimeoutError:
            if not clock.expired():
                raise
            if status:
                await cut(scope, receive)
                return
            late = TooSlow(f"{self._group} did not answer in time", "it may be done: look before you repeat it")
            over = Unavailable(f"{self._group} is going down", "send it again", retry_after=1.0)
            response = problem(over if self._draining else late)
            status = response.status_code
            await response(scope, receive, send)
        except ClientDisconnect:
            status = status or 499
            await cut(scope, receive)
        finally:
            self._running.discard(clock)
            if not self._running:
                self._idle.set()
            self._note(status or HTTPStatus.INTERNAL_SERVER_ERROR, loop.time() - began)

    def _refusal(self, request: Request) -> GatewayError | None:
        if self._draining:
            return Unavailable(f"{self._group} is going down", "send it again", retry_after=1.0)
        if len(self._running) >= limits.ROUTES_AT_ONCE:
            return Busy(f"{self._group} runs {limits.ROUTES_AT_ONCE} requests", "send it again later", retry_after=1.0)
        if int(request.headers.get("content-length", "0")) > limits.ROUTE_BODY_BYTES:
            return TooLarge(f"the body has more than {limits.ROUTE_BODY_BYTES} bytes", "send less")
        return None


def _at(seconds: float) -> float:
    return asyncio.get_running_loop().time() + seconds
