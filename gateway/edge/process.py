"""The edge: its doors, and the order in which they open and close."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

from gateway import limits
from gateway.adapters import http, http_document, http_letters, websocket
from gateway.adapters.http_forward import Forward
from gateway.adapters.identity import new_id
from gateway.adapters.log import Log
from gateway.adapters.tokens import Verifier
from gateway.core import cursor, handshake
from gateway.core.asyncapi import AsyncApi, Document, Reached
from gateway.core.declared import Declared
from gateway.core.event import Appended, Publication
from gateway.core.origin import Origins
from gateway.edge.client import Client
from gateway.edge.desk import Desk
from gateway.edge.shared import Shared
from gateway.edge.watch import watch
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
        origins: Iterable[str] = (),
        letters: Letters | None = None,
        services: Mapping[str, str] | None = None,
        asyncapi: AsyncApi | None = None,
    ) -> None:
        super().__init__(log, declared, verifier, anonymous=anonymous)
        self._asyncapi = asyncapi or AsyncApi(declared, version=self.version, anonymous=anonymous)
        self._allowed = tuple(origins)
        self._origins = Origins(self._allowed, local=False)
        self.desk = Desk(letters or Letters(log, declared), self.admit, self.allows, self.refused, self.now)
        #: Group → where its routes answer, ``http://HOST:PORT``.
        self._services = services or {}
        self._clients: set[Client] = set()
        self._draining = False
        #: Where it listens, once it does.
        self.port = 0
        gauge = self.metrics_of.gauge
        gauge("gateway_connections", "WebSocket clients", lambda: len(self._clients))
        gauge("gateway_filters", "Filters that somebody watches", lambda: len(self.fanout))
        gauge("gateway_readers", "Partitions that this edge reads", lambda: len(self.readers))
        gauge("gateway_encoded", "Frames made, once per filter and codec", lambda: self.fanout.encoded)
        gauge("gateway_requests", "Requests that wait for a service's reply", lambda: len(self.requests))
        gauge("gateway_offered", "Frames offered to clients", lambda: self.fanout.offered)

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
    ) -> None:
        """Serve until ``stop`` is set, then tell every client to come back, and end.

        Start: log, then the socket. End: new connections are refused, clients drained a slice at a time, tasks
        cancelled, then the log. Raises :class:`OSError` where the address is taken.
        """
        self._origins = Origins(self._allowed, local=loopback(host) and not proxies)
        sock = http.listen(host, port)
        self.port = sock.getsockname()[1]
        forward = Forward(self._services, self)
        server = http.server(
            http.application(self, http_document.route(self), *http_letters.routes(self.desk), *forward.routes),
            websocket.protocol(self._welcome, self.loop),
            drain=limits.DRAIN_WITHIN,
            tls=tls,
            proxies=proxies,
        )
        async with asyncio.TaskGroup() as group:
            log = group.create_task(self.log.run(), name="log")
            idle = group.create_task(self.readers.stop_idle(), name="idle-readers")
            serving = group.create_task(server.serve([sock]), name="http")
            if ready is not None:
                ready.set()
            _log.info("listening on %s:%d", host, port)
            await stop.wait()
            self._draining = True
            await self._drain()
            self.requests.end()
            await self.desk.letters.end()
            server.should_exit = True
            await serving
            await forward.aclose()
            idle.cancel()
            await self.end()
            log.cancel()

    async def _drain(self) -> None:
        clients = list(self._clients)
        slices = 20
        size = max(1, -(-len(clients) // slices))
        for start in range(0, len(clients), size):
            for client in clients[start : start + size]:
                client.connection.shutdown()
            await asyncio.sleep(limits.DRAIN_WITHIN / slices / 2)

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
        client = Client(self, connection, new_id(), self._clients.discard)
        self._clients.add(client)
        return client

    def allows(self, origin: str | None, host: str | None) -> bool:
        return self._origins.allows(origin, host)

    # --- HTTP clients: see adapters/http.Api ---

    async def publish(self, token: str, asked: Publication) -> tuple[Appended, str]:
        who = self.admit(token).principal
        stored = await self.publisher.publish(who, asked)
        found = self.declared.find(asked.topic)
        return stored, "none" if found.topic.ephemeral else self.log.durability(found.topic.owner)

    async def request(self, token: str, asked: Publication, within: float) -> tuple[str, bytes]:
        stored, reply = await self.requests.ask(self.admit(token).principal, asked, within)
        return stored.id, reply

    def asyncapi(self, token: str, host: str, secure: bool) -> Document:
        return self._asyncapi.document(self.admit(token).principal, Reached(host, secure, WEBSOCKET_PATH))

    async def watch(self, token: str, filter: str, cursor_text: str) -> AsyncIterator[bytes]:
        grant = self.admit(token)
        met = self.declared.readable(grant.principal, filter)
        since = cursor.parse(cursor_text, self.declared.places(met)) if cursor_text else None
        feeds = await self.readers.feeds_of(met)
        last = functools.partial(self.last_values, met, filter)
        seconds = None if grant.expires is None else grant.expires - self.now()
        return watch(self.log, self.fanout, filter, met, feeds, since, last, seconds)

    def unready(self) -> list[str]:
        reasons = ["draining: this process is going down"] if self._draining else []
        return reasons + self.log.unready()

    def metrics(self) -> tuple[bytes, str]:
        return self.metrics_of.render()
