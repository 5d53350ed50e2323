"""Server-Sent Events (WHATWG HTML, 9.2): one watcher's stream, as bytes to be sent when its socket takes them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gateway import limits
from gateway.core.sendqueue import SendQueue

#: Tells the browser to wait a second before it comes back.
OPENING = b"retry: 1000\n"
COMMENT = b":\n\n"


def event(cursor: str, data: bytes) -> bytes:
    """Return one event. ``data`` is one line; ``cursor`` comes back as ``Last-Event-ID``."""
    return b"id: %s\ndata: %s\n\n" % (cursor.encode(), data)


def mark(cursor: str) -> bytes:
    """Return a block that moves the client's position and shows it nothing."""
    return b"id: %s\n\n" % cursor.encode()


def notice(name: str, data: bytes, cursor: str = "") -> bytes:
    """Return an event of another name than ``message``; it moves the client's position where it has a ``cursor``."""
    moved = b"id: %s\n" % cursor.encode() if cursor else b""
    return b"event: %s\n%sdata: %s\n\n" % (name.encode(), moved, data)


class Stream:
    """One SSE client: fan-out offers, the HTTP response takes. It ends when it is too slow or must come back."""

    def __init__(self, leave: Callable[[Stream], object]) -> None:
        self._leave = leave
        self._queue = SendQueue()
        self._filled = asyncio.Event()
        self._over = False
        #: Bytes of the last block that was taken: its socket may not have, until the next one is asked for.
        self._taken = 0
        #: It ended because its reader did not read.
        self.slow = False

    @property
    def queue(self) -> Stream:
        return self

    @property
    def busy(self) -> bool:
        return len(self._queue) > 0

    @property
    def size(self) -> int:
        return self._queue.size + self._taken

    def share(self, queues: list[Stream], data: bytes) -> None:
        for stream in queues:
            stream._filled.set()
            if not stream._queue.offer(data):
                stream.too_slow()

    def too_slow(self) -> None:
        # It may never read again: whoever waits for its socket must hold neither frames nor a place in fan-out.
        self.slow = True
        self._leave(self)
        self._taken += len(self._queue.take())  # dropped, but told of for as long as it does not read
        self.finish()

    def come_back(self, filter: str) -> None:
        self.detach(filter)
        self.finish()

    def detach(self, filter: str) -> None:
        self._leave(self)

    def finish(self) -> None:
        """End: what waits is not sent any more."""
        self._over = True
        self._filled.set()

    async def block(self, until: float | None = None) -> bytes:
        """Return what was offered, joined; a comment when nothing was for a while; nothing when it is over.

        It is over when it must come back, and ``until`` has passed, by the loop's clock.
        """
        self._taken = 0
        loop = asyncio.get_running_loop()
        comment = loop.time() + limits.SSE_COMMENT_EVERY
        try:
            async with asyncio.timeout_at(comment if until is None else min(comment, until)):
                await self._filled.wait()
        except TimeoutError:
            return b"" if until is not None and loop.time() >= until else COMMENT
        if self._over or (until is not None and loop.time() >= until):
            return b""
        self._filled.clear()
        block = self._queue.take()
        self._taken = len(block)
        return block
