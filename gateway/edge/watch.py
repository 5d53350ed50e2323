"""One SSE client: what it missed over all partitions of its filter, then what comes, and where it stands after each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence

from gateway.adapters import sse
from gateway.adapters.log import Log
from gateway.adapters.metrics import EdgeMetrics
from gateway.core import cursor, wire
from gateway.core.declared import Found
from gateway.core.event import Event, Partition, Position, Record
from gateway.core.fanout import Encode, Fanout
from gateway.edge.feed import Feed
from gateway.edge.recovery import missed, why_gone
from gateway.edge.revocations import Held
from gateway.errors import Unavailable

CODEC = "sse"


def encoder(feeds: Sequence[Feed]) -> Encode:
    """Return what makes the event of one filter whose partitions are those of ``feeds``.

    All live streams of a process stand where its feeds stand, so one cursor, and one event, serves them all.
    """
    at = {feed.partition: feed for feed in feeds}

    def encode(filter: str, event: Event, record: Record | None) -> bytes:
        if record is None:
            return sse.notice("live", wire.event_publication(event))
        positions = {partition: feed.position for partition, feed in at.items()}
        positions[record.partition] = Position(record.epoch, record.offset)
        return sse.event(cursor.render(positions), wire.publication(record))

    return encode


async def watch(
    log: Log,
    fanout: Fanout,
    filter: str,
    met: Sequence[Found],
    feeds: Sequence[Feed],
    since: Mapping[Partition, Position] | None,
    last: Callable[[Mapping[Partition, Position]], Awaitable[list[Record]]],
    held: Held,
    metrics: EdgeMetrics,
    seconds: float | None = None,
) -> AsyncGenerator[bytes, None]:
    """Yield the stream, for so many ``seconds`` at most: the life of the token that opened it, unless
    ``held`` is over before.

    Without ``since`` it begins with the ``last`` values of retained topics. A partition whose past is gone is announced
    by an event named ``lost``, never skipped in silence.
    """
    key = met[0].key if len(met) == 1 else ""
    kept = all(found.topic.history for found in met)
    # A partition that the cursor does not name (the filter meets more than it did) joins when its loss is announced.
    at = dict(since) if since is not None else {feed.partition: feed.position for feed in feeds}
    fresh = set(at) if since is None else set()
    until = None if seconds is None else asyncio.get_running_loop().time() + seconds
    yield sse.OPENING
    for feed in feeds if since is not None else ():
        partition, records = feed.partition, None
        if kept and partition in at:
            try:
                records = await missed(log, feed, filter, key, at[partition])
            except Unavailable:
                return  # the log went away: it comes back with the cursor it has
        # Here, not after the last ``yield``: what is offered while the past is sent has yet to be read.
        top = feed.position
        metrics.resumed("" if records is not None else why_gone(feed, at.get(partition)))
        if records is None:
            at[partition] = top
            fresh.add(partition)
            yield sse.notice("lost", b'{"partition":"%s"}' % partition.encode(), cursor.render(at))
            continue
        for record in records:
            if held.over:
                return
            at[partition] = Position(record.epoch, record.offset)
            yield sse.event(cursor.render(at), wire.publication(record))
        at[partition] = top
    try:
        values = await last(at) if fresh else []
    except Unavailable:
        return
    for value in values:
        if held.over:
            return
        if value.partition in fresh:
            yield sse.notice("message", wire.publication(value))
    if held.over:
        return
    stream = sse.Stream(lambda sink: fanout.leave(filter, CODEC, sink))
    held.stream = stream
    # From here to the join nothing waits, so what came while the past was sent is read, and nothing is missed.
    rest = b""
    for feed in feeds:
        reached = at[feed.partition]
        if not feed.epochs.continuous(reached) or not feed.window.covers(reached.offset):
            return  # too much happened meanwhile: it comes back with the cursor it has
        for record in feed.window.after(reached.offset, filter):
            at[feed.partition] = Position(record.epoch, record.offset)
            rest += sse.event(cursor.render(at), wire.publication(record))
        at[feed.partition] = feed.position
    fanout.join(filter, frozenset(at), CODEC, encoder(feeds), stream)
    try:
        yield rest + sse.mark(cursor.render(at))
        while block := await stream.block(until):
            yield block
    finally:
        metrics.slow_closes.inc(stream.slow)
        fanout.leave(filter, CODEC, stream)
