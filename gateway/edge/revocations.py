"""What was revoked, as one edge knows it: refused from then on, and whoever came in by it is sent away."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Literal

from gateway import limits
from gateway.adapters.log import REVOKED, Control, Notice, revocation
from gateway.adapters.sse import Stream
from gateway.adapters.tokens import Verifier
from gateway.core.access import KINDS, Grant, Revocation, Revoked
from gateway.errors import BadToken, GatewayError, Refused, Unavailable

_log = logging.getLogger("gateway.edge")
_audit = logging.getLogger("gateway.audit")

#: Says whether a grant is still good.
Good = Callable[[Grant], bool]


class Held:
    """A stream that somebody holds open: it ends as soon as its grant does."""

    __slots__ = ("filter", "generation", "grant", "id", "over", "stream")

    def __init__(self, id: str, grant: Grant, filter: str = "", generation: int = 0) -> None:
        self.id = id
        self.grant = grant
        self.filter = filter
        #: Of the declarations that it was decided by.
        self.generation = generation
        self.over = False
        #: What comes live; None while what it missed is sent.
        self.stream: Stream | None = None

    @property
    def channels(self) -> tuple[str]:
        return (self.filter,)

    @property
    def waiting(self) -> int:
        """Bytes that its reader has not taken."""
        return 0 if self.stream is None else self.stream.size

    def finish(self) -> None:
        self.over = True
        if self.stream is not None:
            self.stream.finish()


class Revocations:
    """Reads the control stream. Until it knows what is in force, nobody with a token is admitted."""

    def __init__(
        self, control: Control, verifier: Verifier, send_away: Callable[[Good], int], now: Callable[[], float]
    ) -> None:
        """``send_away`` closes every connection whose grant is not good, and returns how many there were."""
        self._control = control
        self._verifier = verifier
        self._send_away = send_away
        self._now = now
        self._revoked = Revoked()
        self._generation = verifier.ring.generation
        #: What is in force was read at least once.
        self.known = asyncio.Event()
        #: Kind of notice -> who is told of it; others than revocations.
        self.listeners: dict[str, Callable[[bytes], None]] = {}

    def __len__(self) -> int:
        return len(self._revoked)

    def check(self, grant: Grant) -> None:
        """Raise :class:`BadToken` where ``grant`` was revoked, and :class:`Unavailable` while that is not known."""
        if not self.known.is_set():
            raise Unavailable("what was revoked is not known yet", "try again", retry_after=0.5)
        one = self._revoked.covers(grant, self._now())
        if one is not None:
            raise BadToken(f"the token was revoked, by its {one.what}", "get a new one, if you still may")

    def good(self, grant: Grant) -> bool:
        """Say whether who came in by ``grant`` may stay."""
        return self._revoked.covers(grant, self._now()) is None and self._verifier.ring.has(grant.key)

    async def run(self) -> None:
        """Follow the control stream and the key ring: until cancelled."""
        tail = self._control.tail()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._look(), name="keys that went")
                async for notices in tail:
                    if notices.lost:
                        await self._read()
                    for notice in notices.notices:
                        self._hear(notice)
        finally:
            await tail.close()

    async def _read(self) -> None:
        """Read all that is in force, however long the log server is away."""
        while True:
            try:
                known = await self._control.revoked()
            except GatewayError:
                await asyncio.sleep(limits.LOG_BACKOFF[0])
                continue
            now = self._now()
            self._revoked = Revoked(one for one in known if one.until > now)
            self.known.set()
            self._send_away(self.good)
            return

    def _hear(self, notice: Notice) -> None:
        if notice.kind == REVOKED:
            self._add(lambda: self._revoked.add(revocation(notice)))
            gone = self._send_away(self.good)
            _log.info("told of a revocation: %d connections closed", gone)
        elif listener := self.listeners.get(notice.kind):
            self._add(lambda: listener(notice.data))

    def _add(self, do: Callable[[], None]) -> None:
        try:
            do()
        except (GatewayError, ValueError, RecursionError) as e:
            # A foreign writer of our stream must not end what keeps revocations.
            _log.error("a notice of the control stream was not understood: %s", type(e).__name__)

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(limits.KEYS_LOOK_EVERY)
            self._verifier.ring.look()
            if self._verifier.ring.generation != self._generation:
                self._generation = self._verifier.ring.generation
                gone = self._send_away(self.good)
                _log.info("the key ring changed: %d connections closed", gone)


async def revoke(control: Control, what: Literal["sub", "jti", "key"], name: str, seconds: int, by: str) -> Revocation:
    """Revoke for so many seconds and tell every edge and the audit log; raises :class:`Refused` for no such name."""
    kind, _, who = name.partition(":")
    if what == "sub" and (kind not in KINDS or not who):
        raise Refused(f"{name[:80]!r} is nobody", f"write {', '.join(f'{k}:NAME' for k in KINDS)}")
    if not name or not name.isprintable() or len(name) > 2 * limits.ID_BYTES:
        raise Refused("that is no name", "write it as the token has it")
    if not 0 < seconds <= limits.TOKEN_LIFE:
        raise Refused(f"{seconds} s is no time to revoke for", f"use 1 to {limits.TOKEN_LIFE} seconds")
    done = await control.revoke(what, name, seconds, by)
    _audit.warning("%s: revoked %s %s for %d s", by, what, name, seconds)
    return done
