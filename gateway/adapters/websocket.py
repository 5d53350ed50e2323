"""A WebSocket client's connection: uvicorn's door, our frames, and one write for everything that waits.

uvicorn accepts a WebSocket protocol class of the application's own, so HTTP and WebSocket share one port while no
queue, task or await stands between an event and ``transport.write``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol, cast

from uvicorn.config import Config
from uvicorn.server import ServerState

from gateway import limits
from gateway.core import frame, handshake
from gateway.core.sendqueue import SendQueue
from gateway.core.session import NORMAL, SHUTDOWN, SLOW, Close


class Client(Protocol):
    """What the edge makes of a connection."""

    @property
    def subprotocol(self) -> str | None:
        """The subprotocol of the client's list that it speaks; None where there is none, or it has no list."""

    def received(self, text: bytes) -> None:
        """One text message came."""

    def received_binary(self, data: bytes) -> None:
        """One binary message came."""

    def lost(self) -> None:
        """The connection is gone; nothing can be sent any more."""


#: Answers a handshake: with a client, or with the refusal to send.
Welcome = Callable[["Connection", handshake.Request], Client | handshake.Refused]


class Turn:
    """The connections with something to write in this turn of the loop; each is written once, at its end."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: list[Connection] = []

    def add(self, connection: Connection) -> None:
        if not self._waiting:
            self._loop.call_soon(self._flush)
        self._waiting.append(connection)

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        for connection in waiting:
            connection.flush()


class Connection(asyncio.Protocol):
    """One client's socket. Frames go out by :meth:`offer`, at the end of the turn; text comes in to its client."""

    __slots__ = (
        "_client",
        "_clients",
        "_closing",
        "_drained",
        "_paused",
        "_queue",
        "_reader",
        "_transport",
        "_turn",
        "_welcome",
    )

    def __init__(self, welcome: Welcome, turn: Turn, clients: set[Any]) -> None:
        self._welcome = welcome
        self._turn = turn
        self._clients = clients
        self._queue = SendQueue()
        self._reader = frame.FrameReader(limits.MESSAGE_BYTES)
        self._client: Client | None = None
        self._transport: asyncio.Transport | None = None
        self._paused = False
        self._closing = False
        self._drained: asyncio.Future[None] | None = None

    # --- asyncio calls these ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(limits.TRANSPORT_BYTES)
        self._clients.add(self)

    def data_received(self, data: bytes) -> None:
        if self._closing or self._transport is None:
            return
        if self._client is None:
            self._open(data)
            return
        for message in self._reader.feed(data):
            if message.opcode == frame.TEXT:
                self._client.received(message.payload)
            elif message.opcode == frame.PING:
                self.offer(frame.pong(message.payload))
            elif message.opcode == frame.CLOSE:
                self._end(frame.encode(frame.CLOSE, message.payload[:2]))
            elif message.opcode == frame.BINARY:
                self._client.received_binary(message.payload)
            if self.gone:
                return
        if self._reader.error is not None:
            self.close(Close(self._reader.error.close_code, self._reader.error.reason))

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self._clients.discard(self)
        self._closing = True
        self._transport = None
        self._wake()
        client, self._client = self._client, None
        if client is not None:
            client.lost()

    def shutdown(self) -> None:
        """uvicorn calls this on every connection that is still there when it stops."""
        self.close(SHUTDOWN if self._client else NORMAL)

    # --- the edge calls these ---

    def offer(self, data: bytes) -> bool:
        """Take whole frames for the write at the end of this turn; return False when too much waits already."""
        if self._closing:
            return True  # our close frame is the last that may leave (RFC 6455, 5.5.1); nobody is slow any more
        if not len(self._queue) and not self._paused:
            self._turn.add(self)
        return self._queue.offer(data)

    def send(self, data: bytes) -> None:
        """Send one whole frame to this client alone; a client too slow for it is closed."""
        if not self.offer(data):
            self.too_slow()

    async def drained(self, most: int = 0) -> None:
        """Wait until at most ``most`` bytes wait beside what the transport may hold, or the connection is gone.

        Callers are woken one after the other, and each looks again: what the first of them sends counts for the next.
        """
        while (self._paused or self._queue.size > most) and not self._closing:
            if self._drained is None:
                self._drained = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._drained)

    @property
    def busy(self) -> bool:
        """Something offered has not left yet, or fills the transport's buffer."""
        return self._paused or self._queue.size > 0

    @property
    def gone(self) -> bool:
        return self._closing

    def flush(self) -> None:
        if not self._paused and not self._closing and len(self._queue) and self._transport is not None:
            self._transport.write(self._queue.take())
        if self._drained is not None and not self._paused:
            self._wake()

    def _wake(self) -> None:
        drained, self._drained = self._drained, None
        if drained is not None and not drained.done():
            drained.set_result(None)

    def too_slow(self) -> None:
        """Give up on a reader that does not read. It comes back, and resumes from its position."""
        self._queue.take()
        self.close(SLOW)

    def close(self, why: Close) -> None:
        """Say why, and hang up. SDKs decide by the code whether they come back."""
        self._end(frame.close(why.code, why.reason))

    def _end(self, goodbye: bytes) -> None:
        transport = self._transport
        if self._closing or transport is None:
            return
        self._closing = True
        self._wake()
        transport.write((self._queue.take() if len(self._queue) else b"") + goodbye)
        transport.close()
        # A peer that does not read would hold the transport's buffer for ever.
        asyncio.get_running_loop().call_later(limits.CLOSE_WITHIN, transport.abort)

    def _open(self, head: bytes) -> None:
        transport = cast("asyncio.Transport", self._transport)
        request = handshake.parse(head)
        answer = request if isinstance(request, handshake.Refused) else self._welcome(self, request)
        if isinstance(answer, handshake.Refused):
            self._closing = True
            transport.write(answer.response())
            transport.close()
            return
        transport.write(handshake.accept(cast("handshake.Request", request), answer.subprotocol))
        self._client = answer


def protocol(welcome: Welcome, loop: asyncio.AbstractEventLoop) -> Callable[..., asyncio.Protocol]:
    """Return what ``uvicorn.Config(ws=…)`` takes: a factory of connections that ``welcome`` answers."""
    turn = Turn(loop)

    def make(*, config: Config, server_state: ServerState, app_state: dict[str, Any]) -> asyncio.Protocol:
        return Connection(welcome, turn, cast("set[Any]", server_state.connections))

    return make
