"""What servers ask of the edges: publish, look, and send clients away, wherever those are."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress

import msgspec

from gateway import limits
from gateway.adapters.http_api import (
    Channels,
    Count,
    Counts,
    Disconnect,
    Done,
    History,
    Node,
    Nodes,
    Published,
    Refresh,
    Subscribe,
    Unsubscribe,
)
from gateway.adapters.log import Notice
from gateway.core import wire
from gateway.core.access import Principal
from gateway.core.event import Publication
from gateway.core.fanout import Fanout
from gateway.core.resume import parse
from gateway.core.session import Close
from gateway.core.topic import check_filter, overlap
from gateway.core.wire import HistoryResult, PresenceResult, PresenceStatsResult, Since
from gateway.edge.client import Client
from gateway.edge.past import history
from gateway.edge.presence import principal_of, user_of
from gateway.edge.revocations import Held
from gateway.edge.shared import Shared
from gateway.edge.surveying import Surveying
from gateway.errors import BadToken, Denied, GatewayError, LimitReached, Refused, Unavailable, Unrecoverable

_log = logging.getLogger("gateway.edge")
_audit = logging.getLogger("gateway.audit")

#: The final close of who is sent away without another word.
FORCED = Close(3503, "force disconnect")
#: Codes that a server may send (the protocol's, and the applications' own).
_CODES = range(3000, 5000)

_SUBSCRIBE, _UNSUBSCRIBE, _REFRESH, _DISCONNECT = "subscribe", "unsubscribe", "refresh", "disconnect"
_CHANNELS = "channels"


class _Given(Subscribe, frozen=True, kw_only=True):
    """A subscription as edges are told of it."""

    #: The server may read the topic itself, so it may give it to anybody.
    trusted: bool


class Servers:
    """Who may use the server API at one edge, and what this edge does when any of them is asked."""

    def __init__(self, edge: Shared, clients: Collection[Client], held: Collection[Held]) -> None:
        """``held``: streams of SSE."""
        self._edge = edge
        self._clients = clients
        self._held = held
        self._began = time.monotonic()
        self.surveying = Surveying(edge, self.tell)
        self.surveying.answer(_CHANNELS, self._counted)
        edge.revocations.listeners[_SUBSCRIBE] = self._subscribe
        edge.revocations.listeners[_REFRESH] = self._refresh
        edge.revocations.listeners[_UNSUBSCRIBE] = self._unsubscribe
        edge.revocations.listeners[_DISCONNECT] = self._disconnect

    def server(self, key: str) -> _Server:
        """Return what the bearer of an API key, or an operator, may do; raises :class:`BadToken`, :class:`Denied`."""
        if not key:
            raise BadToken("an API key is needed", "make one with `gateway token --api-key NAME`")
        who = self._edge.admit(key).principal
        if who.kind not in ("service", "operator"):
            raise Denied("the server API is for servers", "use an API key, or an operator's token")
        return _Server(self._edge, who, self.tell, self.surveying)

    # --- what every edge hears ---

    def _subscribe(self, data: bytes) -> None:
        asked = msgspec.json.decode(data, type=_Given)
        at = asked.recover_since or Since()
        ask = wire.Subscribe(asked.channel, recover=asked.recover_since is not None, epoch=at.epoch, offset=at.offset)
        for client in self._of(asked.user, asked.client):
            client.subscribed(ask, trusted=asked.trusted)

    def _refresh(self, data: bytes) -> None:
        asked = msgspec.json.decode(data, type=Refresh)
        for client in self._of(asked.user, asked.client):
            client.prolonged(0 if asked.expired else asked.expire_at)

    def _unsubscribe(self, data: bytes) -> None:
        asked = msgspec.json.decode(data, type=Unsubscribe)
        for client in self._of(asked.user, asked.client):
            client.unsubscribed(asked.channel)

    def _disconnect(self, data: bytes) -> None:
        asked = msgspec.json.decode(data, type=Disconnect)
        why = FORCED
        if asked.disconnect is not None and asked.disconnect.code:
            why = Close(asked.disconnect.code, asked.disconnect.reason)
        for client in self._of(asked.user, asked.client):
            if client.id not in asked.whitelist:
                client.sent_away(why)
        for held in self._held:
            if user_of(held.grant.principal) == asked.user and asked.client in ("", held.id):
                if held.id not in asked.whitelist:
                    held.finish()

    async def _counted(self, asked: bytes) -> bytes:
        return msgspec.json.encode(await _counts(self._edge.fanout, msgspec.json.decode(asked, type=Channels).pattern))

    def _of(self, user: str, id: str) -> list[Client]:
        return [one for one in self._clients if one.user == user and id in ("", one.id)]

    # --- this edge among the others ---

    def _node(self) -> Node:
        inside = [one for one in self._clients if one.user is not None]
        users = {one.user for one in inside}
        edge, uptime = self._edge, int(time.monotonic() - self._began)
        subscriptions = sum(len(one.channels) for one in inside)
        channels = len(edge.fanout)
        uid, name = edge.presence.edge, edge.name
        return Node(uid, name, edge.version, len(inside), len(users), subscriptions, channels, uptime)

    async def tell(self, *, leave: bool = False) -> list[Node]:
        """Say what this edge does, or that it leaves, and return what all that live said."""
        word = b"" if leave else msgspec.json.encode(self._node())
        words = await self._edge.log.edges.tell(self._edge.presence.edge, word)
        return [node for node in map(_read, words) if node is not None]

    async def run(self) -> None:
        """Tell every ``limits.EDGE_BEAT``: until cancelled."""
        while True:
            try:
                await self.tell()
            except GatewayError as e:
                _log.info("this edge could not tell what it does: %s", e)  # the next beat comes
            await asyncio.sleep(limits.EDGE_BEAT)

    async def end(self) -> None:
        try:
            await self.tell(leave=True)
        except GatewayError:
            pass  # it is forgotten without a word, a little later


async def _counts(fanout: Fanout, pattern: str) -> dict[str, int]:
    """Return how many have each filter that overlaps ``pattern``; of one more than ``limits.API_CHANNELS`` at most."""
    found: dict[str, int] = {}
    for n, interest in enumerate(fanout.interests()):
        if n % limits.TURN_OF == 0:
            await asyncio.sleep(0)
        if overlap(pattern, interest.filter) and len(found) <= limits.API_CHANNELS:
            found[interest.filter] = interest.count
    return found


def _read(word: bytes) -> Node | None:
    try:
        return msgspec.json.decode(word, type=Node)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None  # an edge of another version


class _Server:
    """One bearer of a key. Topics' grants are asked as of everybody else."""

    def __init__(
        self, edge: Shared, who: Principal, tell: Callable[[], Awaitable[list[Node]]], surveying: Surveying
    ) -> None:
        self._edge, self._who, self._tell, self._surveying = edge, who, tell, surveying

    async def publish(self, channel: str, data: bytes, idempotency: str) -> Published:
        asked = Publication(channel, data, "http", idempotency=idempotency)
        at = (await self._edge.publisher.publish(self._who, asked)).position
        return Published(at.offset, str(at.epoch) if at.epoch else "")

    async def subscribe(self, asked: Subscribe) -> Done:
        """Who may read a topic may give it to others; who may not, only to those who may."""
        declared, at = self._edge.declared, asked.recover_since
        if at is not None and parse(at.epoch, at.offset) is None:
            raise Unrecoverable("the position is none of ours", "subscribe without recover_since")
        try:
            declared.readable(self._who, asked.channel)
            trusted = True
        except Denied:
            declared.readable(principal_of(asked.user), asked.channel)
            trusted = False
        told = _Given(user=asked.user, client=asked.client, channel=asked.channel, recover_since=at, trusted=trusted)
        return await self._announce(_SUBSCRIBE, asked.user, asked.client, told)

    async def refresh(self, asked: Refresh) -> Done:
        if asked.expired == bool(asked.expire_at):
            raise Refused("there is no end, or two", "send expire_at, or expired")
        if not 0 <= asked.expire_at <= self._edge.now() + limits.TOKEN_LIFE:
            raise Refused("expire_at is no time to come", f"use seconds since 1970, at most {limits.TOKEN_LIFE} ahead")
        return await self._announce(_REFRESH, asked.user, asked.client, asked)

    async def unsubscribe(self, asked: Unsubscribe) -> Done:
        if not asked.channel:
            raise Refused("there is no channel", "name the one to leave")
        return await self._announce(_UNSUBSCRIBE, asked.user, asked.client, asked)

    async def disconnect(self, asked: Disconnect) -> Done:
        why = asked.disconnect
        if why is not None and why.code and (why.code not in _CODES or len(why.reason.encode()) > limits.CLOSE_REASON):
            raise Refused("the code or its reason cannot be sent", f"use 3000 to 4999 and {limits.CLOSE_REASON} bytes")
        return await self._announce(_DISCONNECT, asked.user, asked.client, asked)

    async def _announce(self, kind: str, user: str, client: str, asked: msgspec.Struct) -> Done:
        if not user and not client:
            raise Refused("there is no user", "name one; for clients without a user, name the client")
        await self._edge.log.control.announce(Notice(kind, msgspec.json.encode(asked)))
        named = (f"{noun} {name!r}" for noun, name in (("user", user), ("client", client)) if name)
        _audit.info("%s: %s %s", self._who, kind, ", ".join(named))
        return Done()

    async def presence(self, channel: str) -> PresenceResult:
        return PresenceResult(await self._edge.presence.there(self._who, channel))

    async def presence_stats(self, channel: str) -> PresenceStatsResult:
        there = await self._edge.presence.there(self._who, channel)
        return PresenceStatsResult(len(there), len({info.user for info in there.values()}))

    async def history(self, asked: History) -> HistoryResult:
        since = None
        if asked.since is not None and asked.since.epoch:
            since = parse(asked.since.epoch, asked.since.offset)
            if since is None:
                raise Unrecoverable("the position is none of ours", "ask without since")
        past = await history(self._edge, self._who, asked.channel, since, asked.limit, asked.reverse)
        return HistoryResult(past.publications(), str(past.top.epoch), past.top.offset)

    async def channels(self, asked: Channels) -> Counts:
        """Raises :class:`LimitReached` beyond ``limits.API_CHANNELS``, and where an edge does not say in time."""
        check_filter(asked.pattern)
        said = await self._surveying.ask(_CHANNELS, msgspec.json.encode(asked))
        counts = Counter(await _counts(self._edge.fanout, asked.pattern))
        for name, word in said.items():
            try:
                counts.update(msgspec.json.decode(word or b"", type=dict[str, int]))
            except (msgspec.DecodeError, UnicodeDecodeError):  # or an edge of another version
                raise Unavailable(f"edge {name} does not say what it has", "ask again", retry_after=1.0) from None
        if len(counts) > limits.API_CHANNELS:
            raise LimitReached(f"there are more than {limits.API_CHANNELS} channels", "narrow the pattern")
        seen: dict[str, Count] = {}
        for n, (channel, count) in enumerate(sorted(counts.items())):
            if n % limits.TURN_OF == 0:
                await asyncio.sleep(0)
            with suppress(Denied):  # what it may not read it does not hear of
                self._edge.declared.readable(self._who, channel)
                seen[channel] = Count(count)
        return Counts(seen)

    async def info(self) -> Nodes:
        return Nodes(await self._tell())
