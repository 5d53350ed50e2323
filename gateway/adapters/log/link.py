"""A connection that comes back: dialled when somebody calls, greeted before it is used, never repeating a request."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
import ssl
from collections.abc import Awaitable, Callable, Sequence
from importlib import resources
from urllib.parse import parse_qs, unquote, urlsplit

import hiredis
import msgspec

from gateway import limits
from gateway.adapters.log.keys import Counters
from gateway.adapters.log.resp import Reply, Wire, pack, refusal
from gateway.errors import GatewayError, Misconfigured, Unavailable

_logger = logging.getLogger(__name__)


class Address(msgspec.Struct, frozen=True):
    """Where the log server listens, and as whom we come."""

    host: str = ""
    port: int = 6379
    path: str = ""
    database: int = 0
    user: str = ""
    password: str = ""
    tls: bool = False

    @property
    def place(self) -> str:
        """For messages: never with the password."""
        return self.path or f"{self.host}:{self.port}"


def address(url: str) -> Address:
    """Read ``redis://``, ``rediss://`` (TLS) or ``unix://``; raises `Misconfigured`, without the password in it."""
    try:
        parts = urlsplit(url)
        database = parts.path.strip("/") if parts.scheme != "unix" else parse_qs(parts.query).get("db", ["0"])[0]
        found = Address(
            host=parts.hostname or "127.0.0.1",
            port=parts.port or 6379,
            path=unquote(parts.path) if parts.scheme == "unix" else "",
            database=int(database or 0),
            user=unquote(parts.username or ""),
            password=unquote(parts.password or ""),
            tls=parts.scheme == "rediss",
        )
    except ValueError as error:
        raise Misconfigured("the log server's url cannot be read", "write redis://host:port/0") from error
    if parts.scheme not in {"redis", "rediss", "unix"} or (parts.scheme == "unix" and not found.path):
        raise Misconfigured(f"the log server's url begins with {parts.scheme!r}", "write redis://host:port/0")
    return found


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
    """A `Wire` to one server, made again when needed.

    ``greet`` is asked of each new connection before anybody else may use it; what it raises closes the connection.
    Between failed attempts calls fail at once, by the pauses of `limits.LOG_BACKOFF`.
    """

    def __init__(
        self, to: Address, greet: Callable[[Wire], Awaitable[None]] | None = None, counters: Counters | None = None
    ) -> None:
        self._to = to
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
            try:
                async with asyncio.timeout(limits.LOG_CONNECT_WITHIN + limits.LOG_REPLY_WITHIN):
                    wire = await self._dial()
            except GatewayError as error:
                self._failed(error)
                raise
            except (OSError, TimeoutError) as error:
                away = Unavailable(f"the log server at {self._to.place} does not answer: {error}", retry_after=1.0)
                self._failed(away)
                raise away from error
            self._wire, self._failures, self._why, self.down_since = wire, 0, None, None
            self.up.set()
            wire.closed.add_done_callback(lambda _: self._lost(wire))
            return wire

    async def call(self, *commands: bytes, within: float = limits.LOG_REPLY_WITHIN) -> list[Reply]:
        """As `Wire.call`, on the open connection or a new one; raises `Unavailable`."""
        return await (await self.wire()).call(*commands, within=within)

    async def ask(self, *arguments: bytes | str | int, within: float = limits.LOG_REPLY_WITHIN) -> Reply:
        """One command; an error reply is raised as its typed error."""
        return good((await self.call(pack(*arguments), within=within))[0])

    async def run(self, script: Script, keys: Sequence[str], *arguments: bytes | str | int) -> Reply:
        """One script call, loaded again if the server forgot it; an error reply is raised as its typed error."""
        command = script.call(keys, *arguments)
        reply = (await self.call(command))[0]
        if missing_script(reply):
            reply = (await self.call(script.load, command))[1]
        if isinstance(reply, hiredis.ReplyError) and str(reply).startswith("READONLY"):
            self.drop()  # it became a replica: whoever answers at this address now is asked next
        return good(reply)

    async def close(self) -> None:
        self.closed = True
        if self._wire is not None and self._wire.open:
            self._wire.abort()
            await self._wire.closed

    def drop(self) -> None:
        """Close the connection so that the next call dials again: this server is no longer the one to ask."""
        if self._wire is not None:
            self._wire.abort()

    async def _dial(self) -> Wire:
        loop, to = asyncio.get_running_loop(), self._to
        async with asyncio.timeout(limits.LOG_CONNECT_WITHIN):
            if to.path:
                _, wire = await loop.create_unix_connection(Wire, to.path)
            else:
                tls = ssl.create_default_context() if to.tls else None
                _, wire = await loop.create_connection(Wire, to.host, to.port, ssl=tls)
        try:
            hello = [pack("CLIENT", "SETNAME", "topic-gateway")]
            if to.password:
                hello.insert(0, pack("AUTH", *((to.user,) if to.user else ()), to.password))
            if to.database:
                hello.append(pack("SELECT", to.database))
            for reply in await wire.call(*hello, *(script.load for script in _SCRIPTS)):
                good(reply)
            if self._greet is not None:
                await self._greet(wire)
        except BaseException:
            wire.abort()
            raise
        return wire

    def _failed(self, error: GatewayError) -> None:
        pause = backoff(self._failures)
        loop = asyncio.get_running_loop()
        self._failures += 1
        self._not_before = loop.time() + pause
        if self._why is None or self._why.code != error.code:  # once per reason, not per attempt
            _logger.warning("log server %s: %s", self._to.place, error)
        self._why = error
        if self.down_since is None:
            self.down_since = loop.time()

    def _lost(self, wire: Wire) -> None:
        if self._wire is wire:
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
