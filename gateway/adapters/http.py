"""The HTTP door: publishing, SSE, health and metrics on Starlette, served by uvicorn beside the WebSocket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from typing import Protocol, cast
from urllib.parse import unquote_to_bytes

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway import limits
from gateway.adapters.http_credentials import bearer, ticket
from gateway.adapters.http_problem import (
    NO_STORE,
    HeadTooLarge,
    Malformed,
    SlowBody,
    as_json,
    failed,
    no_route,
    problem,
)
from gateway.adapters.http_request import Asks, answered
from gateway.core.event import Appended, Publication, traceparent
from gateway.errors import BadTopic, Denied, GatewayError, TooLarge


class Stored(msgspec.Struct, frozen=True):
    """The answer to a publish: where the event stands, and what was promised for it."""

    id: str
    topic: str
    #: Empty for a topic that is not kept.
    epoch: str
    offset: int
    duplicate: bool
    durability: str


class Probed(Protocol):
    """What every process tells about itself."""

    def unready(self) -> list[str]:
        """Return why this process should get no traffic; nothing when it should."""

    def metrics(self) -> tuple[bytes, str]:
        """Return the metrics and their content type."""


class Guarded(Protocol):
    """What a door asks about every request."""

    def refused(self, error: GatewayError) -> None:
        """Count a request that is answered with ``error``."""

    def allows(self, origin: str | None, host: str | None) -> bool:
        """Say whether a page of ``origin`` may ask."""


class Api(Probed, Guarded, Asks, Protocol):
    """What the edge does for an HTTP client. Every method raises ``errors`` only."""

    async def publish(self, token: str, asked: Publication) -> tuple[Appended, str]:
        """Publish; return where it stands and the durability of its application's log."""

    async def watch(self, token: str, filter: str, cursor: str) -> AsyncIterator[bytes]:
        """Return the stream of what passes ``filter``, from ``cursor`` on where it is not empty."""

    def admit_forwarded(self, token: str) -> None:
        """Raise :class:`BadToken` where a request with ``token`` must not reach a service."""

    async def watch_by_ticket(self, ticket: str, filter: str, cursor: str) -> AsyncIterator[bytes]:
        """As ``watch``, for whoever brings a ticket; it is used up."""


async def body_of(request: Request, most: int) -> bytes:
    """Return the request's body.

    Raises :class:`TooLarge` as soon as it has, or is announced to have, more than ``most`` bytes, and
    :class:`SlowBody` after ``limits.BODY_WITHIN``.
    """
    chunks = bytearray()
    too_large = TooLarge(f"the body has more than {most} bytes", "send less")
    if int(request.headers.get("content-length", "0")) > most:
        raise too_large
    try:
        async with asyncio.timeout(limits.BODY_WITHIN):
            async for chunk in request.stream():
                chunks += chunk
                if len(chunks) > most:
                    raise too_large
    except TimeoutError:
        raise SlowBody(f"the body did not come within {limits.BODY_WITHIN:g} s", "send it faster") from None
    return bytes(chunks)


def check_origin(request: Request, api: Guarded) -> None:
    """Raise :class:`Denied` for a page that may not ask."""
    if not api.allows(request.headers.get("origin"), request.headers.get("host")):
        raise Denied("this origin is not allowed", "add it to edge.allowed_origins in gateway.toml")


def routes(api: Api) -> list[Route]:
    """Return the gateway's own routes. Filters are percent-encoded; of two readings of a path the suffix wins."""

    async def publish(request: Request) -> Response:
        asked = Publication(
            request.path_params["topic"],
            await body_of(request, limits.PAYLOAD_BYTES),
            "http",
            type=request.headers.get("content-type", ""),
            id=request.headers.get("event-id", ""),
            idempotency=request.headers.get("idempotency-key", ""),
            # Two of them are joined to none: nobody can say which one is meant.
            traceparent=traceparent(",".join(request.headers.getlist("traceparent"))),
        )
        check_origin(request, api)
        token = bearer(request)
        if "wait" in request.query_params:
            return await answered(request, api, token, asked)
        stored, durability = await api.publish(token, asked)
        at = stored.position
        epoch = str(at.epoch) if at.epoch else ""
        answer = Stored(stored.id, asked.topic, epoch, at.offset, stored.duplicate, durability)
        return as_json(answer, 200 if stored.duplicate else 201)

    async def watch(request: Request) -> Response:
        check_origin(request, api)
        cursor, filter = request.headers.get("last-event-id", ""), request.path_params["filter"]
        if "ticket" in request.query_params:
            stream = await api.watch_by_ticket(ticket(request), filter, cursor)
        else:
            stream = await api.watch(bearer(request), filter, cursor)
        headers = {**NO_STORE, "x-accel-buffering": "no"}
        if request.method == "HEAD":
            return Response(headers=headers, media_type="text/event-stream")
        return Streamed(stream, headers=headers, media_type="text/event-stream")

    return [
        Route("/topics/{filter:path}/events", typed(watch, api), methods=["GET"]),
        Route("/topics/{topic:path}", typed(publish, api), methods=["POST"]),
        *probes(api),
    ]


def probes(process: Probed) -> list[Route]:
    """Return the routes by which an orchestrator and Prometheus look at a process."""

    async def livez(request: Request) -> Response:
        return Response("ok\n", headers=NO_STORE, media_type="text/plain")

    async def readyz(request: Request) -> Response:
        reasons = process.unready()
        text = "\n".join(reasons or [getattr(process, "standing", "ok")]) + "\n"  # a standby bridge says so
        return Response(text, 503 if reasons else 200, NO_STORE, "text/plain")

    async def metrics(request: Request) -> Response:
        text, type = process.metrics()
        return Response(text, headers={**NO_STORE, "content-type": type})

    return [Route("/livez", livez), Route("/readyz", readyz), Route("/metrics", metrics)]


class Streamed(StreamingResponse):
    """A stream; who stops reading it is cut, or he would hold it for ever."""

    #: It has no end of its own: it ends with the server.
    endless = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        connection: _GuardedHttp = scope["state"]["connection"]
        connection.endless = self.endless

        async def within(message: Message) -> None:
            try:
                async with asyncio.timeout(limits.STREAM_WITHIN):
                    await send(message)
            except TimeoutError:
                connection.transport.abort()
            if connection.transport.is_closing():
                raise ClientDisconnect  # or a long past would be read to its end for nobody

        try:
            await super().__call__(scope, receive, within)
        except ClientDisconnect:
            pass
        finally:
            # A stream that is cut while its block is being sent does not hear of it otherwise.
            if isinstance(self.body_iterator, AsyncGenerator):
                await self.body_iterator.aclose()


Endpoint = Callable[[Request], Awaitable[Response]]
Routes = list[Route]


def _check_path(request: Request) -> None:
    # Two paths must not be one topic: uvicorn puts U+FFFD for what is not UTF-8, and Starlette's routes, which end in
    # ``$``, drop a line break at the end.
    try:
        path = unquote_to_bytes(request.scope["raw_path"]).decode()
    except UnicodeDecodeError:
        raise BadTopic("the path is not UTF-8", "percent-encode the UTF-8 bytes of the topic") from None
    if not path.isprintable():
        raise BadTopic("the path has a control character", "use printable characters")


def typed(endpoint: Endpoint, api: Guarded) -> Endpoint:
    """Let ``endpoint`` raise ``errors`` and answer with problem+json."""

    async def answer(request: Request) -> Response:
        try:
            _check_path(request)
            return await endpoint(request)
        except GatewayError as e:
            api.refused(e)
            return problem(e)
        except ClientDisconnect:
            return Response(status_code=499)  # nobody reads it

    return answer


def application(api: Api, *more: Route) -> Starlette:
    """Return the ASGI application of the edge, ``more`` routes of its own among them."""
    return _application([*routes(api), *more], Middleware(_Cors, api=api))


def health(process: Probed, *more: Route) -> Starlette:
    """Return the ASGI application of a process that is no edge, ``more`` routes of its own among them."""
    return _application([*probes(process), *more])


def _application(routes: list[Route], *middleware: Middleware) -> Starlette:
    app = Starlette(
        routes=routes, middleware=middleware, exception_handlers={HTTPException: no_route, Exception: failed}
    )
    # A redirect would send the client wherever its own Host header says.
    app.router.redirect_slashes = False
    return app


class _Cors(CORSMiddleware):
    """What a browser asks before a page of another origin may read an answer (WHATWG Fetch, 3.3)."""

    def __init__(self, app: ASGIApp, api: Api) -> None:
        asked = ["authorization", "content-type", "event-id", "idempotency-key", "if-none-match"]
        asked += ["last-event-id", "traceparent"]
        can = ("GET", "POST", "PUT", "PATCH", "DELETE")
        told = ("etag", "event-id", "event-position", "retry-after")
        super().__init__(app, allow_methods=can, allow_headers=asked, expose_headers=told, max_age=600)
        self._api = api

    def is_allowed_origin(self, origin: str) -> bool:
        return self._api.allows(origin, None)


class _GuardedHttp(HttpToolsProtocol):
    """uvicorn's HTTP with what it lacks: bounds on a request head, in time and bytes, and an end to endless streams."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        #: Its response ends with the server.
        self.endless = False
        self._refusal: GatewayError | None = None
        self._in_head, self._head_bytes = False, 0
        self._guard: asyncio.TimerHandle | None = None
        self._await_head()

    def _await_head(self) -> None:
        self._guard = self.loop.call_later(limits.HEAD_WITHIN, self._late)

    def _late(self) -> None:
        # A loop that serves a crowd may not have read what came in time: timers go before sockets. Look at those first.
        self._guard = self.loop.call_later(0.01, self.transport.abort)

    def data_received(self, data: bytes) -> None:
        if self._guard is None and self.cycle.response_complete:
            self._await_head()  # a connection's next request may be as slow as its first
        super().data_received(data)
        if self._in_head and not self.transport.is_closing():
            self._head_bytes += len(data)
            if self._head_bytes > limits.HEAD_BYTES:
                self._refusal = _head_too_large()
                self.send_400_response("")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._guard is None:
            self._await_head()
        self._in_head, self._head_bytes = True, 0

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._unguard()
        if len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers) > limits.HEAD_BYTES:
            self._refusal = _head_too_large()
            raise self._refusal  # out of a parser's callback: it ends in `send_400_response`
        self.scope["state"]["connection"] = self
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        answer = problem(self._refusal or Malformed(msg, "send HTTP/1.1"))
        lines = [b"HTTP/1.1 %d %s" % (answer.status_code, HTTPStatus(answer.status_code).phrase.encode())]
        lines += [b"%s: %s" % pair for pair in (*answer.raw_headers, (b"connection", b"close"))]
        self.transport.write(b"\r\n".join([*lines, b"", bytes(answer.body)]))
        self.transport.close()

    def shutdown(self) -> None:
        super().shutdown()
        if self.endless and not self.cycle.response_complete:
            # Every send of a stream is whole chunks, so the last one fits in here (RFC 9112, 7.1).
            self.transport.write(b"0\r\n\r\n")
            self.transport.close()
            self.loop.call_later(limits.CLOSE_WITHIN, self.transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        self._unguard()
        super().connection_lost(exc)

    def _unguard(self) -> None:
        if self._guard is not None:
            self._guard.cancel()
            self._guard = None


def _head_too_large() -> GatewayError:
    return HeadTooLarge(f"the request head has more than {limits.HEAD_BYTES} bytes", "send fewer or shorter headers")


class Server(uvicorn.Server):
    """uvicorn without its signal handlers: the process that owns it decides when it ends."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def server(
    app: Starlette,
    websocket: Callable[..., asyncio.Protocol] | None = None,
    *,
    drain: float,
    tls: tuple[str, str] | None = None,
    proxies: Sequence[str] = (),
) -> Server:
    """Return a server for ``app`` and the WebSocket protocol class ``websocket``; run it with ``serve(sockets)``.

    ``tls`` are the paths of certificate and key (PEM); X-Forwarded-For is believed from ``proxies`` alone.
    """
    config = uvicorn.Config(
        app,
        http=_GuardedHttp,
        ws=cast("type[asyncio.Protocol]", websocket) if websocket else "none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=max(1, round(drain)),
        ssl_certfile=tls[0] if tls else None,
        ssl_keyfile=tls[1] if tls else None,
        proxy_headers=bool(proxies),
        forwarded_allow_ips=list(proxies),
    )
    return Server(config)
