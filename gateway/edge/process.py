"""The edge: its doors, and the order in which they open and close."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from contextlib import aclosing

import msgspec

from gateway import limits
from gateway.adapters import (
    http,
    http_api,
    http_connections,
    http_document,
    http_groups,
    http_letters,
    http_pages,
    http_past,
    http_rights,
    websocket,
)
from gateway.adapters.http_forward import Forward
from gateway.adapters.http_problem import Problem
from gateway.adapters.identity import new_id
from gateway.adapters.listening import listen
from gateway.adapters.log import Log
from gateway.adapters.tokens import Grant, Verifier
from gateway.core import cursor, handshake
from gateway.core.access import Principal, Revocation
from gateway.core.asyncapi import AsyncApi, Document, Reached
from gateway.core.declared import Declared
from gateway.core.event import Appended, Position, Publication, Record
from gateway.core.openapi import OpenApi
from gateway.core.origin import Origins
from gateway.core.rate import UNBOUNDED, Rate, Rates
from gateway.edge import past
from gateway.edge.api import Servers
from gateway.edge.client import Client
from gateway.edge.connections import Connections
from gateway.edge.desk import Desk
from gateway.edge.groups import Groups
from gateway.edge.measures import export
from gateway.edge.operations import operations
from gateway.edge.redeciding import redecide
from gateway.edge.revocations import Good, Held, revoke
from gateway.edge.shared import Shared
from gateway.edge.subscribing import CODECS
from gateway.edge.tickets import TicketBooth
from gateway.edge.watch import watch
from gateway.errors import BadToken, TooFast, Unavailable
from gateway.letters import Letters
from gateway.settings import loopback

_log = logging.getLogger("gateway.edge")

WEBSOCKET_PATH = "/connection/websocket"


class Edge(Shared):
    """One edge process: the doors, and what their clients share."""

    def __init__(
        self,
        log: Log,
        declared: Declared,
        verifier: Verifier,
        *,
        anonymous: bool = False,
        rate: Rate = UNBOUNDED,
        connections_per_user: int = 0,
        origins: Iterable[str] = (),
        letters: Letters | None = None,
        services: Mapping[str, str] | None = None,
        asyncapi: AsyncApi | None = None,
        openapi: OpenApi | None = None,
    ) -> None:
        super().__init__(
            log, declared, verifier, anonymous=anonymous, rate=rate, connections_per_user=connections_per_user
        )
        self._rates = Rates(rate)
        self._asyncapi = asyncapi or AsyncApi(declared, version=self.version, anonymous=anonymous)
        self._openapi = openapi or OpenApi(operations(anonymous=anonymous), Problem, version=self.version)
        self._allowed = tuple(origins)
        self._origins = Origins(self._allowed, local=False)
        self.desk = Desk(
            letters or Letters(log, declared), self.admit, self.allows, self.refused, self.now, self.revocations.good
        )
        #: Group → where its routes answer, ``http://HOST:PORT``.
        self._services = services or {}
        self._booth = TicketBooth(log.tickets, self.now)
        self._clients: set[Client] = set()
        #: Streams of SSE.
        self._held: set[Held] = set()
        self._servers = Servers(self, self._clients, self._held)
        self.server = self._servers.server
        self._connections = Connections(self.desk, self, self._clients, self._held, self._servers.surveying)
        self._draining = False
        #: Where it listens, once it does.
        self.port = 0
        export(self)

    # --- the process ---

    async def run(
        self,
        host: str,
        port: int,
        stop: asyncio.Event,
        ready: asyncio.Event | None = None,
        *,
        tls: tuple[str, str] | None = None,
        proxies: Sequence[str] = (),
        share: bool = False,
    ) -> None:
        """Serve until ``stop`` is set, then tell every client to come back, and end.

        Start: log, then the socket. End: new connections are refused, clients drained a slice at a time, tasks
        cancelled, then the log. With ``share`` other edges listen at the address too. Raises as :func:`listen`.
        """
        self._origins = Origins(self._allowed, local=loopback(host) and not proxies)
        sock = listen(host, port, share=share)
        self.port = sock.getsockname()[1]
        forward = Forward(self._services, self)
        server = http.server(
            http.application(self, *self.routes, *forward.routes, *http_pages.routes()),
            websocket.protocol(self._welcome, self.loop, self.metrics_of.closed),
            drain=limits.DRAIN_WITHIN,
            tls=tls,
            proxies=proxies,
        )
        async with asyncio.TaskGroup() as group:
            log = group.create_task(self.log.run(), name="log")
            keys = group.create_task(self._verifier.run(), name="keys")
            revoked = group.create_task(self.revocations.run(), name="revocations")
            await self._knows_revoked()
            idle = group.create_task(self.readers.stop_idle(), name="idle-readers")
            present = group.create_task(self.presence.run(), name="presence")
            among = group.create_task(self._servers.run(), name="edges")
            delay = group.create_task(self.metrics_of.watch_loop(), name="loop-delay")
            serving = group.create_task(server.serve([sock]), name="http")
            if ready is not None:
                ready.set()
            _log.info("listening on %s:%d", host, port)
            await stop.wait()
            self._draining = True
            if share:
                # The kernel would go on giving us our part of those who come back; now the others get it.
                for listener in server.servers:
                    listener.close()
            await self._drain()
            self.requests.end()
            await self.desk.letters.end()
            server.should_exit = True
            await serving
            await forward.aclose()
            idle.cancel()
            present.cancel()
            among.cancel()
            delay.cancel()
            await self.presence.end()
            await self._servers.end()
            keys.cancel()
            revoked.cancel()
            await self.end()
            log.cancel()

    async def _knows_revoked(self) -> None:
        """Wait until everybody with a token would not be told to come back; not for ever: others need none."""
        try:
            async with asyncio.timeout(limits.READY_WITHIN):
                await self.revocations.known.wait()
        except TimeoutError:
            _log.warning("what was revoked is not known yet: who brings a token is told to come back")

    async def _drain(self) -> None:
        clients = list(self._clients)
        slices = 20
        size = max(1, -(-len(clients) // slices))
        for start in range(0, len(clients), size):
            for client in clients[start : start + size]:
                client.connection.shutdown()
            await asyncio.sleep(limits.DRAIN_WITHIN / slices / 2)

    @property
    def routes(self) -> http.Routes:
        """What is asked beside publishing, events and probes; ``edge/operations`` tells of all of them."""
        more = (*http_document.routes(self), *http_past.routes(self), *http_letters.routes(self.desk))
        more += (*http_groups.routes(Groups(self.desk, self.log)), *http_connections.routes(self._connections))
        return [*more, *http_rights.routes(self), *http_api.routes(self)]

    # --- WebSocket clients ---

    def _welcome(
        self, connection: websocket.Connection, request: handshake.Request
    ) -> websocket.Client | handshake.Refused:
        if request.path != WEBSOCKET_PATH:
            return handshake.Refused(404, f"WebSocket clients connect to {WEBSOCKET_PATH}")
        if self._draining:
            return handshake.Refused(503, "this server is going down; come back at once: another one is up")
        if not self.allows(request.header("origin"), request.header("host")):
            self.metrics_of.refused.labels("origin").inc()
            _log.info("refused a page of %r: it is not in edge.allowed_origins", request.header("origin"))
            return handshake.Refused(403, "this origin is not allowed; add it to edge.allowed_origins in gateway.toml")
        subprotocol = handshake.choose(request, tuple(CODECS))
        client = Client(self, connection, new_id(), self._clients.discard, subprotocol)
        self._clients.add(client)
        return client

    def allows(self, origin: str | None, host: str | None) -> bool:
        return self._origins.allows(origin, host)

    def send_away(self, good: Good) -> int:
        streams = [held for held in self._held if not good(held.grant)]
        clients = [one for one in self._clients if one.grant is not None and not good(one.grant)]
        for held in streams:
            held.finish()
        for client in clients:
            client.revoked()
        for client in list(self._clients):
            client.permits_revoked(good)
        return len(streams) + len(clients)

    def redeclare(self, new: Declared, asyncapi: AsyncApi) -> tuple[int, int]:
        """Declare what ``new`` does from now on; return how many subscriptions ended, and how many come back."""
        old = self.declared.copy()
        self.declared.become(new)
        self._asyncapi = asyncapi
        return redecide(self, self._clients, self._held, old)

    # --- HTTP clients: see adapters/http.Api ---

    async def publish(self, token: str, asked: Publication) -> tuple[Appended, str]:
        who = self.admit(token).principal
        self._pace(who)
        topic = self.declared.writable(who, asked.topic).topic  # now: while it is stored, it may be declared away
        stored = await self.publisher.publish(who, asked)
        return stored, "none" if topic.ephemeral else self.log.durability(topic.owner)

    def _pace(self, who: Principal) -> None:
        wait = self._rates.take(who, self.loop.time())
        if wait:
            self.metrics_of.rate_limited.labels("http").inc()
            raise TooFast(f"{who} publishes more than {self.rate.per_second:g} a second", "wait", retry_after=wait)

    async def request(self, token: str, asked: Publication, within: float) -> tuple[str, bytes]:
        grant = self.admit(token)
        self._pace(grant.principal)
        stored, reply = await self.requests.ask(grant.principal, asked, within)
        if token:
            self.revocations.check(grant)  # it may have been revoked while it waited
        return stored.id, reply

    def asyncapi(self, token: str, host: str, secure: bool) -> Document:
        return self._asyncapi.document(self.admit(token).principal, Reached(host, secure, WEBSOCKET_PATH))

    def openapi(self, token: str, host: str, secure: bool) -> Document:
        return self._openapi.document(self.admit(token).principal, Reached(host, secure, WEBSOCKET_PATH))

    async def watch(self, token: str, filter: str, cursor_text: str) -> AsyncIterator[bytes]:
        return await self._watch(self.admit(token), filter, cursor_text)

    async def watch_by_ticket(self, ticket: str, filter: str, cursor_text: str) -> AsyncIterator[bytes]:
        grant, begin = await self._booth.take(ticket, filter)
        self.revocations.check(grant)
        return await self._watch(grant, filter, cursor_text or begin)

    async def ticket(self, token: str, filter: str, cursor_text: str) -> str:
        grant = self.admit(token)
        met = self.declared.readable(grant.principal, filter)
        if cursor_text:
            cursor.parse(cursor_text, self.declared.places(met))
        return await self._booth.give(grant, filter, cursor_text)

    async def revoke(self, token: str, whence: str, asked: http_rights.Revoke) -> Revocation:
        by = self.desk.allowed(token, whence, "revocations", "make")
        return await revoke(self.log.control, asked.what, asked.name, asked.seconds, by)

    async def _watch(self, grant: Grant, filter: str, cursor_text: str) -> AsyncIterator[bytes]:
        generation = self.declared.generation
        met = self.declared.readable(grant.principal, filter)
        since = cursor.parse(cursor_text, self.declared.places(met)) if cursor_text else None
        feeds = await self.readers.feeds_of(met)
        last = functools.partial(self.last_values, met, filter)
        seconds = None if grant.expires is None else grant.expires - self.now()
        held = Held(new_id(), grant, filter, generation)
        stream = watch(self.log, self.fanout, filter, met, feeds, since, last, held, self.metrics_of, seconds)
        return self._leaving(held, stream)

    async def _leaving(self, held: Held, stream: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
        kind = self.census.kind("sse", "")
        kind.connections += 1
        kind.subscriptions += 1
        self._held.add(held)  # here, for a stream that nobody reads (HEAD) is never begun and never left
        try:
            if not self.revocations.good(held.grant) or held.generation != self.declared.generation:
                return
            async with aclosing(stream):
                async for block in stream:
                    yield block
        finally:
            self._held.discard(held)
            kind.connections -= 1
            kind.subscriptions -= 1

    async def last_value(self, token: str, topic: str) -> Record:
        return await past.last_value(self, self.admit(token).principal, topic)

    async def history(
        self, token: str, topic: str, since: Position | None, limit: int, reverse: bool
    ) -> tuple[list[msgspec.Raw], Position]:
        found = await past.history(self, self.admit(token).principal, topic, since, limit, reverse)
        return found.publications(), found.top

    def admit_forwarded(self, token: str) -> None:
        """Raise :class:`BadToken` where ``token`` was revoked: services hear nothing of that. The rest they judge."""
        try:
            grant = self._verifier.verify(token, self.now())
        except (BadToken, Unavailable):
            return
        self.revocations.check(grant)

    def unready(self) -> list[str]:
        reasons = ["draining: this process is going down"] if self._draining else []
        if not self.revocations.known.is_set():
            reasons.append("revocations: not read yet")
        return reasons + self.log.unready()

    def metrics(self) -> tuple[bytes, str]:
        return self.metrics_of.render()
