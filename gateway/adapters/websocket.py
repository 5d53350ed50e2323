"""A WebSocket client's connection: uvicorn's door, our frames, and one write for everything that waits.

uvicorn accepts a WebSocket protocol class of the application's own, so HTTP and WebSocket share one port while no
queue, task or await stands between an event and ``write(2)``.
"""

from __future__ import annotations

import asyncio
import os
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

    def too_slow(self) -> None:
        """What it was sent does not fit any more: see :meth:`Connection.too_slow`."""

    def lost(self) -> None:
        """The connection is gone; nothing can be sent any more."""


#: Answers a handshake: with a client, or with the refusal to send.
Welcome = Callable[["Connection", handshake.Request], Client | handshake.Refused]
#: Told how a client's connection ended: by ``us`` or by the ``client``, and the code (RFC 6455, 7.1.5).
Ended = Callable[[str, int], None]


class Turn:
    """The connections with something to write in this turn of the loop; each is written once, at its end."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ended: Ended) -> None:
        self._loop = loop
        self.ended = ended
        self._waiting: list[Connection] = []
        #: What all of these are to have, behind what each has waiting. No step but the write is taken for one of them.
        self._shared: tuple[list[Connection], bytes] | None = None

    def add(self, connection: Connection) -> None:
        if not self._waiting:
            self._loop.call_soon(self._flush)
        self._waiting.append(connection)

    def share(self, connections: list[Connection], block: bytes) -> None:
        """Send ``block`` to all ``connections``, at the end of this turn."""
        shared = self._shared
        if shared is not None and shared[0] == connections and len(shared[1]) + len(block) <= limits.SEND_BYTES:
            self._shared = connections, shared[1] + block
        elif shared is None:
            if not self._waiting:
                self._loop.call_soon(self._flush)
            self._shared = connections, block
        else:
            for connection in connections:
                connection.send(block)

    def settle(self) -> None:
        """Let everybody have for himself what is shared, before something else happens to one of them."""
        if self._shared is not None:
            (connections, block), self._shared = self._shared, None
            for connection in connections:
                connection.send(block)

    def _flush(self) -> None:
        if self._shared is not None:
            (connections, block), self._shared = self._shared, None
            write, size = os.write, len(block)
            for connection in connections:
                fd = connection.fd
                if fd is None or connection._waiting is not None:
                    connection.send(block)
                    continue
                try:
                    sent = write(fd, block)
                except OSError:  # full, or broken: the transport finds out which
                    sent = 0
                if sent < size:
                    connection.write(block[sent:])
        waiting, self._waiting = self._waiting, []
        for connection in waiting:
            connection.flush()


class Connection(asyncio.Protocol):
    """One client's socket. Frames go out by :meth:`send`, at the end of the turn; text comes in to its client."""

    __slots__ = (
        "_client",
        "_clients",
        "_closing",
        "_drained",
        "_paused",
        "_reader",
        "_socket",
        "_transport",
        "_turn",
        "_waiting",
        "_welcome",
        "fd",
    )

    def __init__(self, welcome: Welcome, turn: Turn, clients: set[Any]) -> None:
        self._welcome = welcome
        self._turn = turn
        self._clients = clients
        #: What waits: nothing, one block as mostly, or more. An empty block: nothing is taken any more.
        self._waiting: bytes | SendQueue | None = None
        #: The socket; None under TLS.
        self._socket: int | None = None
        #: The same while the transport's buffer is empty, and nobody is to be told that something left. Then a block is
        #: written past the transport, whose own write takes twice as long where sockets are many.
        self.fd: int | None = None
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
        if transport.get_extra_info("ssl_object") is None:
            self._socket = transport.get_extra_info("socket").fileno()
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
                self.send(frame.pong(message.payload))
            elif message.opcode == frame.CLOSE:
                self._end(frame.encode(frame.CLOSE, message.payload[:2]), "client", _code(message.payload))
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
        if self._client is not None and not self._closing:
            self._turn.ended("client", 1006)
        self._stop()
        self._transport = None
        client, self._client = self._client, None
        if client is not None:
            client.lost()

    def shutdown(self) -> None:
        """uvicorn calls this on every connection that is still there when it stops."""
        self.close(SHUTDOWN if self._client else NORMAL)

    # --- the edge calls these ---

    def offer(self, data: bytes) -> bool:
        """Take whole frames for the write at the end of this turn; return False when too much waits already."""
        self._turn.settle()
        waiting = self._waiting
        if waiting is None:
            self._waiting = data
            self._turn.add(self)
            return True
        if self._closing:
            return True  # our close frame is the last that may leave (RFC 6455, 5.5.1); nobody is slow any more
        if isinstance(waiting, bytes):
            self._waiting = queue = SendQueue()
            queue.offer(waiting)
            waiting = queue
        return waiting.offer(data)

    def send(self, data: bytes) -> None:
        """Send whole frames to this client; one too slow for them is given up."""
        if self.offer(data):
            return
        self.flush()  # what came at once is not slow before its socket has refused it
        if not self.offer(data) and self._client is not None:
            self._client.too_slow()

    def share(self, queues: list[Connection], data: bytes) -> None:
        """Send the same frames to all of these, of whom this is one."""
        self._turn.share(queues, data)

    async def drained(self, most: int = 0) -> None:
        """Wait until at most ``most`` bytes wait beside what the transport may hold, or the connection is gone.

        Callers are woken one after the other, and each looks again: what the first of them sends counts for the next.
        """
        while True:
            self._turn.settle()  # it counts
            if self._closing or not (self._paused or self._size > most):
                return
            if self._drained is None:
                self._drained = asyncio.get_running_loop().create_future()
            self.fd = None
            await asyncio.shield(self._drained)

    @property
    def busy(self) -> bool:
        """Something offered has not left yet, or fills the transport's buffer."""
        return self._paused or self._size > 0

    @property
    def waiting(self) -> int:
        """Bytes that the kernel has not taken yet."""
        return self._size + (0 if self._transport is None else self._transport.get_write_buffer_size())

    @property
    def _size(self) -> int:
        waiting = self._waiting
        return len(waiting or b"") if not isinstance(waiting, SendQueue) else waiting.size

    @property
    def gone(self) -> bool:
        return self._closing

    def flush(self) -> None:
        if self._paused or self._closing:
            return
        block = self._take()
        if self.fd is not None:
            try:
                block = block[os.write(self.fd, block) :]
            except OSError:
                self.fd = None
        if block or self.fd is None:
            self.write(block)

    def write(self, block: bytes) -> None:
        """Write through the transport, which keeps what the socket does not take."""
        transport = cast("asyncio.Transport", self._transport)
        transport.write(block)
        self.fd = None if transport.get_write_buffer_size() else self._socket
        if not self._paused:
            self._wake()

    def _take(self) -> bytes:
        waiting, self._waiting = self._waiting, None
        return waiting.take() if isinstance(waiting, SendQueue) else waiting or b""

    def _stop(self) -> None:
        """Take nothing more, and leave what was taken to the transport."""
        self._closing, self.fd, self._waiting = True, None, b""
        self._wake()

    def _wake(self) -> None:
        drained, self._drained = self._drained, None
        if drained is not None and not drained.done():
            drained.set_result(None)

    def too_slow(self) -> None:
        """Give up on a reader that does not read. It comes back, and resumes from its position."""
        self._take()
        self.close(SLOW)

    def close(self, why: Close) -> None:
        """Say why, and hang up. SDKs decide by the code whether they come back."""
        self._end(frame.close(why.code, why.reason), "us", why.code)

    def _end(self, goodbye: bytes, by: str, code: int) -> None:
        transport = self._transport
        if self._closing or transport is None:
            return
        if self._client is not None:
            self._turn.ended(by, code)
        self._turn.settle()
        last = self._take() + goodbye
        self._stop()
        transport.write(last)
        transport.close()
        # A peer that does not read would hold the transport's buffer for ever.
        asyncio.get_running_loop().call_later(limits.CLOSE_WITHIN, transport.abort)

    def _open(self, head: bytes) -> None:
        transport = cast("asyncio.Transport", self._transport)
        request = handshake.parse(head)
        answer = request if isinstance(request, handshake.Refused) else self._welcome(self, request)
        if isinstance(answer, handshake.Refused):
            self._stop()
            transport.write(answer.response())
            transport.close()
            return
        transport.write(handshake.accept(cast("handshake.Request", request), answer.subprotocol))
        self._client = answer


def _code(payload: bytes) -> int:
    return int.from_bytes(payload[:2], "big") or 1005


def protocol(
    welcome: Welcome, loop: asyncio.AbstractEventLoop, ended: Ended = lambda by, code: None
) -> Callable[..., asyncio.Protocol]:
    """Return what ``uvicorn.Config(ws=…)`` takes: a factory of connections that ``welcome`` answers."""
    turn = Turn(loop, ended)

    def make(*, config: Config, server_state: ServerState, app_state: dict[str, Any]) -> asyncio.Protocol:
        return Connection(welcome, turn, cast("set[Any]", server_state.connections))

    return make
