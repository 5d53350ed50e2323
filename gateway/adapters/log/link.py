"""A connection that comes back: dialled when somebody calls, greeted before it is used, never repeating a request."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from importlib import resources

import hiredis

from gateway import limits
from gateway.adapters.log.keys import Counters
from gateway.adapters.log.resp import Lost, Reply, Wire, misplaced, pack, refusal
from gateway.adapters.log.servers import Address, Place, away, connected
from gateway.errors import GatewayError, Unavailable

_logger = logging.getLogger(__name__)


class Script:
    """One Lua file beside this one; its first comment lines name every key it touches."""

    def __init__(self, name: str) -> None:
        self.text = resources.files(__package__ or "").joinpath(f"{name}.lua").read_bytes()
        # The server's own name for a script (EVALSHA), not a safeguard.
        self.sha = hashlib.sha1(self.text, usedforsecurity=False).hexdigest()
        self.load = pack("SCRIPT", "LOAD", self.text)

    def call(self, keys: Sequence[str], *arguments: bytes | str | int) -> bytes:
        return pack("EVALSHA", self.sha, len(keys), *keys, *arguments)


EPOCH, APPEND, WALK, TRIM = Script("epoch"), Script("append"), Script("walk"), Script("trim")
_SCRIPTS = (EPOCH, APPEND, WALK, TRIM)


def missing_script(reply: Reply) -> bool:
    """Did the server forget our scripts? (A restart, SCRIPT FLUSH.) Then nothing was done."""
    return isinstance(reply, hiredis.ReplyError) and str(reply).startswith("NOSCRIPT")


class Link:
    """A `Wire` to the server of one place, made again when needed: there, or wherever its keys went.

    ``greet`` is asked of each new connection before anybody else may use it; what it raises closes the connection.
    Between failed attempts calls fail at once, by the pauses of `limits.LOG_BACKOFF`.
    """

    def __init__(
        self, place: Place, greet: Callable[[Wire], Awaitable[None]] | None = None, counters: Counters | None = None
    ) -> None:
        self._place = place
        #: Where it was dialled last.
        self._at: Address | None = None
        self._greet = greet
        self._counters = counters or Counters()
        self._wire: Wire | None = None
        self._dialling = asyncio.Lock()
        self.closed = False
        self._failures = 0
        self._not_before = 0.0
        self._why: GatewayError | None = None
        self.up = asyncio.Event()
        #: Since when it is down, by the loop's clock; None while up.
        self.down_since: float | None = None

    @property
    def place(self) -> str:
        """Where it was dialled last, for people."""
        return "nowhere yet" if self._at is None else self._at.place

    @property
    def why(self) -> str:
        """What keeps it down, in words."""
        return str(self._why) if self._why is not None else "not connected yet"

    async def wire(self) -> Wire:
        """The open connection, dialled if there is none; raises `Unavailable`, or what ``greet`` raised."""
        if self._wire is not None and self._wire.open:
            return self._wire
        async with self._dialling:
            if self._wire is not None and self._wire.open:
                return self._wire
            loop = asyncio.get_running_loop()
            if self.closed:
                raise Unavailable("the log is closed")
            if self._why is not None and loop.time() < self._not_before:
                raise self._why
            if self._wire is not None:
                self._lost(self._wire)
            try:
                wire = await self._dial()
            except GatewayError as error:
                self._failed(error)
                raise
            self._wire, self._failures, self._why, self.down_since = wire, 0, None, None
            self.up.set()
            wire.closed.add_done_callback(lambda _: self._lost(wire))
            return wire

    async def call(self, *commands: bytes, within: float = limits.LOG_REPLY_WITHIN) -> list[Reply]:
        """As `Wire.call`, on the open connection or a new one; raises `Unavailable`."""
        wire = await self.wire()
        replies = await wire.call(*commands, within=within)
        if wire.misplaced and all(map(misplaced, replies)):  # nothing was done: whoever has the keys now is asked
            replies = await (await self.wire()).call(*commands, within=within)
        return replies

    async def ask(self, *arguments: bytes | str | int, within: float = limits.LOG_REPLY_WITHIN) -> Reply:
        """One command; an error reply is raised as its typed error."""
        return good((await self.call(pack(*arguments), within=within))[0])

    async def run(self, script: Script, keys: Sequence[str], *arguments: bytes | str | int) -> Reply:
        """One script call, loaded again if the server forgot it; an error reply is raised as its typed error."""
        command = script.call(keys, *arguments)
        reply = (await self.call(command))[0]
        if missing_script(reply):
            reply = (await self.call(script.load, command))[1]
        return good(reply)

    async def close(self) -> None:
        self.closed = True
        wire = self._wire
        if wire is not None and wire.open:
            wire.abort()
            await wire.closed

    async def _dial(self) -> Wire:
        to = self._at = await self._place.find()
        wire: Wire | None = None
        try:
            async with asyncio.timeout(limits.LOG_CONNECT_WITHIN + limits.LOG_REPLY_WITHIN):
                wire = await connected(to)
                for reply in await wire.call(*(script.load for script in _SCRIPTS)):
                    good(reply)
                if self._greet is not None:
                    await self._greet(wire)
                if self.closed:  # meanwhile
                    raise Unavailable("the log is closed")
                return wire
        except BaseException as error:
            self._place.left(to, wire.misplaced if wire is not None else "")
            if wire is not None:
                wire.abort()
            if isinstance(error, (OSError, TimeoutError, Lost)):
                raise away(to, error) from error
            raise

    def _failed(self, error: GatewayError) -> None:
        pause = backoff(self._failures)
        loop = asyncio.get_running_loop()
        self._failures += 1
        self._not_before = loop.time() + pause
        if self._why is None or self._why.code != error.code:  # once per reason, not per attempt
            _logger.warning("log server %s: %s", self.place, error)
        self._why = error
        if self.down_since is None:
            self.down_since = loop.time()

    def _lost(self, wire: Wire) -> None:
        """It ended, or its server says that it is not the one to ask any more; told once."""
        if self._wire is wire and self._at is not None:
            self._wire = None
            self._place.left(self._at, wire.misplaced)
            self.up.clear()
            if not self.closed:
                self._counters.reconnects += 1
                self.down_since = asyncio.get_running_loop().time()


def good(reply: Reply) -> Reply:
    """The reply, or its typed error raised."""
    if isinstance(reply, hiredis.ReplyError):
        raise refusal(reply)
    return reply


def backoff(tries: int) -> float:
    """How long to wait after ``tries`` failures in a row, in seconds: by `limits.LOG_BACKOFF`, with jitter."""
    low, high = limits.LOG_BACKOFF
    return random.uniform(0.5, 1.0) * min(high, low * 2.0 ** min(tries, 10))  # noqa: S311 -- jitter is no secret
