"""The control stream: what every edge must hear, read by each from where it stands, and what is in force by it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Literal, cast

import msgspec

from gateway import limits
from gateway.adapters.log.entry import position
from gateway.adapters.log.link import Link, Script, good
from gateway.adapters.log.resp import Wire, last_id, pack
from gateway.adapters.log.returning import Returning
from gateway.core.access import Revocation
from gateway.errors import LimitReached

REVOKE = Script("revoke")

REVOKED = "revoked"

_log = logging.getLogger(__name__)


class Notice(msgspec.Struct, frozen=True):
    """Something that every edge is told once: a revocation, or a kind of its sender's own."""

    kind: str
    data: bytes


class Notices(msgspec.Struct, frozen=True):
    """What one read brought, in the order of the stream."""

    notices: list[Notice]
    #: The connection is new, or there is a hole: what is in force is to be read anew.
    lost: bool = False


class Control:
    """One gateway's control stream. `Log.control` is one; its methods raise `Unavailable` while the server is away."""

    def __init__(self, link: Link, dial: Callable[[], Link], gateway: str) -> None:
        self._link = link
        self._dial = dial
        self._stream = f"{{{gateway}}}:control"
        self._revoked = f"{{{gateway}}}:revoked"
        self._tails: list[ControlTail] = []

    async def announce(self, notice: Notice) -> None:
        """Tell every edge that runs. Kept are the newest `limits.CONTROL_KEPT` notices."""
        fields = ("kind", notice.kind, "data", notice.data)
        # By server-made numbers without holes, as of a script: who was away sees what it missed.
        await self._link.ask("XADD", self._stream, "MAXLEN", "~", limits.CONTROL_KEPT, "0-*", *fields)

    async def revoke(self, what: Literal["sub", "jti", "key"], name: str, seconds: int, by: str) -> Revocation:
        """Revoke from now on, for so many seconds, and tell every edge.

        Raises `LimitReached` where `limits.REVOCATIONS` are in force.
        """
        keys = (self._revoked, self._stream)
        bounds = (limits.REVOCATIONS, limits.CONTROL_KEPT)
        at = cast("int", await self._link.run(REVOKE, keys, what, name, seconds, _line(by), *bounds))
        if at < 0:
            raise LimitReached(f"{limits.REVOCATIONS} revocations are in force", "take the key out of the key ring")
        return Revocation(what, name, at, at + seconds)

    async def revoked(self) -> list[Revocation]:
        """Everything that was revoked; some of it may be over."""
        rows = cast("list[bytes]", await self._link.ask("HGETALL", self._revoked))
        found = []
        for field, value in zip(rows[::2], rows[1::2], strict=True):
            try:
                found.append(_revocation(field, value))
            except ValueError:  # a foreign writer's: it must not hide the others
                _log.error("a revocation cannot be read: %r", field[:100])
        return found[: limits.REVOCATIONS]

    def tail(self) -> ControlTail:
        """A new reader of what is announced from now on; `ControlTail.close` it, or `close` closes it."""
        self._tails = [tail for tail in self._tails if not tail.closed]
        tail = ControlTail(self._dial(), self._stream)
        self._tails.append(tail)
        return tail

    async def close(self) -> None:
        for tail in self._tails:
            await tail.close()


class ControlTail(Returning[Notices]):
    """The notices from now on, for one edge; iterate, then `close` it.

    It reconnects by itself for ever, with the pauses of `limits.LOG_BACKOFF`, and goes on where it stood. Each
    connection begins with `Notices` that are ``lost``, for another server may answer now.
    """

    def __init__(self, link: Link, stream: str) -> None:
        super().__init__(link)
        self._stream = stream
        self._at = -1
        self._known: Wire | None = None

    async def _next(self, wire: Wire) -> Notices | None:
        if self._known is not wire:
            top = await self._top(wire)
            if not 0 <= self._at <= top:
                self._at = top  # the first time, or the server lost its memory
            self._known = wire
            return Notices([], lost=True)
        block = int(limits.TAIL_BLOCK * 1000)
        ask = pack("XREAD", "COUNT", limits.LOG_PAGE, "BLOCK", block, "STREAMS", self._stream, f"0-{self._at}")
        reply = good((await wire.call(ask))[0])
        if reply is None:
            if await self._top(wire) < self._at:
                self._known = None  # a read beyond its top would wait for ever
            return None
        ((_, entries),) = cast("list[tuple[bytes, list[tuple[bytes, list[bytes]]]]]", reply)
        first, last = position(entries[0][0]).offset, position(entries[-1][0]).offset
        notices = [Notice(fields[1].decode(errors="replace"), fields[3]) for _, fields in entries if len(fields) == 4]
        hole = first != self._at + 1
        self._at = last
        return Notices(notices, lost=hole)

    async def _top(self, wire: Wire) -> int:
        return position(last_id((await wire.call(pack("XINFO", "STREAM", self._stream)))[0])).offset


def revocation(notice: Notice) -> Revocation:
    """The revocation that a notice of kind `REVOKED` tells of."""
    field, _, value = notice.data.partition(b"\n")
    return _revocation(field, value)


def _revocation(field: bytes, value: bytes) -> Revocation:
    what, _, name = field.decode(errors="replace").partition(" ")
    until, at, *_ = value.split(b" ")
    return Revocation(cast('Literal["sub", "jti", "key"]', what), name, int(at), int(until))


def _line(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)[:200]
