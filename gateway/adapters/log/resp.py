"""One connection to the log server: RESP packed by hand, replies in the order of the requests (RESP2)."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TypeAlias, cast

import hiredis

from gateway import limits
from gateway.errors import GatewayError, Misconfigured, StorageFull, Unavailable

#: What the server answers. An error reply is a value here: in a pipeline its neighbours are still good.
Reply: TypeAlias = bytes | int | hiredis.ReplyError | list["Reply"] | None


#: How servers say that no id is left above an entry; the last is what Redis 7.0 says where an epoch's offsets are
#: used up.
_BLOCKED = (
    "equal or smaller than the target stream top item",
    "exhausted the last possible ID",
    "Elements are too large to be stored",
)


class Lost(Unavailable):
    """The connection ended before the reply: whether the server did it is unknown."""


def pack(*arguments: bytes | str | int) -> bytes:
    """One command as RESP. For what is not hot; the append path formats its own."""
    parts = [b"*%d\r\n" % len(arguments)]
    for argument in arguments:
        blob = argument if isinstance(argument, bytes) else str(argument).encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(blob), blob))
    return b"".join(parts)


def refusal(reply: hiredis.ReplyError) -> GatewayError:
    """The typed error for an error reply: what the server refused was not done."""
    text = str(reply)
    match text.split(" ", 1)[0]:
        case "OOM":
            return StorageFull("the log server's memory is full", "wait until it drained", retry_after=1.0)
        case "MISCONF":
            return StorageFull("the log server cannot write to its disk", "free space on it", retry_after=5.0)
        case "NOAUTH" | "WRONGPASS" | "NOPERM":
            return Misconfigured(f"the log server refuses our account: {text}", "check user and password in its url")
        case "READONLY" | "LOADING" | "BUSY" | "MASTERDOWN" | "NOREPLICAS" | "CLUSTERDOWN" | "UNBLOCKED":
            return Unavailable(f"the log server is not ready: {text}", retry_after=0.5)
        case "MOVED" | "ASK" | "TRYAGAIN":
            return Unavailable(f"keys of the log move to another server: {text}", retry_after=0.5)
    if any(words in text for words in _BLOCKED):
        return Unavailable("an entry that is not ours blocks the log", "run: gateway doctor", retry_after=5.0)
    return Unavailable(f"the log server answered: {text}", retry_after=1.0)


def misplaced(reply: Reply) -> bool:
    """Say whether the server is not the one to ask any more: a replica now, a node that gave the keys away, or one
    that has lost sight of its cluster.

    It did nothing of what was asked.
    """
    return isinstance(reply, hiredis.ReplyError) and str(reply).startswith(("MOVED ", "READONLY ", "CLUSTERDOWN "))


class Wire(asyncio.Protocol):
    """A connected stream of requests and replies; never reconnects, never repeats a request."""

    def __init__(self) -> None:
        #: How its server said that it is not the one to ask any more; then nothing new is sent, and it closes once all
        #: is answered.
        self.misplaced = ""
        self._reader = hiredis.Reader()
        self._waiting: deque[tuple[int, list[Reply], asyncio.Future[list[Reply]]]] = deque()
        self._transport: asyncio.Transport | None = None
        #: Bytes so far.
        self._heard = 0
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing() and not self.misplaced

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        self._heard += len(data)
        try:
            while (reply := self._reader.gets()) is not False:
                if not self._waiting:
                    raise hiredis.ProtocolError("a reply that nobody asked for")
                wanted, replies, waiter = self._waiting[0]
                replies.append(cast("Reply", reply))
                if misplaced(cast("Reply", reply)):
                    self.misplaced = str(reply)
                if len(replies) == wanted:
                    self._waiting.popleft()
                    if not waiter.done():  # its caller may have been cancelled: the reply still had to be read
                        waiter.set_result(replies)
        except hiredis.ProtocolError:
            self.abort()
        if self.misplaced and not self._waiting:
            self.abort()

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        while self._waiting:
            waiter = self._waiting.popleft()[2]
            if not waiter.done():
                waiter.set_exception(Lost("the connection to the log server ended", retry_after=0.5))
        if not self.closed.done():
            self.closed.set_result(None)

    def abort(self) -> None:
        """Close without waiting for anything; requests under way raise `Lost`."""
        if self._transport is not None:
            self._transport.abort()

    async def call(self, *commands: bytes, within: float = limits.LOG_REPLY_WITHIN) -> list[Reply]:
        """Send ``commands`` in one write and return one reply for each, in order; error replies are returned.

        Raises `Lost` when the connection ends first or the server says nothing for ``within`` seconds (then it is
        closed: the replies of later requests would be taken for ours).
        """
        if self._transport is None or not self.open:
            raise Lost("there is no connection to the log server", retry_after=0.5)
        waiter: asyncio.Future[list[Reply]] = asyncio.get_running_loop().create_future()
        self._waiting.append((len(commands), [], waiter))
        self._transport.write(commands[0] if len(commands) == 1 else b"".join(commands))
        look = asyncio.get_running_loop().call_later(within, self._look, waiter, within, self._heard)
        try:
            return await waiter
        finally:
            look.cancel()

    def _look(self, waiter: asyncio.Future[list[Reply]], within: float, heard: int) -> None:
        """Give up on a server that was silent. Megabytes for a loop that is busy with a crowd may take longer."""
        if waiter.done():
            return
        if heard != self._heard:
            asyncio.get_running_loop().call_later(within, self._look, waiter, within, self._heard)
            return
        waiter.set_exception(Lost(f"the log server did not answer within {within} s", retry_after=1.0))
        self.abort()


def last_id(info: Reply) -> bytes:
    """The last id ever given, of an answer of XINFO STREAM; zero where there is no such stream.

    Any other refusal is raised as its typed error: it says nothing of what there is.
    """
    if isinstance(info, hiredis.ReplyError):
        if "no such key" in str(info):
            return b"0-0"
        raise refusal(info)
    fields = cast("list[Reply]", info)
    return cast("bytes", fields[fields.index(b"last-generated-id") + 1])
