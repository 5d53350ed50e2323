"""How a WebSocket client subscribes: what it missed, page by page, then joined to the tail without a gap."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final, cast

import msgspec

from gateway import limits
from gateway.adapters.websocket import Connection
from gateway.core import session, wire, wire_protobuf
from gateway.core.declared import Found
from gateway.core.event import Event, Partition, Position, Record
from gateway.core.fanout import Encode
from gateway.core.resume import parse
from gateway.core.session import Attach, Session
from gateway.core.wire import Codec
from gateway.edge.feed import Feed
from gateway.edge.recovery import missed, why_gone
from gateway.edge.shared import Shared
from gateway.errors import GatewayError, Unavailable, Unrecoverable

#: The forms of the protocol, by the subprotocol that asks for each; who names none speaks JSON.
CODECS: Final[Mapping[str, Codec]] = {codec.SUBPROTOCOL: codec for codec in (cast("Codec", wire), wire_protobuf)}


def encoder(codec: Codec) -> Encode:
    """Return what makes the WebSocket frame of one event for the subscribers of one filter."""

    def encode(filter: str, event: Event, record: Record | None) -> bytes:
        pub = codec.publication(record) if record is not None else codec.event_publication(event)
        return codec.frame(codec.push(filter, pub))

    return encode


_ENCODERS: Final = {codec.NAME: encoder(codec) for codec in CODECS.values()}


class Subscriber:
    """The part of a client that watches; :class:`Client` is the rest of it."""

    __slots__ = ("_asking", "_codec", "_edge", "_kind", "_session", "connection")

    def __init__(self, edge: Shared, connection: Connection, one: Session) -> None:
        self.connection = connection
        self._edge = edge
        self._session = one
        self._codec = one.codec
        self._kind = edge.census.kind("websocket", "")  # until its SDK says its name
        self._kind.connections += 1
        #: Subscriptions on their way, by filter: the command's id and who works on it.
        self._asking: dict[str, tuple[int, asyncio.Task[None]]] = {}

    def _say(self, message: bytes) -> None:
        census, frame = self._edge.census, self._codec.frame(message)
        census.told += 1
        census.told_bytes += len(frame)
        self.connection.send(frame)

    # --- feeds and fan-out call these ---

    @property
    def codec(self) -> Codec:
        return self._codec

    @property
    def queue(self) -> Connection:
        return self.connection

    def too_slow(self) -> None:
        self._edge.metrics_of.slow_closes.inc()
        self.connection.too_slow()

    def detach(self, filter: str) -> None:
        if self._edge.fanout.leave(filter, self._codec.NAME, self):
            self._kind.subscriptions -= 1
        self._edge.presence.unwatch(filter, self)
        self._edge.presence.leave(filter, self._session.client, lost=True)

    def come_back(self, filter: str) -> None:
        self.detach(filter)
        if filter in self._session.channels and filter not in self._asking:
            self._session.returns(filter)
            self._say(self._codec.push_unsubscribe(filter, session.INSUFFICIENT_STATE, "insufficient state"))

    # --- subscribing ---

    def _ask(self, step: Attach) -> None:
        channel = step.ask.channel
        try:
            met = self._met(step.ask)
            if step.ask.join_leave:
                self._edge.presence.check(met, channel)
        except GatewayError as e:
            self._refuse(step, e)
            return
        self._begin(step, met)

    def _met(self, ask: wire.Subscribe) -> list[Found]:
        """Return what the channel meets, if this client may have all of it; raises what refuses it."""
        return self._edge.declared.readable(self._session.principal, ask.channel)

    def _begin(self, step: Attach, met: list[Found]) -> None:
        channel = step.ask.channel
        task = self._edge.spawn(self._subscribe(step, met), f"subscribe-{self._session.client}")
        self._asking[channel] = (step.id, task)

    def _refuse(self, step: Attach, error: GatewayError) -> None:
        self._edge.refused(error)
        self._session.ended(step.ask.channel)
        if step.id:
            self._say(self._codec.error(step.id, error))

    def _stop(self, channel: str) -> None:
        asking = self._asking.pop(channel, None)
        if asking is not None:
            asking[1].cancel()
            if asking[0]:
                # Unanswered, an SDK would wait for it, and give the whole connection up in the end.
                gone = Unavailable("unsubscribed before the subscription was ready", "subscribe again")
                self._say(self._codec.error(asking[0], gone))
        self._edge.presence.leave(channel, self._session.client, lost=False)
        self.detach(channel)

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
            self._edge.metrics_of.resumed("" if records is not None else why_gone(feed, since))
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
        # Made once in a process, however many have missed it.
        encode = self._codec.publication
        left = [encode(record) for record in past]
        while True:
            page, left = _cut(left, limits.RECOVERY_PAGE_BYTES, 1)
            await self.connection.drained(limits.RECOVERY_PAGE_BYTES)
            # From here to the join nothing waits, so nothing comes between.
            if self.connection.gone:
                return
            if epochs != [f.epochs.current for f in feeds] or not all(f.window.covers(_of(f, at)) for f in feeds):
                return self._start_over(step, replied)
            if not left:
                newer = [encode(r) for f in feeds for r in f.window.after(_of(f, at), ask.channel)]
                at = {feed.partition: feed.position for feed in feeds}
                more, left = _cut(newer, limits.RECOVERY_PAGE_BYTES - sum(map(len, page)))
                page += more
            if replied:
                for publication in page:
                    self._say(self._codec.push(ask.channel, publication))
            else:
                # Where more follows, the position it came with: cut between two pages, it must come back for the next.
                reached = ask.offset if left and recovered else at[feeds[0].partition].offset
                self._reply(step, Position(epochs[0], reached), page, recovered)
                replied = True
            if not left:
                return self._join(step, met)

    def _start_over(self, step: Attach, replied: bool) -> None:
        """Too much happened meanwhile, or the log began a new epoch: the client asks again from where it stands."""
        if not replied:
            raise Unavailable("the log moved on before the subscription was ready", "subscribe again")
        channel = step.ask.channel
        self._session.returns(channel)
        self._say(self._codec.push_unsubscribe(channel, session.INSUFFICIENT_STATE, "insufficient state"))

    def _join(self, step: Attach, met: list[Found]) -> None:
        places = self._edge.declared.places(met)
        channel, presence = step.ask.channel, self._edge.presence
        self._edge.fanout.join(channel, places, self._codec.NAME, _ENCODERS[self._codec.NAME], self)
        self._kind.subscriptions += 1
        if step.ask.join_leave:
            presence.watch(met, channel, self)
        presence.enter(met, channel, self._session.client, self._session.principal)

    def _reply(self, step: Attach, at: Position, publications: list[bytes], recovered: bool | None) -> None:
        result = wire.subscribed(
            at,
            recoverable=recovered is not None,
            was_recovering=step.ask.recover and recovered is not None,
            recovered=bool(recovered),
            publications=publications,
            ttl=self._ttl(step.ask.channel),
        )
        if step.id:
            self._say(self._codec.reply(step.id, "subscribe", result))
        else:
            self._given(step.ask, result, publications)

    def _given(self, ask: wire.Subscribe, result: wire.SubscribeResult, publications: list[bytes]) -> None:
        """Tell a client what a server subscribed it to: a push, which holds no publications, then those."""
        if result.recovered:
            result = msgspec.structs.replace(result, offset=ask.offset)
        self._say(self._codec.push_subscribe(ask.channel, result))
        for publication in publications:
            self._say(self._codec.push(ask.channel, publication))

    def _ttl(self, channel: str) -> int:
        """Return in how many seconds the subscription ends; 0 where it does not."""
        return 0


def _cut(publications: list[bytes], room: int, least: int = 0) -> tuple[list[bytes], list[bytes]]:
    """Return as many of ``publications`` as fit into ``room`` bytes, but at least so many, and the rest."""
    if sum(map(len, publications)) <= room:
        return publications, []
    for n, publication in enumerate(publications):
        room -= len(publication)
        if room < 0 and n >= least:
            return publications[:n], publications[n:]
    return publications, []


def _of(feed: Feed, at: Mapping[Partition, Position]) -> int:
    return at[feed.partition].offset
