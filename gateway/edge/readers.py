"""Which partitions an edge reads: a reader starts with the first who asks, and ends some time after the last."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from gateway import limits
from gateway.adapters.log import Log, Moved
from gateway.core.declared import Declared, Found
from gateway.core.event import Partition
from gateway.core.fanout import Fanout
from gateway.edge.feed import Feed
from gateway.errors import Unavailable


class Readers:
    """The feeds of one edge, each with the task that reads it."""

    def __init__(
        self,
        log: Log,
        declared: Declared,
        fanout: Fanout,
        late: Callable[[float], None],
        spawn: Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None]],
        hear: Callable[[Moved], None],
    ) -> None:
        self._log, self._declared, self._fanout = log, declared, fanout
        self._late, self._spawn, self._hear = late, spawn, hear
        self._feeds: dict[Partition, Feed] = {}
        self._tasks: dict[Partition, asyncio.Task[None]] = {}
        self._idle_since: dict[Partition, float] = {}
        #: The edge goes down: watchers of a reader that ends are told by their own door.
        self.ended = False

    def __len__(self) -> int:
        return len(self._tasks)

    def lag(self) -> float:
        """Seconds by which the reader that is furthest behind is: see :meth:`Feed.lag`."""
        now = asyncio.get_running_loop().time()
        return max((feed.lag(now) for feed in self._feeds.values()), default=0.0)

    def feed(self, partition: Partition) -> Feed:
        """Return the feed of ``partition``; its reader starts with the first who asks."""
        feed = self._feeds.get(partition)
        if feed is None:
            feed = Feed(self._log, partition, self._fanout, self._late, self._spawn, self._hear)
            self._feeds[partition] = feed
            reader = self._spawn(feed.run(), f"reader-{partition}")
            self._tasks[partition] = reader
            reader.add_done_callback(lambda _: self._forget_reader(partition, feed))
        self._idle_since.pop(partition, None)
        return feed

    def _forget_reader(self, partition: Partition, feed: Feed) -> None:
        if self._feeds.get(partition) is feed:
            del self._feeds[partition], self._tasks[partition]
        if not self.ended:
            feed.end()

    async def feeds_of(self, met: list[Found]) -> list[Feed]:
        """Return the feeds of all that ``met`` may reach, ready; raises :class:`Unavailable`."""
        feeds = [self.feed(partition) for partition in sorted(self._declared.places(met))]
        try:
            async with asyncio.timeout(limits.READY_WITHIN):
                for feed in feeds:
                    await feed.ready.wait()
        except TimeoutError:
            raise Unavailable("the log cannot be read now", "subscribe again", retry_after=1.0) from None
        return feeds

    async def stop_idle(self) -> None:
        while True:
            await asyncio.sleep(limits.READER_IDLE / 10)
            now = asyncio.get_running_loop().time()
            for feed in self._feeds.values():
                feed.backlog.tidy()
            for partition, reader in list(self._tasks.items()):
                if self._fanout.wanted(partition):
                    self._idle_since.pop(partition, None)
                elif now - self._idle_since.setdefault(partition, now) > limits.READER_IDLE:
                    # Forgotten before it has ended: whoever comes meanwhile must not join a feed that nobody reads.
                    del self._feeds[partition], self._tasks[partition], self._idle_since[partition]
                    reader.cancel()
