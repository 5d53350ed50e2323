"""The connections to one service: shared in order, and kept for the next request where that is safe."""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from urllib.parse import urlsplit

from gateway import limits
from gateway.adapters.http_connection import Connection


class NoRoom(Exception):
    """All connections were busy for as long as one may wait."""


class NotThere(Exception):
    """Nobody accepts a connection."""


class Connections:
    """All connections to one service, ``limits.FORWARDS`` at most; who waits for one gets it in order."""

    def __init__(self, url: str, tls: ssl.SSLContext) -> None:
        at = urlsplit(url)
        self._host, self._tls = at.hostname or "", tls if at.scheme == "https" else None
        self._port = at.port or (443 if self._tls else 80)
        #: As a Host header wants it.
        self.authority = at.netloc.encode()
        self._free = limits.FORWARDS
        #: As many as clients ask at once, for ``limits.FORWARD_WAIT`` at most.
        self._waiting: deque[asyncio.Future[None]] = deque()
        #: The one used last is taken first, so that what a rush needed ends after it.
        self._idle: list[Connection] = []

    async def take(self) -> Connection:
        """Return a connection that nobody else uses until `give`. Raises :class:`NoRoom`, :class:`NotThere`."""
        if self._free:
            self._free -= 1
        else:
            await self._turn()
        while self._idle:
            connection = self._idle.pop()
            if not connection.stale:
                return connection
            connection.abort()
        connected = False
        try:
            connection = await self._connect()
            connected = True
        finally:
            if not connected:
                self._pass_on()
        return connection

    def give(self, connection: Connection) -> None:
        """Keep it for the next request where that is safe; else end it."""
        if connection.usable:
            connection.rest()
            self._idle.append(connection)
        else:
            connection.abort()
        self._pass_on()

    def close(self) -> None:
        """End those that wait idle."""
        for connection in self._idle.copy():
            connection.abort()
        self._idle.clear()

    def _forget(self, connection: Connection) -> None:
        if connection in self._idle:
            self._idle.remove(connection)

    async def _turn(self) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        taken = False
        try:
            async with asyncio.timeout(limits.FORWARD_WAIT):
                await turn
            taken = True
        except TimeoutError:
            raise NoRoom from None
        finally:
            if not taken and turn.done() and not turn.cancelled():
                self._pass_on()  # it came, and nobody is there to take it
            elif turn in self._waiting:
                self._waiting.remove(turn)

    def _pass_on(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(limits.FORWARD_CONNECT_WITHIN):
                _, connection = await loop.create_connection(
                    lambda: Connection(self._forget), self._host, self._port, ssl=self._tls
                )
        except (OSError, TimeoutError) as error:
            raise NotThere(str(error) or type(error).__name__) from None
        return connection
