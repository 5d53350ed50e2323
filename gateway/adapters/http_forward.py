"""One origin: what is asked below ``/APP/SERVICE`` goes to that service's own process, and its answer comes back."""

from __future__ import annotations

import asyncio
import logging
import re
import ssl
from collections.abc import Iterator, Mapping
from typing import Final

from starlette.requests import ClientDisconnect, Request
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from gateway import limits
from gateway.adapters.http import Api
from gateway.adapters.http_bounds import TooSlow, bounded, check_plain, cut, cutting
from gateway.adapters.http_connection import BrokenOff, Connection, Headers
from gateway.adapters.http_credentials import bearer
from gateway.adapters.http_pool import Connections, NoRoom, NotThere
from gateway.adapters.http_problem import HeadTooLarge, Malformed, problem
from gateway.errors import BadToken, Busy, Denied, GatewayError, Misconfigured, NotAvailable, TooLarge, Unavailable

_log = logging.getLogger("gateway.edge")


_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
#: Of one connection, not of the message (RFC 9110, 7.6.1); and its framing, which each connection has of its own.
_HOP: Final = frozenset(
    b"connection keep-alive proxy-connection proxy-authenticate proxy-authorization proxy-authentication-info te "
    b"trailer transfer-encoding upgrade content-length".split()
)
#: What the edge says itself, has judged, or does itself.
_OURS: Final = frozenset(b"host forwarded x-real-ip origin expect via".split())
_PSEUDONYM: Final = b"1.1 topic-gateway"
_CONTROL: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")

#: What leaves for a service is one request, with one reading, whatever was said to the edge (RFC 9112, 2.2 to 5.5).
_ONE_HEAD: Final = re.compile(
    rb"[A-Z]+ [\x21-\x7e]+ HTTP/1\.1\r\n(?:[!#$%&'*+.^_`|~0-9a-z-]+: [\t\x20-\x7e\x80-\xff]*\r\n)+\r\n"
)


class BadAnswer(Unavailable):
    """A service that broke off before its answer began, or whose answer is not HTTP."""

    code = "bad_answer"
    status = 502


class Looping(Misconfigured):
    """A request that came through an edge already."""

    code = "loop"
    status = 508


class Forward:
    """The services that have routes, and where each answers. Nothing is ever forwarded to anywhere else."""

    def __init__(self, services: Mapping[str, str], api: Api) -> None:
        """``services``: group → ``http://HOST:PORT``."""
        tls = ssl.create_default_context()
        self._upstreams = [_Upstream(group, url, api, tls) for group, url in sorted(services.items())]

    @property
    def routes(self) -> list[Route]:
        return [Route(path, one) for one in self._upstreams for path in (one.prefix, one.prefix + "/{rest:path}")]

    async def aclose(self) -> None:
        for one in self._upstreams:
            one.close()


class _Upstream:
    """One service, as an ASGI application."""

    def __init__(self, group: str, url: str, api: Api, tls: ssl.SSLContext) -> None:
        self.prefix = "/" + group.replace(".", "/")
        self._prefix = self.prefix.encode()
        self._group = group
        self._api = api
        self._url = url
        self._away = False
        self._connections = Connections(url, tls)

    def close(self) -> None:
        self._connections.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            request = self._request(scope, receive)
            connection = await self._taken()
        except GatewayError as error:
            await self._refuse(error, scope, receive, send)
            return
        if scope["state"]["connection"].transport.is_closing():
            self._connections.give(connection)  # it went away while it waited: nobody would read the answer
            return
        connection.begin(scope["method"] == "HEAD")
        # It sends, and then hears whether the client goes away: who reads no more must not keep the service busy.
        saying = asyncio.create_task(request.say(connection), name=f"forward to {self._group}")
        try:
            await self._answer(connection, scope, cutting(scope, send))
        except GatewayError as error:
            await self._refuse(error, scope, receive, send)
        except ClientDisconnect:
            connection.abort()  # before a wait for the client: the service need not go on
            await cut(scope, receive)
        finally:
            # In this order: of a connection that is given back it would end another's request.
            saying.cancel()
            self._connections.give(connection)
            await asyncio.wait({saying})

    async def _refuse(self, error: GatewayError, scope: Scope, receive: Receive, send: Send) -> None:
        self._api.refused(error)
        await problem(error)(scope, receive, send)

    def _request(self, scope: Scope, receive: Receive) -> _Request:
        """Return what the service is asked; raises :class:`GatewayError`."""
        raw, query = scope["raw_path"], scope["query_string"]
        check_plain(raw)
        if raw != self._prefix and not raw.startswith(self._prefix + b"/"):
            raise NotAvailable("this path is written in another way", f"write {self.prefix} without percent signs")
        said: dict[bytes, list[bytes]] = {}
        for name, value in scope["headers"]:
            said.setdefault(name, []).append(value)
        if not self._api.allows(_text(said, b"origin"), _text(said, b"host")):
            raise Denied("this origin is not allowed", "add it to edge.allowed_origins in gateway.toml")
        self._api.admit_forwarded(_token(scope))
        method = scope["method"]
        if method not in _METHODS:
            raise NotAvailable(f"{method[:20]} is not forwarded", f"use {', '.join(_METHODS)}")
        via = b", ".join([*said.get(b"via", ()), _PSEUDONYM])
        if via.count(_PSEUDONYM) > 1:
            raise Looping("the request came back to an edge", f"set services.{self._group}.url to the service itself")
        framing = _framing(said, method)
        headers = [
            *_passed(scope["headers"]),
            (b"host", self._connections.authority),
            (b"via", via),
            (b"x-forwarded-for", (scope["client"] or ("unknown",))[0].encode()),
            (b"x-forwarded-proto", scope["scheme"].encode()),
            (b"x-forwarded-host", said.get(b"host", [b""])[0]),
            *framing,
        ]
        # The bytes as they came: written anew, a path could become another one.
        target = raw + b"?" + query if query else raw
        lines = b"".join([b"%s: %s\r\n" % pair for pair in headers])
        head = b"%s %s HTTP/1.1\r\n%s\r\n" % (method.encode(), target, lines)
        if not _ONE_HEAD.fullmatch(head):
            raise Malformed("this cannot be passed on: a character that HTTP does not know", "send HTTP/1.1")
        return _Request(head, framing, receive)

    async def _taken(self) -> Connection:
        try:
            connection = await self._connections.take()
        except NotThere as error:
            if not self._away:
                _log.warning("%s does not answer at %s: %s", self._group, self._url, error)
            self._away = True
            raise Unavailable(f"{self._group} is not there", "send it again", retry_after=1.0) from None
        except NoRoom:
            raise Busy(
                f"{self._group} has {limits.FORWARDS} requests", "send it again later", retry_after=1.0
            ) from None
        if self._away:
            _log.warning("%s answers again", self._group)
        self._away = False
        return connection

    async def _answer(self, connection: Connection, scope: Scope, outward: Send) -> None:
        """Pass the answer on. Raises :class:`GatewayError` before it began, else :class:`ClientDisconnect`."""
        try:
            await connection.head()
        except TimeoutError:
            raise TooSlow(
                f"{self._group} did not answer in time", "it may be done: look before you repeat it"
            ) from None
        except BrokenOff as error:
            _log.warning("%s broke off: %s", self._group, error)
            raise BadAnswer(f"{self._group} broke off", "it may be done: look before you repeat it") from None
        head = self._head(connection)
        await outward({"type": "http.response.start", "status": connection.status, "headers": head})
        # An endless stream ends well with the server; of anything else a part is not the whole.
        kind = next((value for name, value in head if name == b"content-type"), b"")
        scope["state"]["connection"].endless = kind.startswith(b"text/event-stream")
        more = True
        while more:
            try:
                part, more = await connection.part()
            except (BrokenOff, TimeoutError, GatewayError) as error:
                _log.warning("%s broke off its answer: %s", self._group, str(error) or type(error).__name__)
                raise ClientDisconnect from None
            await outward({"type": "http.response.body", "body": part, "more_body": more})

    def _head(self, answer: Connection) -> Headers:
        raw = answer.headers
        if sum(len(name) + len(value) + 4 for name, value in raw) > limits.HEAD_BYTES:
            raise BadAnswer(f"{self._group} answered with more than {limits.HEAD_BYTES} bytes of headers", "report it")
        if any(_CONTROL.search(value) for _, value in raw):
            raise BadAnswer(f"{self._group} answered with a control character in a header", "report it")
        # Which pages may read it is the edge's to say.
        kept = [(name, value) for name, value in _passed(raw) if not name.startswith(b"access-control-")]
        named = dict(raw)
        if b"content-length" in named and b"transfer-encoding" not in named and answer.status not in (204, 304):
            kept.append((b"content-length", named[b"content-length"]))
        return kept


class _Request:
    """A request on its way to a service: its head, and a body that comes from the client within bounds."""

    def __init__(self, head: bytes, framing: Headers, receive: Receive) -> None:
        self._head = head
        self._chunked = framing[:1] == _CHUNKED
        self._ended = not framing or framing == _EMPTY
        self._receive = receive if self._ended else bounded(receive, limits.ROUTE_BODY_BYTES, self._all)

    def _all(self) -> None:
        self._ended = True

    async def say(self, connection: Connection) -> None:
        """Send it, then wait for the client to go away. What goes wrong is the connection's failure."""
        try:
            await connection.send(self._head)
            while not self._ended:
                message = await self._receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect
                if part := message.get("body"):
                    await connection.send(b"%x\r\n%s\r\n" % (len(part), part) if self._chunked else part)
            if self._chunked:
                await connection.send(b"0\r\n\r\n")
            connection.all_sent()
            while (await self._receive())["type"] != "http.disconnect":
                pass
            raise ClientDisconnect
        except (GatewayError, ClientDisconnect, TimeoutError) as error:
            connection.fail(error)


_CHUNKED: Final = [(b"transfer-encoding", b"chunked")]
_EMPTY: Final = [(b"content-length", b"0")]


def _text(said: Mapping[bytes, list[bytes]], name: bytes) -> str | None:
    return said[name][0].decode("latin-1") if name in said else None


def _token(scope: Scope) -> str:
    """Return what the request is from, as far as it is ours to know: services may take other credentials too."""
    try:
        return bearer(Request(scope))
    except BadToken:
        return ""


def _framing(said: Mapping[bytes, list[bytes]], method: str) -> Headers:
    """Return how long the body is; raises :class:`Malformed` where two readers could find two ends."""
    lengths, codings = said.get(b"content-length", []), said.get(b"transfer-encoding", [])
    if len(lengths) + len(codings) > 1:
        raise Malformed("the body has two lengths", "send Content-Length or Transfer-Encoding, once")
    if codings:
        if codings[0].lower() != b"chunked":
            # We would name chunked alone, and the service could not read it (RFC 9112, 6.1).
            raise Malformed("the body has a transfer coding beside chunked", "send Transfer-Encoding: chunked")
        return _CHUNKED
    if not lengths:
        return _EMPTY if method in ("POST", "PUT", "PATCH") else []
    if not lengths[0].isdigit() or int(lengths[0]) > limits.ROUTE_BODY_BYTES:
        raise TooLarge(f"the body has more than {limits.ROUTE_BODY_BYTES} bytes", "send less")
    return [(b"content-length", lengths[0])]


def _passed(headers: Headers) -> Iterator[tuple[bytes, bytes]]:
    """Yield what is of the message and not of its connection; raises :class:`HeadTooLarge`."""
    named = {
        token.strip().lower() for name, value in headers if name.lower() == b"connection" for token in value.split(b",")
    }
    if len(named) > limits.HEADERS:
        raise HeadTooLarge("the Connection header names too much", "send a shorter one")
    for name, value in headers:
        lower = name.lower()
        if lower in _HOP or lower in _OURS or lower in named or lower.startswith(b"x-forwarded-"):
            continue
        yield lower, value
