"""What a returning client missed: from the window where it reaches, else from the log, always up to the tail."""

from __future__ import annotations

import asyncio

from gateway import limits
from gateway.adapters.log import Log
from gateway.core.event import Position, Record
from gateway.core.topic import matches
from gateway.edge.feed import Feed
from gateway.errors import Unavailable


async def missed(log: Log, feed: Feed, filter: str, key: str, since: Position) -> list[Record] | None:
    """Return the records after ``since`` that pass ``filter``, up to ``feed.position`` at the moment of return.

    None where the log cannot tell: it lost what this reader had seen, or no longer keeps what he missed. Between the
    return and the caller's next ``await`` nothing is delivered, so a caller who joins at once misses nothing.
    ``key`` is empty for a filter wider than one key. Raises :class:`Unavailable` when the log server is away.
    """
    if not await agrees(feed, since):
        return None
    if feed.window.covers(since.offset):
        return feed.window.after(since.offset, filter)
    epochs, found = feed.epochs, None
    alone = bool(key) and not feed.backlog.shared(since.offset)
    if alone:
        found = await _chain(log, feed, filter, key, since)
    if found is None:
        found = await feed.backlog.missed(since.offset, filter)
    if found is None and key and not alone:
        # Something of the partition is gone, or it is too much; not so what this key needs of it.
        found = await _chain(log, feed, filter, key, since)
    if found is None:
        return None
    older, top = found
    await _reached(feed, top)
    if not feed.epochs.continuous(since):
        return None
    # What was read of an epoch that ended may be what it lost, in the place of what the next one gave.
    if feed.epochs is not epochs or not feed.window.covers(top):
        raise Unavailable("the log moves faster than it can be read back", "subscribe again", retry_after=1.0)
    once: dict[tuple[str, str], Record] = {}
    for record in older + feed.window.after(top, filter):
        once.setdefault((record.event.topic, record.event.id), record)
    return list(once.values())


def why_gone(feed: Feed, since: Position | None) -> str:
    """Return in a word why what came after ``since`` cannot be had: for the metrics."""
    if since is None:
        return "unknown_position"
    return "not_kept" if feed.epochs.continuous(since) else "lost_epoch"


async def agrees(feed: Feed, since: Position) -> bool:
    """Say whether the log knows ``since``, and let ``feed`` reach it; raises :class:`Unavailable`."""
    if not feed.epochs.continuous(since):
        return False
    if since.offset > feed.position.offset:
        # The client saw more than this edge did: another edge's tail was ahead of ours. Or it made that up.
        if not await feed.backlog.knows(since.offset):
            return False
        await _reached(feed, since.offset)
    return feed.epochs.continuous(since)


async def _reached(feed: Feed, offset: int) -> None:
    try:
        async with asyncio.timeout(limits.READY_WITHIN):
            await feed.reached(offset)
    except TimeoutError:
        raise Unavailable("the log cannot be read now", "subscribe again", retry_after=1.0) from None


async def _chain(log: Log, feed: Feed, filter: str, key: str, since: Position) -> tuple[list[Record], int] | None:
    """One call, whatever else happened in the partition: each event names the one before it with the same key."""
    walk = await log.walk(feed.partition, key, since)
    return ([r for r in walk.records if matches(filter, r.event.topic)], walk.top.offset) if walk.complete else None
