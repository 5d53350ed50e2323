"""What a client asks to see again: a channel's history, either way, and a topic's last value."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from gateway import limits
from gateway.adapters.log import Log
from gateway.core import wire
from gateway.core.access import Principal
from gateway.core.event import Position, Record
from gateway.core.topic import is_filter, matches
from gateway.core.wire import Codec
from gateway.edge.feed import Feed
from gateway.edge.recovery import agrees
from gateway.edge.shared import Shared
from gateway.errors import GatewayError, LimitReached, NotAvailable, Refused, Unrecoverable


class NoValue(Refused):
    """A topic that has no last value, not yet or not any more."""

    code = "no_value"
    status = 404
    reply = 102


class Past(msgspec.Struct, frozen=True):
    """Some of what was published, in the order that was asked for, and where the log stood."""

    records: list[Record]
    top: Position

    def publications(self, codec: Codec = wire) -> list[msgspec.Raw]:
        """Return as many as fit into ``limits.HISTORY_BYTES``, the first in any case."""
        found: list[msgspec.Raw] = []
        room = limits.HISTORY_BYTES
        for record in self.records:
            one = codec.publication(record)
            room -= len(one)
            if room < 0 and found:
                break
            found.append(msgspec.Raw(one))
        return found


async def history(
    edge: Shared, who: Principal, filter: str, since: Position | None = None, limit: int = -1, reverse: bool = False
) -> Past:
    """Return what passed ``filter`` after ``since``, or before it where ``reverse`` is set; newest first then.

    At most ``limit`` (negative: as many as may be) and ``limits.HISTORY_EVENTS``.
    Without ``since`` from the oldest that is kept, or from the newest. Raises :class:`NotAvailable` where the filter
    has no history or more than one partition, :class:`Unrecoverable` where the log no longer agrees with ``since`` or
    lacks something after it, :class:`LimitReached` where too much else lies between, and what reading raises.
    """
    met = edge.declared.readable(who, filter)
    if any(found.topic.ephemeral or not found.topic.history for found in met):
        raise NotAvailable(f"{filter!r} has no history", "see `gateway explain`: a declaration decides")
    if len(edge.declared.places(met)) > 1:
        raise NotAvailable(f"{filter!r} spans several partitions", "ask for one topic, or for one key's")
    (feed,) = await edge.readers.feeds_of(met)
    key = met[0].key if len({found.key for found in met}) == 1 else ""
    most = limits.HISTORY_EVENTS if limit < 0 else min(limit, limits.HISTORY_EVENTS)
    if since is not None and not await agrees(feed, since):
        raise _unknown()
    if not most:
        return Past([], feed.position)
    if reverse:
        before = since.offset if since is not None else feed.position.offset + 1
        records = await _backward(edge.log, feed, filter, key, before, most)
    else:
        records = await _forward(edge.log, feed, filter, key, since, most)
    newest = max((Position(r.epoch, r.offset) for r in records), default=feed.position)
    return Past(records, max(newest, feed.position))


async def last_value(edge: Shared, who: Principal, topic: str) -> Record:
    """Return the last value of ``topic``; raises :class:`NotAvailable` and :class:`NoValue`."""
    (found, *_) = edge.declared.readable(who, topic)
    if is_filter(topic) or not found.topic.retain:
        raise NotAvailable(f"{topic!r} keeps no last value", "declare it with retain = true, or ask for its history")
    for record in await edge.log.last(found.partition, [topic], 1):
        return record
    raise NoValue(f"{topic!r} has no value", "publish one")


def _unknown() -> GatewayError:
    return Unrecoverable("the position is unknown or too old", "load the state anew, without since")


async def _forward(log: Log, feed: Feed, filter: str, key: str, since: Position | None, most: int) -> list[Record]:
    after = since.offset if since is not None else await log.floor(feed.partition)
    if feed.window.covers(after):
        return feed.window.after(after, filter)[:most]
    if key:
        walk = await log.walk(feed.partition, key, Position(0, after))
        if walk.complete:
            return _passing(walk.records, filter)[:most]
    found: list[Record] = []
    at = feed.epochs.at(after)
    for _ in range(limits.HISTORY_PAGES):
        if feed.window.covers(at.offset):
            return _passing(found + feed.window.after(at.offset, filter), filter)[:most]
        page = await log.read(feed.partition, at, limits.LOG_PAGE)
        if page.lost and since is not None:
            raise _unknown()
        found = _passing(found + page.records, filter)
        if len(found) >= most or page.position == at:
            return found[:most]
        at = page.position
    raise _too_far()


async def _backward(log: Log, feed: Feed, filter: str, key: str, before: int, most: int) -> list[Record]:
    window = feed.window
    found = [r for r in reversed(window.after(window.floor, filter)) if r.offset < before]
    at = feed.epochs.at(min(before, window.floor + 1))
    if len(found) < most and key:
        walk = await log.walk(feed.partition, key, Position(0, 0))
        if walk.reason in ("", "trimmed"):  # all of the key that is kept
            return [r for r in reversed(_passing(walk.records, filter)) if r.offset < before][:most]
    for _ in range(limits.HISTORY_PAGES):
        if len(found) >= most:
            return found[:most]
        page = await log.read_back(feed.partition, at, limits.LOG_PAGE)
        if page.position == at:
            return found
        found = _passing(found + page.records, filter)
        at = page.position
    raise _too_far()


def _passing(records: Sequence[Record], filter: str) -> list[Record]:
    """Those that pass ``filter``, each event once: its writer may have lost an answer and appended it again."""
    once: dict[tuple[str, str], Record] = {}
    for record in records:
        if matches(filter, record.event.topic):
            once.setdefault((record.event.topic, record.event.id), record)
    return list(once.values())


def _too_far() -> GatewayError:
    return LimitReached("too much else lies between the events asked for", "ask from a nearer position, or for fewer")
