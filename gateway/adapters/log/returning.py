"""A reader of the log that comes back: it reconnects by itself for ever, until it is closed."""

from __future__ import annotations

import asyncio
from typing import Generic, TypeVar

from gateway.adapters.log.link import Link, backoff
from gateway.adapters.log.resp import Wire
from gateway.errors import Unavailable

T = TypeVar("T")


class Returning(Generic[T]):
    """Iterate, then `close` it. While the server is away it waits, with the pauses of `limits.LOG_BACKOFF`."""

    def __init__(self, link: Link) -> None:
        self._link = link

    @property
    def closed(self) -> bool:
        return self._link.closed

    async def close(self) -> None:
        """End the connection, and with it the iteration."""
        await self._link.close()

    def __aiter__(self) -> Returning[T]:
        return self

    async def __anext__(self) -> T:
        """The next one, however long it takes; never an empty one."""
        tries = 0
        while True:
            try:
                found = await self._next(await self._link.wire())
                tries = 0
            except Unavailable:
                if self.closed:
                    raise StopAsyncIteration from None
                await asyncio.sleep(backoff(tries))
                tries += 1
                continue
            if found is not None:
                return found

    async def _next(self, wire: Wire) -> T | None:
        """Read once on ``wire``, which may be a new connection; None where nothing came."""
        raise NotImplementedError
