"""The edge: what its doors share, and the order in which it starts and ends."""

from __future__ import annotations

import asyncio
import functools
import logging
import random
import time
from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping, Sequence
from importlib.metadata import version
from typing import Any

import msgspec

from gateway import limits
from gateway.adapters import http, websocket
from gateway.adapters.identity import new_id
from gateway.adapters.log import Log
from gateway.adapters.metrics import EdgeMetrics
from gateway.adapters.tokens import Grant, Verifier
from gateway.core import cursor, handshake, wire
from gateway.core.access import ANONYMOUS, Principal
from gateway.core.declared import Declared, Found
from gateway.core.event import Appended, Partition, Position, Publication, Record
from gateway.core.explain import explain
from gateway.core.fanout import Fanout
from gateway.core.origin import Origins
from gateway.core.topic import matches
from gateway.edge.client import Client, decode_call
from gateway.edge.feed import Feed
from gateway.edge.publisher import Publisher
from gateway.edge.watch import watch
from gateway.errors import BadToken, GatewayError, Refused, Unavailable
from gateway.settings import loopback

_log = logging.getLogger("gateway.edge")

WEBSOCKET_PATH = "/connection/websocket"


class NoSuchMethod(Refused):
    """An rpc by a name that nothing here answers to."""

    code = "no_such_method"
    status = 404
    reply = 104


class _Publish(msgspec.Struct, frozen=True):
    """The argument of the rpc ``publish``."""

    topic: str
    data: msgspec.Raw
    id: str = ""
    idempotency_key: str = ""


class _Explain(msgspec.Struct, frozen=True):
    """The argument of the rpc ``explain``."""

    topic: str


class Edge:
    """One edge process. It holds nothing that another edge, or a new one, could not read from the log."""

    def __init__(
        self, log: Log, declared: Declared, verifier: Verifier, *, anonymous: bool = False, origins: Iterable[str] = ()
    ) -> None:
        self.log = log
        self.declared = declared
        self.fanout = Fanout()
        self.metrics_of = EdgeMetrics()
        self.publisher = Publisher(declared, log, lambda via: self.metrics_of.published.labels(via).inc())
        self.version = version("topic-gateway")
        self._verifier = verifier
        self._anonymous = anonymous
        self._origins = tuple(origins)
        #: Only this machine can reach it.
        self._local = False
        self._feeds: dict[Partition, Feed] = {}
        self._readers: dict[Partition, asyncio.Task[None]] = {}
        self._idle_since: dict[Partition, float] = {}
        self._clients: set[Client] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._draining = False
        #: Where it listens, once it does.
        self.port = 0
        gauge = self.metrics_of.gauge
        gauge("gateway_connections", "WebSocket clients", lambda: len(self._clients))
        gauge("gateway_filters", "Filters that somebody watches", lambda: len(self.fanout))
        gauge("gateway_readers", "Partitions that this edge reads", lambda: len(self._readers))
        gauge("gateway_encoded", "Frames made, once per filter and codec", lambda: self.fanout.encoded)
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
        self.loop = asyncio.get_running_loop()
        self._local = loopback(host) and not proxies
        sock = http.listen(host, port)
        self.port = sock.getsockname()[1]
        server = http.server(
            http.application(self),
            websocket.protocol(self._welcome, self.loop),
            drain=limits.DRAIN_WITHIN,
            tls=tls,
            proxies=proxies,
        )
        async with asyncio.TaskGroup() as group:
            log = group.create_task(self.log.run(), name="log")
            idle = group.create_task(self._stop_idle_readers(), name="idle-readers")
            serving = group.create_task(server.serve([sock]), name="http")
            if ready is not None:
                ready.set()
            _log.info("listening on %s:%d", host, port)
            await stop.wait()
            self._draining = True
            await self._drain()
            server.should_exit = True
            await serving
            for task in (idle, *self._readers.values(), *self._tasks):
                task.cancel()
            await asyncio.gather(*self._readers.values(), *self._tasks, return_exceptions=True)
            log.cancel()

    async def _drain(self) -> None:
        clients = list(self._clients)
        slices = 20
        size = max(1, -(-len(clients) // slices))
        for start in range(0, len(clients), size):
            for client in clients[start : start + size]:
                client.connection.shutdown()
            await asyncio.sleep(limits.DRAIN_WITHIN / slices / 2)

    def now(self) -> float:
        return time.time()

    def random(self) -> float:
        return random.random()  # noqa: S311 - spreads pings over time; nothing secret hangs on it

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run ``work`` as a task of this edge. An error in our own code is logged and counted, and ends that task."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.metrics_of.failures.inc()
            _log.error("task %s failed", task.get_name(), exc_info=error)

    # --- readers ---

    def feed(self, partition: Partition) -> Feed:
        """Return the feed of ``partition``; its reader starts with the first who asks."""
        feed = self._feeds.get(partition)
        if feed is None:
            feed = self._feeds[partition] = Feed(
                self.log, partition, self.fanout, self.metrics_of.latency.observe, self.spawn
            )
            reader = self.spawn(feed.run(), f"reader-{partition}")
            self._readers[partition] = reader
            reader.add_done_callback(lambda _: self._forget_reader(partition, feed))
        self._idle_since.pop(partition, None)
        return feed

    def _forget_reader(self, partition: Partition, feed: Feed) -> None:
        if self._feeds.get(partition) is feed:
            del self._feeds[partition], self._readers[partition]
        if not self._draining:
            feed.end()

    async def feeds_of(self, met: list[Found]) -> list[Feed]:
        """Return the feeds of all that ``met`` may reach, ready; raises :class:`Unavailable`."""
        feeds = [self.feed(partition) for partition in sorted(self.declared.places(met))]
        try:
            async with asyncio.timeout(limits.READY_WITHIN):
                for feed in feeds:
                    await feed.ready.wait()
        except TimeoutError:
            raise Unavailable("the log cannot be read now", "subscribe again", retry_after=1.0) from None
        return feeds

    async def _stop_idle_readers(self) -> None:
        while True:
            await asyncio.sleep(limits.READER_IDLE / 10)
            now = self.loop.time()
            for partition, reader in list(self._readers.items()):
                if self.fanout.wanted(partition):
                    self._idle_since.pop(partition, None)
                elif now - self._idle_since.setdefault(partition, now) > limits.READER_IDLE:
                    # Forgotten before it has ended: whoever comes meanwhile must not join a feed that nobody reads.
                    del self._feeds[partition], self._readers[partition], self._idle_since[partition]
                    reader.cancel()

    async def last_values(self, met: list[Found], filter: str, start: Mapping[Partition, Position]) -> list[Record]:
        """Return the last values that ``filter`` lets through; their publications move no position.

        A value newer than ``start`` is left out: it comes, or came, to whoever reads on from there.
        """
        values: list[Record] = []
        for found in met:
            if not found.topic.retain:
                continue
            for partition in sorted(self.declared.places([found])):
                topics = [filter] if found.key and filter == found.key else None
                for record in await self.log.last(partition, topics, limits.LAST_VALUES - len(values)):
                    if record.offset > start[partition].offset:
                        continue
                    if matches(filter, record.event.topic) and matches(found.topic.filter, record.event.topic):
                        record.pub = wire.event_publication(record.event)
                        values.append(record)
        return values

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
        client = Client(self, connection, new_id())
        self._clients.add(client)
        return client

    def allows(self, origin: str | None, host: str | None) -> bool:
        return Origins(self._origins, local=self._local).allows(origin, host)

    def forget(self, client: Client) -> None:
        self._clients.discard(client)

    def admit(self, token: str) -> Grant:
        """Return who ``token`` names; raises :class:`BadToken` or :class:`TokenExpired`."""
        if token:
            return self._verifier.verify(token, self.now())
        if not self._anonymous:
            raise BadToken("a token is needed", "make one with `gateway token`, or set edge.anonymous = true")
        return Grant(ANONYMOUS, None)

    async def call(self, who: Principal, method: str, data: bytes) -> bytes:
        """Answer an rpc of ``who`` with JSON."""
        if method == "publish":
            asked: _Publish = decode_call(data, _Publish)
            publication = Publication(
                asked.topic, bytes(asked.data), "ws", id=asked.id, idempotency=asked.idempotency_key
            )
            stored = await self.publisher.publish(who, publication)
            at = stored.position
            return msgspec.json.encode(wire.PublishResult(stored.id, at.offset, str(at.epoch), stored.duplicate))
        if method == "explain":
            subject: _Explain = decode_call(data, _Explain)
            return msgspec.json.encode(explain(self.declared, subject.topic, who))
        raise NoSuchMethod(f"there is no method {method[:60]!r}", "the methods are publish and explain")

    # --- HTTP clients: see adapters/http.Api ---

    async def publish(self, token: str, asked: Publication) -> tuple[Appended, str]:
        who = self.admit(token).principal
        stored = await self.publisher.publish(who, asked)
        found = self.declared.find(asked.topic)
        return stored, "none" if found.topic.ephemeral else self.log.durability(found.topic.owner)

    async def watch(self, token: str, filter: str, cursor_text: str) -> AsyncIterator[bytes]:
        grant = self.admit(token)
        met = self.declared.readable(grant.principal, filter)
        since = cursor.parse(cursor_text, self.declared.places(met)) if cursor_text else None
        feeds = await self.feeds_of(met)
        last = functools.partial(self.last_values, met, filter)
        seconds = None if grant.expires is None else grant.expires - self.now()
        return watch(self.log, self.fanout, filter, met, feeds, since, last, seconds)

    def refused(self, error: GatewayError) -> None:
        self.metrics_of.refused.labels(error.code).inc()

    def unready(self) -> list[str]:
        reasons = ["draining: this process is going down"] if self._draining else []
        return reasons + self.log.unready()

    def metrics(self) -> tuple[bytes, str]:
        return self.metrics_of.render()
