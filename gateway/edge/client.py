"""One WebSocket client: what its session decides, performed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine
from typing import Any

from gateway import limits
from gateway.adapters.websocket import Connection
from gateway.core import session, wire, wire_protobuf
from gateway.core.event import Publication
from gateway.core.resume import parse
from gateway.core.session import (
    Attach,
    Authenticate,
    Call,
    Close,
    Detach,
    Prolong,
    Recall,
    Refuse,
    Renew,
    Reply,
    Session,
    Step,
    Store,
    Survey,
)
from gateway.edge.calls import call, waits
from gateway.edge.past import history
from gateway.edge.presence import user_of
from gateway.edge.shared import Shared
from gateway.edge.subscribing import CODECS
from gateway.edge.terms import Terms
from gateway.errors import (
    BadToken,
    Busy,
    GatewayError,
    LimitReached,
    TokenExpired,
    TooFast,
    Unavailable,
    Unrecoverable,
)


class Client(Terms):
    """Performs a session's steps. Its tasks belong to the edge and end with the connection."""

    __slots__ = ("_gone", "_pending", "_requests", "subprotocol")

    def __init__(
        self,
        edge: Shared,
        connection: Connection,
        id: str,
        gone: Callable[[Client], None],
        subprotocol: str | None = None,
    ) -> None:
        super().__init__(edge, connection, Session(id, CODECS.get(subprotocol or "", wire), edge.rate))
        self.subprotocol = subprotocol
        #: Told when the connection is gone.
        self._gone = gone
        self._pending = 0
        #: Who waits for a service. No set: an empty one takes 150 bytes more, of every client that only watches.
        self._requests: dict[asyncio.Task[Any], None] = {}

    # --- the server API and operators ask and call these ---

    @property
    def id(self) -> str:
        return self._session.client

    @property
    def user(self) -> str | None:
        """As presence shows it; None before it came in."""
        return None if self.grant is None else user_of(self.grant.principal)

    @property
    def channels(self) -> Collection[str]:
        return self._session.channels

    @property
    def sdk(self) -> str:
        return self._session.sdk

    @property
    def waiting(self) -> int:
        return self.connection.waiting

    def sent_away(self, why: Close) -> None:
        self.connection.close(self._session.close(why))

    # --- the connection calls these ---

    def received(self, text: bytes) -> None:
        self._received(text, wire.NAME)

    def received_binary(self, data: bytes) -> None:
        self._received(data, wire_protobuf.NAME)

    def _received(self, message: bytes, form: str) -> None:
        census = self._edge.census
        census.received += 1
        census.received_bytes += len(message)
        if form != self._codec.NAME:
            # Final: an SDK that speaks Protobuf without saying so would come back with the same for ever.
            self.connection.close(self._session.close(session.INAPPROPRIATE_PROTOCOL))
            return
        for step in self._session.receive(message, self._edge.loop.time()):
            self._perform(step)

    def lost(self) -> None:
        self._timer.cancel()
        for task in (*(task for _, task in self._asking.values()), *self._requests):
            task.cancel()
        for channel in self._session.channels:
            self.detach(channel)
        self._kind.connections -= 1
        if self.grant is not None:
            self._edge.places.leave(self, self.grant.principal)
        self._session.close(session.NORMAL)
        self._gone(self)

    # --- steps ---

    def _perform(self, step: Step) -> None:
        match step:
            case Reply(reply):
                if reply:
                    self._say(reply)
                else:
                    self._ponged()
            case Refuse(id, error):
                if isinstance(error, TooFast):
                    self._edge.metrics_of.rate_limited.labels("command").inc()
                self._edge.refused(error)
                self._say(self._codec.error(id, error))
            case Close():
                self.connection.close(step)
            case Authenticate():
                self._authenticate(step)
            case Renew():
                self._renew(step)
            case Attach():
                self._ask(step)
            case Prolong():
                self._prolong(step)
            case Detach(id, channel):
                self._stop(channel)
                self._say(self._codec.reply(id, "unsubscribe"))
            case Store():
                self._spawn(step.id, self._store(step))
            case Call():
                self._spawn(step.id, self._call(step))
            case Recall():
                self._spawn(step.id, self._recall(step))
            case Survey():
                self._spawn(step.id, self._survey(step))

    def _authenticate(self, step: Authenticate) -> None:
        try:
            grant = self._edge.admit(step.token)
            self._edge.places.take(self, grant.principal, self._edge.loop.time())
        except TokenExpired as e:
            # Not a close: the SDK asks its application for another token and comes back with it.
            self._session.state = session.State.FRESH
            self._say(self._codec.error(step.id, e))
            return
        except BadToken as e:
            self._edge.refused(e)
            self.connection.close(Close(session.INVALID_TOKEN.code, str(e)))
            return
        except LimitReached as e:
            self._edge.metrics_of.rate_limited.labels("connection").inc()
            self._edge.refused(e)
            self.connection.close(self._session.close(session.CONNECTION_LIMIT))
            return
        except Unavailable as e:  # a temporary error: the SDK tries again
            self._session.state = session.State.FRESH
            self._say(self._codec.error(step.id, e))
            return
        self._session.connected(grant.principal)
        self._session.sdk = self._edge.census.name(step.client)
        self.grant = grant
        self._kind.connections -= 1
        self._kind = self._edge.census.kind("websocket", step.client)
        self._kind.connections += 1
        self._timer.cancel()
        # The first ping at a random moment: clients that came back together must not be pinged together.
        self._later(limits.PING_EVERY * self._edge.random(), self._tick)
        ends = self._ends(grant)
        result = wire.ConnectResult(
            self._session.client, self._edge.version, int(limits.PING_EVERY), True, ends.expires, ends.ttl
        )
        self._say(self._codec.reply(step.id, "connect", result))

    def _spawn(self, id: int, work: Coroutine[Any, Any, bytes]) -> None:
        if self._pending >= limits.CLIENT_PENDING:
            work.close()
            busy = Busy(f"{self._pending} commands of this client wait for an answer", "wait for some of them")
            self._say(self._codec.error(id, busy))
            return
        self._pending += 1
        self._edge.spawn(self._answer(id, work), f"client-{self._session.client}-{id}")

    async def _answer(self, id: int, work: Coroutine[Any, Any, bytes]) -> None:
        try:
            reply = await work
        except GatewayError as e:
            self._edge.refused(e)
            reply = self._codec.error(id, e)
        finally:
            self._pending -= 1
        self._say(reply)

    async def _store(self, step: Store) -> bytes:
        await self._edge.publisher.publish(self._session.principal, Publication(step.channel, step.data, "ws"))
        return self._codec.reply(step.id, "publish")

    async def _call(self, step: Call) -> bytes:
        task = asyncio.current_task()
        if task is not None and waits(step.method):
            if len(self._requests) >= limits.CLIENT_REQUESTS:
                raise Busy(f"{len(self._requests)} requests of this client wait for a service", "wait for some of them")
            self._requests[task] = None
            task.add_done_callback(self._requests.pop)
        edge = self._edge
        answer = await call(edge.publisher, edge.requests, self._session.principal, step.method, step.data)
        return self._codec.rpc_reply(step.id, answer)

    async def _survey(self, step: Survey) -> bytes:
        there = await self._edge.presence.there(self._session.principal, step.channel)
        if step.stats:
            users = {info.user for info in there.values()}
            return self._codec.reply(step.id, "presence_stats", wire.PresenceStatsResult(len(there), len(users)))
        await self.connection.drained(limits.RECOVERY_PAGE_BYTES)  # or it would be too much for its queue
        return self._codec.reply(step.id, "presence", wire.PresenceResult(there))

    async def _recall(self, step: Recall) -> bytes:
        ask, codec = step.ask, self._codec
        since = None
        if ask.since is not None and ask.since.epoch:
            since = parse(ask.since.epoch, ask.since.offset)
            if since is None:
                raise Unrecoverable("the position is none of ours", "load the state anew, without since")
        past = await history(self._edge, self._session.principal, ask.channel, since, ask.limit, ask.reverse)
        await self.connection.drained(limits.RECOVERY_PAGE_BYTES)  # or it would be too much for its queue
        result = wire.HistoryResult(past.publications(codec), str(past.top.epoch), past.top.offset)
        return codec.reply(step.id, "history", result)
