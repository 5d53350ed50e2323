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
    if not await agrees(log, feed, key, since):
        return None
    if feed.window.covers(since.offset):
        return feed.window.after(since.offset, filter)
    found = await _chain(log, feed, key, since) if key else None
    if found is None:
        found = await _pages(log, feed, filter, since)
    if found is None:
        return None
    older, top = found
    await _reached(feed, top)
    if not feed.epochs.continuous(since):
        return None
    if not feed.window.covers(top):
        raise Unavailable("the log moves faster than it can be read back", "subscribe again", retry_after=1.0)
    once: dict[tuple[str, str], Record] = {}
    for record in [r for r in older if matches(filter, r.event.topic)] + feed.window.after(top, filter):
        once.setdefault((record.event.topic, record.event.id), record)
    return list(once.values())


async def agrees(log: Log, feed: Feed, key: str, since: Position) -> bool:
    """Say whether the log knows ``since``, and let ``feed`` reach it; raises :class:`Unavailable`."""
    if not feed.epochs.continuous(since):
        return False
    if since.offset > feed.position.offset:
        # The client saw more than this edge did: another edge's tail was ahead of ours. Or it made that up.
        if (await log.walk(feed.partition, key, since, 1)).top.offset < since.offset:
            return False
        await _reached(feed, since.offset)
    return feed.epochs.continuous(since)


async def _reached(feed: Feed, offset: int) -> None:
    try:
        async with asyncio.timeout(limits.READY_WITHIN):
            await feed.reached(offset)
    except TimeoutError:
        raise Unavailable("the log cannot be read now", "subscribe again", retry_after=1.0) from None


async def _chain(log: Log, feed: Feed, key: str, since: Position) -> tuple[list[Record], int] | None:
    """One call, whatever else happened in the partition: each event names the one before it with the same key."""
    walk = await log.walk(feed.partition, key, since)
    return (walk.records, walk.top.offset) if walk.complete else None


async def _pages(log: Log, feed: Feed, filter: str, since: Position) -> tuple[list[Record], int] | None:
    """Read on from the client's position until the window takes over."""
    kept: list[Record] = []
    size = 0
    # The client has learned the newest epoch and may stand before its first offset: the log knows it by an older one.
    at = feed.epochs.at(since.offset)
    for _ in range(limits.RECOVERY_PAGES):
        if feed.window.covers(at.offset):
            break
        page = await log.read(feed.partition, at, limits.LOG_PAGE)
        if page.lost:
            return None
        wanted = [r for r in page.records if matches(filter, r.event.topic)]
        kept += wanted
        size += sum(len(r.event.data) for r in wanted)
        if page.position == at or len(kept) > limits.RECOVERY_EVENTS or size > limits.RECOVERY_BYTES:
            break
        at = page.position
    return (kept, at.offset) if feed.window.covers(at.offset) else None
