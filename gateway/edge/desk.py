"""The operators' desk: who may handle dead letters over HTTP, and what the audit log hears of it."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from contextlib import aclosing
from typing import Literal

from gateway import limits
from gateway.adapters.http_letters import Asked, Found, Selected, Step, Verb
from gateway.adapters.tokens import Grant
from gateway.edge.denials import Denials
from gateway.errors import BadToken, Busy, Denied, GatewayError, Refused, TokenExpired
from gateway.letters import Address, Letters, NoLetter, Progress, Which, address

_audit = logging.getLogger("gateway.audit")


class Desk:
    """Admits operators, see ``adapters/http_letters``; the rest is denied, counted and told to the audit log."""

    def __init__(
        self,
        letters: Letters,
        admit: Callable[[str], Grant],
        allows: Callable[[str | None, str | None], bool],
        refused: Callable[[GatewayError], None],
        now: Callable[[], float],
        good: Callable[[Grant], bool],
    ) -> None:
        self.letters = letters
        self.allows = allows
        self.refused = refused
        self.now = now
        #: Whether a grant that was good still is.
        self.good = good
        #: Changes of many letters that are under way.
        self.changes = 0
        self._admit = admit
        self._denials = Denials()

    def operator(self, token: str, whence: str, verb: Verb) -> _Operator:
        """Return what the bearer of ``token`` may do; raises :class:`BadToken` and :class:`Denied`."""
        return _Operator(self, self.admitted(token, whence, "dead letters", verb), whence)

    def allowed(self, token: str, whence: str, noun: str, verb: str) -> str:
        """Return who the operator with ``token`` is, for the audit log; raises as ``operator`` does."""
        return f"{self.admitted(token, whence, noun, verb).principal}, {whence}"

    def still(self, grant: Grant) -> None:
        """Raise :class:`TokenExpired` or :class:`BadToken` where ``grant``, which was good, ended meanwhile."""
        if grant.expires is not None and grant.expires <= self.now():
            raise TokenExpired("the token's time is over", "do the rest with a new one")
        if not self.good(grant):
            raise BadToken("the token was revoked meanwhile", "get a new one, if you still may")

    def admitted(self, token: str, whence: str, noun: str, verb: str) -> Grant:
        """Return what lets the operator with ``token`` in; raises as ``operator`` does."""
        who = "unknown"
        try:
            if not token:
                # Also where the edge takes anybody.
                raise BadToken("a token is needed", "make one with `gateway token --role operator`")
            grant = self._admit(token)
            who = str(grant.principal)
            if grant.principal.kind != "operator":
                raise Denied(f"{noun} are for operators", "use a token whose role is operator")
        except Refused:
            self._tell(who, whence, f"{verb} {noun}")
            raise
        return grant

    def denied(self, who: str, whence: str, verb: Verb) -> None:
        """Tell the audit log of a request about dead letters without the right."""
        self._tell(who, whence, f"{verb} dead letters")

    def _tell(self, who: str, whence: str, what: str) -> None:
        """Tell the audit log of a request without the right, unless it heard enough in this second."""
        untold = self._denials.tell(who, self.now())
        if untold is not None:
            more = f", after {untold} more untold" if untold else ""
            _audit.warning("%s, %s: denied to %s%s", who, whence, what, more)


class _Operator:
    def __init__(self, desk: Desk, grant: Grant, whence: str) -> None:
        self._desk = desk
        self._letters = desk.letters
        self._grant = grant
        self._who = f"{grant.principal}, {whence}"

    async def page(self, which: Selected, limit: int, after: str) -> tuple[list[Found], str | None]:
        page = await self._letters.page(_which(which), limit, address(after) if after else None)
        return [(str(at), letter) for at, letter in page.found], str(page.next) if page.next else None

    async def read(self, text: str) -> Found:
        at = address(text)
        return str(at), await self._letters.read(at)

    async def edit(self, text: str, data: bytes) -> str:
        at = address(text)
        await self._letters.edit(self._who, at, data)
        return str(at)

    def change(self, verb: Literal["replay", "drop"], asked: Asked) -> AsyncGenerator[Step]:
        named, which = _chosen(asked)
        if self._desk.changes >= limits.DEAD_CHANGES:
            raise Busy(f"{limits.DEAD_CHANGES} changes of dead letters are under way here", "let one of them end")
        return self._changed(verb, named, which, asked)

    async def _changed(
        self, verb: Literal["replay", "drop"], named: list[Address], which: Which, asked: Asked
    ) -> AsyncGenerator[Step]:
        self._desk.changes += 1
        try:
            # All addresses first: a letter that is given up once more lies behind the others, and is not of these.
            places = named or [at async for at, _ in self._letters.find(which, asked.limit)]
            begin = self._letters.replay if verb == "replay" else self._letters.drop
            async with aclosing(begin(self._who, self._while_valid(places), asked.rate)) as steps:
                async for progress in steps:
                    yield _step(progress)
        finally:
            self._desk.changes -= 1

    def _while_valid(self, places: Iterable[Address]) -> Iterator[Address]:
        for at in places:
            self._desk.still(self._grant)
            yield at

    def would(self, asked: Asked) -> AsyncGenerator[Found | Step]:
        named, which = _chosen(asked)
        return self._would(named, which, asked.limit)

    async def _would(self, named: list[Address], which: Which, limit: int) -> AsyncGenerator[Found | Step]:
        if not named:
            async with aclosing(self._letters.find(which, limit)) as found:
                async for at, letter in found:
                    yield str(at), letter
            return
        left_out = 0
        for at in named:
            try:
                yield str(at), await self._letters.read(at)
            except NoLetter as error:
                left_out += 1
                yield Step(0, left_out, str(error))


def _chosen(asked: Asked) -> tuple[list[Address], Which]:
    return list(dict.fromkeys(map(address, asked.letters))), _which(asked.which)


def _which(which: Selected) -> Which:
    return Which(which.group, which.reason, which.topic)


def _step(progress: Progress) -> Step:
    return Step(progress.done, progress.left_out, progress.why)
