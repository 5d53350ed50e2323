"""What the log remembers: pages, the chain of one key, heads, last values."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import cast

import msgspec

from gateway import limits
from gateway.adapters.log import entry, epochs
from gateway.adapters.log.entry import Control, Corrupt, Moved
from gateway.adapters.log.keys import REPLAYS, Counters, log_key, part, parts
from gateway.adapters.log.link import WALK, Link, good
from gateway.adapters.log.resp import Reply, last_id, pack
from gateway.core.event import Partition, Position, Record
from gateway.core.resume import Epochs


class Walk(msgspec.Struct, frozen=True):
    """The events of one key after a position, oldest first, and whether that is all of them.

    ``reason`` of an incomplete one: ``epoch`` (the log lost what the reader had seen), ``trimmed``, ``too_many``
    (``records`` are the newest), ``corrupt``. ``top`` is where the partition stood: the reader's next position.
    """

    records: list[Record]
    top: Position
    complete: bool
    reason: str = ""


class Page(msgspec.Struct, frozen=True):
    """Some entries' events in order, and the position they reach, control entries included."""

    records: list[Record]
    position: Position
    #: Everything after this offset, up to ``position``, is here. Above what was asked for where something of that is
    #: missing: trimmed, or not fit to be delivered.
    floor: int = 0
    lost: bool = False


class History:
    """Reading back, by connections of its own: large answers do not stand before appends."""

    def __init__(self, links: Callable[[Partition], Link], counters: Counters) -> None:
        self._links = links
        self._counters = counters

    async def walk(self, partition: Partition, key: str, after: Position, limit: int) -> Walk:
        keys = parts(partition, "epochs", "heads")
        events = min(limit, limits.WALK_EVENTS)
        reply = await self._links(partition).run(WALK, keys, key, after.epoch, after.offset, events, limits.WALK_BYTES)
        top, reason, entries = cast("tuple[bytes, bytes, list[Reply]]", reply)
        records = self._records(partition, reversed(entries))
        why = reason.decode() or ("corrupt" if len(records) < len(entries) else "")
        return Walk(records, entry.position(top), not why, why)

    async def read(self, partition: Partition, after: Position, count: int, link: Link) -> Page:
        reply = await link.ask("XRANGE", log_key(partition), f"({after}", "+", "COUNT", count)
        entries = cast("list[Reply]", reply)
        records: list[Record] = []
        position, floor = after, after.offset
        for start in range(0, len(entries), limits.LOG_PAGE):
            if start:
                await asyncio.sleep(0)  # thousands take tens of milliseconds, and others are on this loop
            for one in entries[start : start + limits.LOG_PAGE]:
                thing = entry.read(partition, one)
                at = _at(thing)
                if at.offset >= REPLAYS:
                    self._counters.corrupt += 1
                    return Page(records, position, floor, lost=floor > after.offset)
                if at.offset != position.offset + 1:
                    floor = at.offset - 1
                position = at
                if isinstance(thing, Record):
                    records.append(thing)
                elif isinstance(thing, Corrupt):
                    self._counters.corrupt += 1
                    floor = at.offset
        return Page(records, position, floor, lost=floor > after.offset)

    async def read_back(self, partition: Partition, before: Position, count: int) -> Page:
        """As `read`, newest first; ``lost`` is not told."""
        reply = await self._links(partition).ask("XREVRANGE", log_key(partition), f"({before}", "-", "COUNT", count)
        things = [entry.read(partition, one) for one in cast("list[Reply]", reply)]
        return Page(self._kept(things), _at(things[-1]) if things else before)

    async def top(self, partition: Partition) -> Position:
        """The last position ever given."""
        reply = await self._links(partition).call(pack("XINFO", "STREAM", log_key(partition)))
        return entry.position(last_id(reply[0]))

    async def floor(self, partition: Partition) -> int:
        """The offset before the oldest kept entry: whoever stands there or later has missed nothing that went."""
        reply = await self._links(partition).call(
            pack("XRANGE", log_key(partition), "-", "+", "COUNT", 1), pack("XINFO", "STREAM", log_key(partition))
        )
        oldest = cast("list[list[Reply]]", good(reply[0]))
        if oldest:
            return entry.position(cast("bytes", oldest[0][0])).offset - 1
        return entry.position(last_id(reply[1])).offset

    async def newest(self, partition: Partition, count: int) -> list[Record]:
        """The newest ``count`` entries' events, oldest first."""
        reply = await self._links(partition).ask("XREVRANGE", log_key(partition), "+", "-", "COUNT", count)
        return self._records(partition, reversed(cast("list[Reply]", reply)))

    async def heads(self, partition: Partition, keys: Sequence[str]) -> list[int | None]:
        if not keys:
            return []
        reply = await self._links(partition).ask("HMGET", part(partition, "heads"), *keys)
        return [None if head is None else int(head) for head in cast("list[bytes | None]", reply)]

    async def epochs(self, partition: Partition) -> Epochs:
        return epochs.table(good((await self._links(partition).call(epochs.ask(partition)))[0]))

    async def last(self, partition: Partition, topics: Sequence[str] | None, limit: int) -> list[Record]:
        key = part(partition, "last")
        found: dict[bytes, bytes] = {}
        if topics is not None:
            asked = [topic.encode() for topic in topics[:limit]]
            for start in range(0, len(asked), limits.LOG_PAGE):
                page = asked[start : start + limits.LOG_PAGE]
                values = cast("list[bytes | None]", await self._links(partition).ask("HMGET", key, *page))
                found.update((topic, value) for topic, value in zip(page, values, strict=True) if value is not None)
        else:
            cursor = b"0"
            while len(found) < limit:
                reply = await self._links(partition).ask("HSCAN", key, cursor, "COUNT", limits.LOG_PAGE)
                cursor, flat = cast("tuple[bytes, list[bytes]]", reply)
                found.update(zip(flat[::2], flat[1::2], strict=True))
                if cursor == b"0":
                    break
        records = [entry.read_last(partition, topic, value) for topic, value in list(found.items())[:limit]]
        return self._kept(records)

    def _records(self, partition: Partition, entries: Iterable[Reply]) -> list[Record]:
        return self._kept(entry.read(partition, one) for one in entries)

    def _kept(self, things: Iterable[Record | Control | Moved | Corrupt]) -> list[Record]:
        records = []
        for thing in things:
            if isinstance(thing, Record):
                records.append(thing)
            elif isinstance(thing, Corrupt):
                self._counters.corrupt += 1
        return records


def _at(thing: Record | Control | Moved | Corrupt) -> Position:
    return Position(thing.epoch, thing.offset) if isinstance(thing, Record) else thing.at
