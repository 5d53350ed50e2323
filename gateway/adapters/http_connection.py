"""One connection to a service: a request and its answer, then the next, as long as both have clear ends."""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable
from typing import cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from gateway import limits

Headers = list[tuple[bytes, bytes]]


class BrokenOff(Exception):
    """The service went away before its answer was whole, or what it said is not HTTP."""


class Connection(asyncio.Protocol):
    """One connection: `begin`, then `send` the request while `head` and `part` give its answer."""

    def __init__(self, ended: Callable[[Connection], None]) -> None:
        """``ended`` is told, at least once, that nothing more can be asked here."""
        self.status = 0
        #: Of the answer; names in lower case.
        self.headers: Headers = []
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._poll = select.poll()
        self._parser: HttpResponseParser | None = None
        self._sent = self._bodiless = self._begun = self._whole = self._keep = self._until_closed = False
        self._error: BaseException | None = None
        self._parts: list[bytes] = []
        self._held = self._quiet = 0
        self._paused = False
        self._heard: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    # --- the pool calls these ---

    @property
    def usable(self) -> bool:
        """Whether another request may follow on it; asked once the answer was read."""
        clear = self._whole and self._keep and self._sent and not self._paused
        return clear and not self._transport.is_closing()

    @property
    def stale(self) -> bool:
        """Whether the service said or ended something while nobody asked: the loop may not have told it yet."""
        return self._transport.is_closing() or bool(self._poll.poll(0))

    def rest(self) -> None:
        """Wait for the next request, ``limits.FORWARD_IDLE`` at most."""
        self._parser = None
        self.patience(limits.FORWARD_IDLE)

    def abort(self) -> None:
        self._patient()
        self._transport.abort()

    # --- who asks calls these ---

    def begin(self, bodiless: bool) -> None:
        """Expect an answer, ``bodiless`` to a HEAD (RFC 9110, 9.3.2)."""
        self._parser = HttpResponseParser(self)
        # Of both lengths the chunks count (RFC 9112, 6.3); nothing follows such an answer.
        self._parser.set_dangerous_leniencies(lenient_chunked_length=True)
        self.status, self.headers, self._sent, self._bodiless = 0, [], False, bodiless
        self._begun = self._whole = self._keep = self._until_closed = False
        self._error = None
        self._parts, self._held, self._quiet = [], 0, 0
        self.patience(limits.BODY_WITHIN + limits.FORWARD_WITHIN)
        if self._transport.is_closing():
            self.fail(BrokenOff("it closed the connection"))

    async def send(self, data: bytes) -> None:
        """Write ``data`` and wait until there is room for more; of a connection that is gone `head` and `part` tell.

        Raises :class:`TimeoutError` where the service takes nothing for ``limits.STREAM_WITHIN``.
        """
        if self._transport.is_closing():
            return
        self._transport.write(data)
        if self._room is not None:
            async with asyncio.timeout(limits.STREAM_WITHIN):
                await self._room

    def all_sent(self) -> None:
        """From now on the service has ``limits.FORWARD_WITHIN``."""
        self._sent = True
        if not self._begun:
            self.patience(limits.FORWARD_WITHIN)

    def patience(self, seconds: float) -> None:
        """Fail with :class:`TimeoutError`, or end while idle, unless something comes within ``seconds``."""
        self._patient()
        self._timer = self._loop.call_later(seconds, self.fail, TimeoutError())

    def fail(self, error: BaseException) -> None:
        """End it; who waits for the answer gets ``error``, unless it came whole before."""
        if not self._whole or self._parser is None:
            self._error = self._error or error
            self.abort()
            self._wake()
        self._ended(self)

    async def head(self) -> None:
        """Wait for ``status`` and ``headers``; raises :class:`BrokenOff`, :class:`TimeoutError`, and as `fail` says."""
        while not self._begun:
            await self._more()
        self._patient()

    async def part(self) -> tuple[bytes, bool]:
        """Return the next part of the answer's body, and whether more may follow; raises as `head` does."""
        if not self._parts and not self._whole:
            self.patience(limits.FORWARD_WITHIN)
            while not self._parts and not self._whole:
                await self._more()
            self._patient()
        said = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts, self._held = [], 0
        if self._paused and not self._transport.is_closing():
            self._paused = False
            self._transport.resume_reading()
        return said, not self._whole

    async def _more(self) -> None:
        if self._error is not None:
            raise self._error
        self._heard = self._loop.create_future()
        await self._heard

    def _patient(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wake(self) -> None:
        if self._heard is not None and not self._heard.done():
            self._heard.set_result(None)

    # --- the transport calls these ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)

    def data_received(self, data: bytes) -> None:
        if self._parser is None or self._whole:
            # Nobody asked: it would be taken for the answer to the next request.
            self._keep = False
            self.fail(BrokenOff("it spoke unasked"))
            return
        self._quiet += len(data)
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            self._keep = False
            self.fail(BrokenOff(str(error) or "it switched protocols"))
        if self._quiet > limits.HEAD_BYTES and not self._whole:
            self.fail(BrokenOff(f"it sent {limits.HEAD_BYTES} bytes that are neither a head nor a body"))
        self._wake()

    def pause_writing(self) -> None:
        self._room = self._loop.create_future()

    def resume_writing(self) -> None:
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
        self._room = None

    def connection_lost(self, exc: Exception | None) -> None:
        self.resume_writing()
        if self._begun and self._until_closed and exc is None and self._error is None:
            self._whole = True
            self._wake()
        self.fail(BrokenOff(str(exc or "it closed the connection")))

    # --- the parser calls these ---

    def on_message_begin(self) -> None:
        if self._begun:
            self._keep = False  # a second answer to one request
        else:
            self.headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._begun:  # else it is a trailer
            self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        parser = cast("HttpResponseParser", self._parser)
        status = parser.get_status_code()
        if self._begun or (100 <= status < 200 and status != 101):
            return  # what goes before an answer concerns this connection alone (RFC 9110, 15.2)
        codings = [value.lower() for name, value in self.headers if name == b"transfer-encoding"]
        length = any(name == b"content-length" for name, _ in self.headers)
        version = parser.get_http_version()
        coded = codings == [b"chunked"] and version == "1.1"
        if not 200 <= status < 600 or version not in ("1.0", "1.1") or (codings and not coded):
            self.fail(BrokenOff("its answer is none of HTTP/1.1"))
            return
        self.status, self._begun = status, True
        self._whole = self._bodiless
        self._keep = parser.should_keep_alive() and not (codings and length)
        self._until_closed = not codings and not length

    def on_body(self, body: bytes) -> None:
        if self._whole or self._error is not None:
            self._keep = False
            return
        self._quiet = 0
        self._parts.append(body)
        self._held += len(body)
        # The client reads slower than the service writes: no more here than on the way to him.
        if self._held > limits.TRANSPORT_BYTES and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        if self._begun and self._error is None:
            self._whole = True
