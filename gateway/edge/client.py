"""One WebSocket client: what its session decides, performed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from gateway import limits
from gateway.adapters.websocket import Connection
from gateway.core import frame, session, wire
from gateway.core.declared import Found
from gateway.core.event import Event, Partition, Position, Publication, Record
from gateway.core.resume import parse
from gateway.core.session import Attach, Authenticate, Call, Close, Detach, Reply, Session, Step, Store
from gateway.edge.calls import call, waits
from gateway.edge.feed import Feed
from gateway.edge.recovery import missed
from gateway.edge.shared import Shared
from gateway.errors import BadToken, Busy, GatewayError, TokenExpired, Unavailable

CODEC = "json"


class Unrecoverable(GatewayError):
    """The client asked to be refused rather than told ``recovered: false``."""

    code = "unrecoverable_position"
    reply = 112


def encode(filter: str, event: Event, record: Record | None) -> bytes:
    """Return the WebSocket frame of one event for the subscribers of ``filter``."""
    pub = wire.publication(record) if record is not None else wire.event_publication(event)
    return frame.text(wire.push(filter, pub))


class Client:
    """Performs a session's steps. Its tasks belong to the edge and end with the connection."""

    __slots__ = (
        "_asking",
        "_edge",
        "_expires",
        "_gone",
        "_pending",
        "_requests",
        "_session",
        "_timer",
        "connection",
        "offer",
    )

    def __init__(self, edge: Shared, connection: Connection, id: str, gone: Callable[[Client], None]) -> None:
        self.connection = connection
        #: The connection's own: fan-out calls it once per client and batch.
        self.offer = connection.offer
        self._edge = edge
        #: Told when the connection is gone.
        self._gone = gone
        self._session = Session(id)
        self._expires: int | None = None
        self._pending = 0
        #: Subscriptions on their way, by filter: the command's id and who works on it.
        self._asking: dict[str, tuple[int, asyncio.Task[None]]] = {}
        #: Who waits for a service. No set: an empty one takes 150 bytes more, of every client that only watches.
        self._requests: dict[asyncio.Task[Any], None] = {}
        self._timer = edge.loop.call_later(limits.CONNECT_WITHIN, self._tick)

    # --- the connection calls these ---

    def received(self, text: bytes) -> None:
        # Line by line: what the commands after a connect may do is known only when it was answered.
        for line in text.strip(b"\n").split(b"\n"):
            for step in self._session.receive(line):
                self._perform(step)

    def received_binary(self, data: bytes) -> None:
        # Final: an SDK that speaks Protobuf would come back with the same for ever.
        self.connection.close(self._session.close(session.INAPPROPRIATE_PROTOCOL))

    def lost(self) -> None:
        self._timer.cancel()
        for task in (*(task for _, task in self._asking.values()), *self._requests):
            task.cancel()
        for channel in self._session.channels:
            self._edge.fanout.leave(channel, CODEC, self)
        self._session.close(session.NORMAL)
        self._gone(self)

    # --- feeds and fan-out call these ---

    @property
    def busy(self) -> bool:
        return self.connection.busy

    def too_slow(self) -> None:
        self._edge.metrics_of.slow_closes.inc()
        self.connection.too_slow()

    def detach(self, filter: str) -> None:
        self._edge.fanout.leave(filter, CODEC, self)

    def come_back(self, filter: str) -> None:
        self.detach(filter)
        if filter in self._session.channels and filter not in self._asking:
            self._session.ended(filter)
            self.connection.text(wire.push_unsubscribe(filter, session.INSUFFICIENT_STATE, "insufficient state"))

    # --- steps ---

    def _perform(self, step: Step) -> None:
        match step:
            case Reply(reply):
                if reply:
                    self.connection.text(reply)
            case Close():
                self.connection.close(step)
            case Authenticate():
                self._authenticate(step)
            case Attach():
                self._ask(step)
            case Detach(id, channel):
                asking = self._asking.pop(channel, None)
                if asking is not None:
                    asking[1].cancel()
                    # Unanswered, an SDK would wait for it, and give the whole connection up in the end.
                    gone = Unavailable("unsubscribed before the subscription was ready", "subscribe again")
                    self.connection.text(wire.error(asking[0], gone))
                self.detach(channel)
                self.connection.text(wire.reply(id, "unsubscribe"))
            case Store():
                self._spawn(step.id, self._store(step))
            case Call():
                self._spawn(step.id, self._call(step))

    def _authenticate(self, step: Authenticate) -> None:
        try:
            grant = self._edge.admit(step.token)
        except TokenExpired as e:
            # Not a close: the SDK asks its application for another token and comes back with it.
            self._session.state = session.State.FRESH
            self.connection.text(wire.error(step.id, e))
            return
        except BadToken as e:
            self._edge.refused(e)
            self.connection.close(Close(session.INVALID_TOKEN.code, str(e)))
            return
        self._session.connected(grant.principal)
        self._expires = grant.expires
        self._timer.cancel()
        # The first ping at a random moment: clients that came back together must not be pinged together.
        self._later(limits.PING_EVERY * self._edge.random(), self._tick)
        result = wire.ConnectResult(self._session.client, self._edge.version, ping=int(limits.PING_EVERY), pong=True)
        self.connection.text(wire.reply(step.id, "connect", result))

    def _tick(self) -> None:
        self._perform(self._session.ping())
        if self._session.pinged:
            self._later(limits.PONG_WITHIN, self._pong_due)

    def _pong_due(self) -> None:
        if self._session.pinged:
            self._perform(self._session.ping())
        else:
            self._later(limits.PING_EVERY - limits.PONG_WITHIN, self._tick)

    def _expired(self) -> None:
        if self._expires is not None and self._edge.now() < self._expires:
            self._later(0.0, self._expired)  # the loop's clock was ahead of the wall's
        else:
            self.connection.close(self._session.close(session.EXPIRED))

    def _later(self, seconds: float, then: Callable[[], None]) -> None:
        """Do ``then``, unless the token expires before: one timer serves pings and expiry."""
        if self._expires is not None and (left := self._expires - self._edge.now()) <= seconds + 0.001:
            seconds, then = max(0.001, left), self._expired
        self._timer = self._edge.loop.call_later(seconds, then)

    def _spawn(self, id: int, work: Coroutine[Any, Any, bytes]) -> None:
        if self._pending >= limits.CLIENT_PENDING:
            work.close()
            busy = Busy(f"{self._pending} commands of this client wait for an answer", "wait for some of them")
            self.connection.text(wire.error(id, busy))
            return
        self._pending += 1
        self._edge.spawn(self._answer(id, work), f"client-{self._session.client}-{id}")

    async def _answer(self, id: int, work: Coroutine[Any, Any, bytes]) -> None:
        try:
            reply = await work
        except GatewayError as e:
            self._edge.refused(e)
            reply = wire.error(id, e)
        finally:
            self._pending -= 1
        self.connection.text(reply)

    async def _store(self, step: Store) -> bytes:
        await self._edge.publisher.publish(self._session.principal, Publication(step.channel, step.data, "ws"))
        return wire.reply(step.id, "publish")

    async def _call(self, step: Call) -> bytes:
        task = asyncio.current_task()
        if task is not None and waits(step.method):
            if len(self._requests) >= limits.CLIENT_REQUESTS:
                raise Busy(f"{len(self._requests)} requests of this client wait for a service", "wait for some of them")
            self._requests[task] = None
            task.add_done_callback(self._requests.pop)
        edge = self._edge
        answer = await call(edge.publisher, edge.requests, self._session.principal, step.method, step.data)
        return wire.rpc_reply(step.id, answer)

    # --- subscribing ---

    def _ask(self, step: Attach) -> None:
        channel = step.ask.channel
        try:
            met = self._edge.declared.readable(self._session.principal, channel)
        except GatewayError as e:
            self._refuse(step, e)
            return
        task = self._edge.spawn(self._subscribe(step, met), f"subscribe-{self._session.client}")
        self._asking[channel] = (step.id, task)

    def _refuse(self, step: Attach, error: GatewayError) -> None:
        self._edge.refused(error)
        self._session.ended(step.ask.channel)
        self.connection.text(wire.error(step.id, error))

    async def _subscribe(self, step: Attach, met: list[Found]) -> None:
        channel = step.ask.channel
        try:
            feeds = await self._edge.readers.feeds_of(met)
            if len(feeds) == 1 and all(f.topic.history and not f.topic.ephemeral for f in met):
                await self._recoverably(step, met, feeds[0])
            else:
                at = {feed.partition: feed.position for feed in feeds}
                values = await self._edge.last_values(met, channel, at)
                await self._catch_up(step, met, feeds, at, values, None)
        except GatewayError as e:
            self._refuse(step, e)
        finally:
            # An unsubscribe and another subscribe may have put a newer task here.
            if self._asking.get(channel) == (step.id, asyncio.current_task()):
                del self._asking[channel]

    async def _recoverably(self, step: Attach, met: list[Found], feed: Feed) -> None:
        ask = step.ask
        records: list[Record] | None = None
        at = {feed.partition: feed.position}
        if ask.recover:
            since = parse(ask.epoch, ask.offset)
            keys = {found.key for found in met}
            if since is not None:
                key = keys.pop() if len(keys) == 1 else ""
                records = await missed(self._edge.log, feed, ask.channel, key, since)
                at = {feed.partition: feed.position}
            self._edge.metrics_of.resumes.labels("yes" if records is not None else "no").inc()
            if records is None and ask.strict:
                raise Unrecoverable("the position is unknown or too old", "load the state anew, then subscribe")
        recovered = records is not None
        if records is None:
            records = await self._edge.last_values(met, ask.channel, at)
        await self._catch_up(step, met, [feed], at, records, recovered)

    async def _catch_up(
        self,
        step: Attach,
        met: list[Found],
        feeds: list[Feed],
        at: dict[Partition, Position],
        past: list[Record],
        recovered: bool | None,
    ) -> None:
        """Send ``past`` page by page, each when there is room for it, then what came after ``at``, and join.

        A page is a reply or pushes; SDKs cannot tell. ``recovered`` is None where this channel has no position.
        """
        ask, epochs = step.ask, [feed.epochs.current for feed in feeds]
        replied = False
        while True:
            page, past = _cut(past, limits.RECOVERY_PAGE_BYTES, 1)
            await self.connection.drained(limits.RECOVERY_PAGE_BYTES)
            # From here to the join nothing waits, so nothing comes between.
            if self.connection.gone:
                return
            if epochs != [f.epochs.current for f in feeds] or not all(f.window.covers(_of(f, at)) for f in feeds):
                return self._start_over(step, replied)
            if not past:
                newer = [r for f in feeds for r in f.window.after(_of(f, at), ask.channel)]
                at = {feed.partition: feed.position for feed in feeds}
                more, past = _cut(newer, limits.RECOVERY_PAGE_BYTES - _size(page))
                page += more
            publications = [wire.publication(record) for record in page]
            if replied:
                for publication in publications:
                    self.connection.text(wire.push(ask.channel, publication))
            else:
                # Where more follows, the position it came with: cut between two pages, it must come back for the next.
                reached = ask.offset if past and recovered else at[feeds[0].partition].offset
                self._reply(step, Position(epochs[0], reached), publications, recovered)
                replied = True
            if not past:
                return self._join(step, met)

    def _start_over(self, step: Attach, replied: bool) -> None:
        """Too much happened meanwhile, or the log began a new epoch: the client asks again from where it stands."""
        if not replied:
            raise Unavailable("the log moved on before the subscription was ready", "subscribe again")
        channel = step.ask.channel
        self._session.ended(channel)
        self.connection.text(wire.push_unsubscribe(channel, session.INSUFFICIENT_STATE, "insufficient state"))

    def _join(self, step: Attach, met: list[Found]) -> None:
        places = self._edge.declared.places(met)
        self._edge.fanout.join(step.ask.channel, places, CODEC, encode, self)

    def _reply(self, step: Attach, at: Position, publications: list[bytes], recovered: bool | None) -> None:
        result = wire.subscribed(
            at,
            recoverable=recovered is not None,
            was_recovering=step.ask.recover and recovered is not None,
            recovered=bool(recovered),
            publications=publications,
        )
        self.connection.text(wire.reply(step.id, "subscribe", result))


def _of(feed: Feed, at: Mapping[Partition, Position]) -> int:
    return at[feed.partition].offset


def _size(records: list[Record]) -> int:
    return sum(len(wire.publication(record)) for record in records)


def _cut(records: list[Record], room: int, least: int = 0) -> tuple[list[Record], list[Record]]:
    """Return as many of ``records`` as fit into ``room`` bytes, but at least so many, and the rest."""
    for n, record in enumerate(records):
        room -= len(wire.publication(record))
        if room < 0 and n >= least:
            return records[:n], records[n:]
    return records, []
