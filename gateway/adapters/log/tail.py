"""The tail of one partition: every entry once, in order, for all watchers of this process; a hole is never silent."""

from __future__ import annotations

import asyncio
from typing import cast

import msgspec

from gateway import limits
from gateway.adapters.log import entry, epochs
from gateway.adapters.log.entry import Control, Corrupt, Moved
from gateway.adapters.log.keys import REPLAYS, Counters, log_key, part
from gateway.adapters.log.link import Link, good
from gateway.adapters.log.resp import Reply, Wire, last_id, pack
from gateway.adapters.log.returning import Returning
from gateway.core.event import Event, Partition, Position, Record
from gateway.core.resume import Epochs


class Batch(msgspec.Struct):
    """What one read brought."""

    records: list[Record]
    #: Events that are not kept; they have no position.
    live: list[Event]
    #: The partition's epochs, where a new one began: subscribers must come back with their position.
    opened: Epochs | None = None
    #: Who came to which topic, and who left.
    moved: list[Moved] = []
    #: Entries before ``records`` were never seen here and are gone, or entries that were seen are gone: whatever
    #: was remembered of this partition no longer joins.
    lost: bool = False


class Tail(Returning[Batch]):
    """One reader of a partition and of its live stream. `start` it, then iterate; `close` it.

    It reconnects by itself for ever, with the pauses of `limits.LOG_BACKOFF`. One connection each: a blocked read
    would hold up any other request, and only readers of the same partition wake for an append.
    """

    def __init__(self, partition: Partition, link: Link, counters: Counters) -> None:
        self._partition = partition
        self._log, self._live = log_key(partition), part(partition, "live")
        super().__init__(link)
        self._counters = counters
        #: Last entry of ours that was yielded, control entries included.
        self.position = Position(0, 0)
        #: Where to read on: further than ``position`` where the entries after it are another program's.
        self._at = self.position
        self._live_at = b"0-0"
        self._lively = True
        self._checked: Wire | None = None
        #: When nothing was left to read, by the loop's clock.
        self.ended_at = asyncio.get_running_loop().time()

    async def start(self, fill: int) -> list[Record]:
        """Load the newest entries, oldest first, and stand at the log's top.

        At most ``fill`` entries and `limits.TAIL_FILL_BYTES`. Raises `Unavailable` when the server is away.
        """
        wire = await self._link.wire()
        self._at, self._live_at = await self._tops(wire)
        self.position = await self._ours(wire, self._at)
        if self.position != self._at:
            self._foreign(self._at)
        self._checked = wire
        newest: list[Record] = []
        before, left, size = str(self.position), fill, 0
        while left > 0 and size < limits.TAIL_FILL_BYTES:
            page = pack("XREVRANGE", self._log, before, "-", "COUNT", min(left, limits.LOG_PAGE))
            entries = cast("list[list[Reply]]", good((await wire.call(page))[0]))
            for one in entries:
                record = self._read(one)
                if isinstance(record, Record):
                    newest.append(record)
                    size += len(record.event.data) + 200
            if len(entries) < min(left, limits.LOG_PAGE):
                break
            left -= len(entries)
            before = f"({cast('bytes', entries[-1][0]).decode()}"
        newest.reverse()
        return newest

    async def start_at(self, offset: int) -> None:
        """Stand after ``offset``, to read the log alone; what is trimmed by then makes the first batch ``lost``.

        Raises `Unavailable` when the server is away.
        """
        wire = await self._link.wire()
        self.position = self._at = (await self._epochs(wire)).at(offset)
        self._lively = False
        self._checked = None

    async def _next(self, wire: Wire) -> Batch | None:
        return await self._joined(wire) or await self._read_on(wire)

    async def _joined(self, wire: Wire) -> Batch | None:
        """After a reconnect: does the server still have what we saw? A read beyond its top would wait for ever."""
        if self._checked is wire and self._at == self.position:
            return None
        top, live = await self._tops(wire)
        batch = None
        if top < self.position:
            # The log is shorter than what we saw. Whoever comes back with his position hears that from the epochs.
            ours, opened = await self._ours(wire, top), await self._epochs(wire)
            self.position, self._at = ours, top
            batch = Batch([], [], opened=opened, lost=True)
        elif top < self._at:
            self._at = self.position  # what was not ours is gone, and nothing of ours
        if entry.position(live) < entry.position(self._live_at):
            self._live_at = live
        self._checked = wire
        return batch

    async def _read_on(self, wire: Wire) -> Batch | None:
        streams: tuple[bytes | str, ...] = (self._log, self._live, str(self._at), self._live_at)
        if not self._lively:
            streams = (self._log, str(self._at))
        block = int(limits.TAIL_BLOCK * 1000)
        ask = pack("XREAD", "COUNT", limits.LOG_PAGE, "BLOCK", block, "STREAMS", *streams)
        reply = good((await wire.call(ask))[0])
        streams_read = cast("list[tuple[bytes, list[list[Reply]]]]", reply or [])
        if all(len(entries) < limits.LOG_PAGE for _, entries in streams_read):
            self.ended_at = asyncio.get_running_loop().time()
        if reply is None:
            self._checked = None  # a quiet log and a log that went back look alike: ask
            return None
        batch = Batch([], [])
        position, read_to, known = self.position, self._at, None
        for name, entries in streams_read:
            if name == self._live.encode():
                self._take_live(entries, batch)
                continue
            for one in entries:
                thing = self._read(one)
                at = read_to = Position(thing.epoch, thing.offset) if isinstance(thing, Record) else thing.at
                if at.epoch != position.epoch:
                    known = known or await self._epochs(wire)
                if at.offset >= REPLAYS or (known is not None and at.epoch not in known.first):
                    if not isinstance(thing, Corrupt):
                        self._foreign(at)
                    continue
                if at.offset != position.offset + 1:
                    batch.lost = True
                    # What was read before the hole joins no more with what comes after it.
                    batch.records.clear()
                position = at
                if isinstance(thing, Record):
                    batch.records.append(thing)
                elif isinstance(thing, Control):
                    batch.opened = Epochs({})
        if batch.opened is not None:
            batch.opened = await self._epochs(wire)
        self.position, self._at = position, read_to
        news = batch.records or batch.live or batch.moved or batch.lost or batch.opened is not None
        return batch if news else None

    def _take_live(self, entries: list[list[Reply]], batch: Batch) -> None:
        for one in entries:
            self._live_at = cast("bytes", one[0])
            thing = self._read(one)
            if isinstance(thing, Record):
                batch.live.append(thing.event)
            elif isinstance(thing, Moved):
                batch.moved.append(thing)

    def _read(self, one: Reply) -> Record | Control | Moved | Corrupt:
        thing = entry.read(self._partition, one)
        if isinstance(thing, Corrupt):
            self._counters.corrupt += 1
        return thing

    def _foreign(self, at: Position) -> None:
        """It stands where no append of ours does: it is passed by, and what follows our own stays to be read."""
        entry.corrupt(at, "foreign")
        self._counters.corrupt += 1

    async def _tops(self, wire: Wire) -> tuple[Position, bytes]:
        """The last id ever given in the log and in the live stream; zero where there is none."""
        log, live = await wire.call(pack("XINFO", "STREAM", self._log), pack("XINFO", "STREAM", self._live))
        return entry.position(last_id(log)), last_id(live)

    async def _ours(self, wire: Wire, top: Position) -> Position:
        """The last of ours up to ``top``, which may be another program's and stand above all that is to come."""
        current = (await self._epochs(wire)).current
        if not current or (top.epoch <= current and top.offset < REPLAYS):
            return top
        newest = pack("XREVRANGE", self._log, f"{current}-{REPLAYS - 1}", "-", "COUNT", 1)
        found = cast("list[list[Reply]]", good((await wire.call(newest))[0]))
        return entry.position(cast("bytes", found[0][0])) if found else Position(current, 0)

    async def _epochs(self, wire: Wire) -> Epochs:
        return epochs.table(good((await wire.call(epochs.ask(self._partition)))[0]))
