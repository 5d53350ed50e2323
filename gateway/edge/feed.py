"""A partition as one edge sees it: its tail, its window, and everyone in this process who watches it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any, Protocol, cast

from gateway import limits
from gateway.adapters.log import Batch, Log, Moved, Tail
from gateway.core.event import Event, Partition, Position, Record
from gateway.core.fanout import Fanout, Sink
from gateway.core.resume import Epochs
from gateway.core.window import Window
from gateway.edge.backlog import Backlog
from gateway.errors import Unavailable


class Watcher(Sink, Protocol):
    """A client of this edge, as its feeds see it."""

    def come_back(self, filter: str) -> None:
        """Its subscription to ``filter`` is over, and to be asked for again from the position it has."""

    def detach(self, filter: str) -> None:
        """Have nothing more of ``filter`` from now on."""


class Feed:
    """Reads one partition's tail once, whoever watches."""

    def __init__(
        self,
        log: Log,
        partition: Partition,
        fanout: Fanout,
        late: Callable[[float], None],
        spawn: Callable[[Coroutine[Any, Any, None], str], object],
        hear: Callable[[Moved], None],
    ) -> None:
        self.partition = partition
        self.window = Window(limits.WINDOW_ENTRIES, limits.WINDOW_BYTES)
        #: Everything up to here has been offered to those who watched.
        self.position = Position(0, 0)
        self.epochs = Epochs({})
        #: What the window does not hold any more.
        self.backlog = Backlog(log, partition, self.window, lambda offset: self.epochs.at(offset), spawn)
        self.ready = asyncio.Event()
        self._log = log
        self._fanout = fanout
        #: Told how many seconds after its ingest the newest event of a batch was offered.
        self._late = late
        #: Told who came to a topic of this partition, and who left.
        self._hear = hear
        #: Runs a task that the edge owns.
        self._spawn = spawn
        self._moved: list[tuple[int, asyncio.Future[None]]] = []
        self._tail: Tail | None = None

    async def run(self) -> None:
        """Follow the tail until cancelled; a log server that goes away is waited for."""
        tail = self._tail = self._log.tail(self.partition)
        try:
            await self._start(tail)
            async for batch in tail:
                await self._take(batch, tail.position)
        finally:
            await tail.close()

    def lag(self, now: float) -> float:
        """Seconds since nothing of the partition was left to read, beside the time that a quiet read takes."""
        return 0.0 if self._tail is None else max(0.0, now - self._tail.ended_at - limits.TAIL_BLOCK)

    async def _start(self, tail: Tail) -> None:
        records = None
        while records is None:
            try:
                records = await tail.start(limits.WINDOW_ENTRIES)
                self.epochs = await self._log.epochs(self.partition)
            except Unavailable:
                records = None
                await asyncio.sleep(limits.LOG_BACKOFF[1])
        self.window.start(records[0].offset - 1 if records else tail.position.offset)
        for record in records:
            self.window.add(record)
        self.position = tail.position
        self.ready.set()

    async def _take(self, batch: Batch, position: Position) -> None:
        if batch.lost:
            # What lies between is unknown here: recovery from before it has to ask the log.
            self.window.start(batch.records[0].offset - 1 if batch.records else position.offset)
        if batch.opened is not None or batch.lost:
            # Nobody may see a push of the new epoch before he has subscribed to it: SDKs learn an epoch only from
            # a reply, and would come back with the old one and an offset it never had.
            before = [r for r in batch.records if r.epoch == self.position.epoch] if not batch.lost else []
            await self._send(before, batch.live)
            self.backlog.forget()
            self.epochs = batch.opened or self.epochs
            self._spawn(_return(self._let_go()), f"return-{self.partition}")
            for record in batch.records[len(before) :]:
                self.window.add(record)
        else:
            await self._send(batch.records, batch.live)
        for moved in batch.moved:
            self._hear(moved)
        self._move(position)

    def _move(self, position: Position) -> None:
        self.position = position
        for offset, moved in self._moved:
            if offset <= position.offset and not moved.done():
                moved.set_result(None)
        self._moved = [(offset, moved) for offset, moved in self._moved if not moved.done()]

    async def _send(self, records: Sequence[Record], live: Sequence[Event]) -> None:
        for part in _slices(records):
            self._offer(part, ())
            self._move(Position(part[-1].epoch, part[-1].offset))
            if part[-1] is not records[-1]:
                await self._breathe()
        if live:
            self._offer((), live)

    async def _breathe(self) -> None:
        """Let a slice of a burst leave before the next: a burst alone is no reason to call a client slow.

        Not for long, and not for a few: who does not read is closed, and the others go on.
        """
        await asyncio.sleep(0)
        looks = 50
        for _ in range(looks):
            if not self._fanout.behind():
                return
            await asyncio.sleep(limits.SLICE_WITHIN / looks)

    def _offer(self, records: Sequence[Record], live: Sequence[Event]) -> None:
        fresh = [record for record in records if self.window.add(record)]
        self._fanout.send(fresh, live)
        if fresh and (ts := fresh[-1].event.meta.ts):
            self._late(max(0.0, time.time() - ts / 1000))

    def _let_go(self) -> list[tuple[Watcher, str]]:
        """Detach everyone who watches; return whom to tell."""
        returning: list[tuple[Watcher, str]] = []
        for interest in self._fanout.of(self.partition):
            for sink in list(interest):
                watcher = cast("Watcher", sink)
                watcher.detach(interest.filter)
                returning.append((watcher, interest.filter))
        return returning

    def end(self) -> None:
        """The reader is gone: whoever waits for it, or watches, is told to ask again."""
        for watcher, filter in self._let_go():
            watcher.come_back(filter)
        for _, moved in self._moved:
            if not moved.done():
                moved.set_exception(Unavailable("the reader of this partition ended", "subscribe again"))

    async def reached(self, offset: int) -> None:
        """Wait until everything up to ``offset`` has been offered."""
        if self.position.offset < offset:
            moved: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._moved.append((offset, moved))
            await moved


async def _return(watchers: Sequence[tuple[Watcher, str]]) -> None:
    """Tell ``watchers`` to subscribe again, paced: every one of them does so at once."""
    for start in range(0, len(watchers), limits.RETURNS_AT_ONCE):
        if start:
            await asyncio.sleep(limits.RETURN_PAUSE)
        for watcher, filter in watchers[start : start + limits.RETURNS_AT_ONCE]:
            watcher.come_back(filter)


def _slices(records: Sequence[Record]) -> Iterator[Sequence[Record]]:
    """Cut ``records`` so that no slice fills a client's queue by itself."""
    start = size = 0
    for end, record in enumerate(records):
        size += len(record.event.data)
        if size > limits.SLICE_BYTES and end > start:
            yield records[start:end]
            start, size = end, len(record.event.data)
    if start < len(records):
        yield records[start:]
